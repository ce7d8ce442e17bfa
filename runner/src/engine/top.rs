//! The processes of a container, as the host sees them.

use std::fs;
use std::path::{Path, PathBuf};

use super::Engine;
use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::process::read_limited;
use super::state::Status;

/// The kernel's clock ticks per second in what /proc tells programs; the same
/// on every machine Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// The user, as a number of the host's.
    pub uid: u32,
    /// Its id on the host.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// How long it has lived, in seconds.
    pub elapsed_seconds: u64,
    /// How long it has computed, in seconds.
    pub cpu_seconds: u64,
    /// The device number of its terminal; 0 is none.
    pub terminal: u64,
    /// Its command line, whatever the process has made of it; the name in
    /// brackets of one without.
    pub command: String,
}

impl Engine {
    /// Returns the processes in a container's process id namespace, by id.
    ///
    /// Nothing inside is run and no file of the container is read for it: a
    /// hostile image has only the texts that are shown.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and when /proc cannot be read.
    pub fn top(&self, container: &Container) -> Result<Vec<ProcessInfo>> {
        let not_running = || Error::NotRunning { container: container.config.name.to_string() };
        let Status::Running(running) = container.status()? else { return Err(not_running()) };
        let first = running.process()?.ok_or_else(not_running)?;
        let namespace = namespace(first.pid()).ok_or_else(not_running)?;
        let uptime = fs::read_to_string("/proc/uptime").trying("read the time since boot")?;
        let uptime = parse_uptime(&uptime);
        let proc = Path::new("/proc");
        let mut found = Vec::new();
        for entry in fs::read_dir(proc).doing("list", proc)? {
            let entry = entry.doing("list", proc)?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that ends meanwhile is none of them any more.
            if self::namespace(pid).as_ref() == Some(&namespace)
                && let Some(info) = read(pid, uptime)
            {
                found.push(info);
            }
        }
        found.sort_by_key(|process| process.pid);
        Ok(found)
    }
}

fn namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

fn read(pid: i32, uptime_seconds: u64) -> Option<ProcessInfo> {
    let text = |name: &str| read_limited(Path::new(&format!("/proc/{pid}/{name}"))).ok();
    let mut info = parse(pid, &text("stat")?, &text("status")?, uptime_seconds)?;
    let words = text("cmdline")?;
    let words = words.trim_end_matches('\0').replace('\0', " ");
    if !words.is_empty() {
        info.command = words;
    }
    Some(info)
}

/// Combines `/proc/PID/stat` and `/proc/PID/status` (proc(5)).
fn parse(pid: i32, stat: &str, status: &str, uptime_seconds: u64) -> Option<ProcessInfo> {
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1;
    // The state, field 3, is the first here.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let started_seconds = number(22)? / TICKS_PER_SECOND;
    Some(ProcessInfo {
        // Real, effective, saved and that of file systems: ps shows the effective one.
        uid: uid.split_ascii_whitespace().nth(1)?.parse().ok()?,
        pid,
        ppid: i32::try_from(number(4)?).ok()?,
        elapsed_seconds: uptime_seconds.saturating_sub(started_seconds),
        cpu_seconds: (number(14)? + number(15)?) / TICKS_PER_SECOND,
        terminal: number(7)?,
        command: format!("[{name}]"),
    })
}

/// Returns the whole seconds of `/proc/uptime`.
fn parse_uptime(text: &str) -> u64 {
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_behind_a_hostile_name() {
        let stat = "7 (x) S 1 (y) S 5 7 7 34816 7 0 1 2 3 4 250 150 0 0 20 0 1 0 12000 0 0";
        let status = "Name:\tx\nUid:\t1000\t1001\t1002\t1003\nGid:\t1\t1\t1\t1\n";
        assert_eq!(
            parse(7, stat, status, parse_uptime("500.25 900.00\n")),
            Some(ProcessInfo {
                uid: 1001,
                pid: 7,
                ppid: 5,
                elapsed_seconds: 380,
                cpu_seconds: 4,
                terminal: 34816,
                command: "[x) S 1 (y]".to_owned(),
            })
        );
        assert_eq!(parse(7, "7 (x) S", status, 0), None);
        assert_eq!(parse(7, stat, "", 0), None);
    }
}
