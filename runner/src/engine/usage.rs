//! What a running container uses.
//!
//! Everything is counted from its processes in /proc: it needs no control group,
//! and is the same with each layout of them.

use std::fs;
use std::path::Path;

use super::Engine;
use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::options::NetworkMode;
use super::process::read_limited;
use super::state::Status;

/// The kernel's clock ticks per second in what /proc tells programs; the same
/// on every machine Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// What a container uses at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How long its processes have computed, in milliseconds, with those that
    /// ended.
    pub cpu_ms: u64,
    /// Memory that is its own, in bytes.
    pub memory_bytes: u64,
    /// How much it may have: its limit, or all there is.
    pub memory_limit_bytes: u64,
    /// What came in through its network devices, in bytes.
    pub received_bytes: u64,
    /// What went out.
    pub sent_bytes: u64,
    /// What its living processes have read from disks, in bytes.
    pub read_bytes: u64,
    /// What they have written.
    pub written_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
}

impl Engine {
    /// Returns what a container uses.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and when /proc cannot be read.
    pub fn usage(&self, container: &Container) -> Result<Usage> {
        let not_running = || Error::NotRunning { container: container.config.name.to_string() };
        let Status::Running(running) = container.status()? else { return Err(not_running()) };
        let first = running.process()?.ok_or_else(not_running)?.pid();
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = namespace(&first.to_string()).ok_or_else(not_running)?;
        let mut usage = Usage::default();
        let proc = Path::new("/proc");
        for entry in fs::read_dir(proc).doing("list", proc)? {
            let entry = entry.doing("list", proc)?;
            if let Some(pid) = entry.file_name().to_str()
                && pid.starts_with(|first: char| first.is_ascii_digit())
                && namespace(pid).as_ref() == Some(&own)
            {
                usage.add(&|name| {
                    // One that ends meanwhile uses nothing any more.
                    read_limited(Path::new(&format!("/proc/{pid}/{name}"))).unwrap_or_default()
                });
            }
        }
        // On the host's network the devices are everybody's.
        if matches!(container.config.network, NetworkMode::Named(_)) {
            let path = format!("/proc/{first}/net/dev");
            let text = read_limited(Path::new(&path)).unwrap_or_default();
            (usage.received_bytes, usage.sent_bytes) = network(&text);
        }
        let all =
            || field(&read_limited(Path::new("/proc/meminfo")).unwrap_or_default(), "MemTotal:");
        let limit = container.config.limits.memory.map(|memory| memory.0);
        usage.memory_limit_bytes = limit.unwrap_or_else(|| all() << 10);
        Ok(usage)
    }
}

impl Usage {
    /// Adds a process, of which `read` returns the files.
    fn add(&mut self, read: &impl Fn(&str) -> String) {
        let (stat, status, io) = (read("stat"), read("status"), read("io"));
        let Some((_, rest)) = stat.rsplit_once(')') else { return };
        // The state, field 3, is the first here.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
        // Its own time, and that of its children that have ended.
        let ticks: u64 = (14..=17).filter_map(number).sum();
        self.cpu_ms += ticks * 1000 / TICKS_PER_SECOND;
        self.tasks += number(20).unwrap_or_default();
        self.memory_bytes += field(&status, "RssAnon:") << 10;
        self.read_bytes += field(&io, "read_bytes:");
        self.written_bytes += field(&io, "write_bytes:");
    }
}

/// Returns the number behind a word at the beginning of a line.
fn field(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Adds up `/proc/net/dev` but for the loopback device: received and sent.
fn network(text: &str) -> (u64, u64) {
    let devices = text.lines().filter_map(|line| line.split_once(':'));
    let devices = devices.filter(|(name, _)| name.trim() != "lo");
    devices.fold((0, 0), |(received, sent), (_, rest)| {
        let numbers: Vec<u64> =
            rest.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
        (received + number(0), sent + number(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_add_up() {
        let read = |name: &str| match name {
            "stat" => "7 (x) S 1) S 5 7 7 0 7 0 1 2 3 4 250 150 40 10 0 0 3 1 12000 0".to_owned(),
            "status" => "Name:\tx\nRssAnon:\t     512 kB\nRssFile:\t 9 kB\n".to_owned(),
            _ => "rchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n"
                .to_owned(),
        };
        let mut usage = Usage::default();
        usage.add(&read);
        usage.add(&read);
        // It has ended.
        usage.add(&|_: &str| String::new());
        assert_eq!(
            usage,
            Usage {
                cpu_ms: 9000,
                memory_bytes: 1 << 20,
                read_bytes: 8192,
                written_bytes: 16384,
                tasks: usage.tasks,
                ..Usage::default()
            }
        );
    }

    #[test]
    fn the_loopback_device_does_not_count() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 1200 3 0 0 0 0 0 0 340 2 0 0 0 0 0 0\n";
        assert_eq!(network(text), (1200, 340));
        assert_eq!(network(""), (0, 0));
    }
}
