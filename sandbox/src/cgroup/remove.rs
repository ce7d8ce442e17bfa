//! Killing what is in a group, and removing it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::create::lock;
use super::position::Position;
use crate::error::Result;

/// How often removing is tried: the kernel needs a moment to let go of
/// processes that are already reaped. 40 rounds are about two seconds.
const ROUNDS: u32 = 40;

/// Removes the groups whose names `is_ours` knows and which nobody uses,
/// killing what still runs in them. Returns their names.
///
/// `is_ours` has to know whole names: others may have groups of a like
/// beginning, and a group that was made as a parent has no user of its own.
///
/// A group is used while the process that started its sandbox (a program or a
/// shim) lives. Call it before starting something, to clean up after whatever
/// was killed.
///
/// # Errors
///
/// When the own position cannot be read. Groups that cannot be removed are
/// left to the next call.
pub fn sweep(is_ours: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    sweep_at(is_ours, None)
}

/// Does the same for groups that were made in `parent` (see
/// [`crate::CgroupSpec::parent`]).
///
/// # Errors
///
/// As [`sweep`].
pub fn sweep_at(is_ours: impl Fn(&str) -> bool, parent: Option<&Path>) -> Result<Vec<String>> {
    let mut position = Position::own()?;
    if let Some(parent) = parent {
        position = position.at(parent)?;
    }
    let mut swept = Vec::new();
    for parent in position.parents() {
        // Ancestors of a v2 group need not be readable.
        let Ok(entries) = fs::read_dir(&parent) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !is_ours(&name) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if remove_if_unused(&entry.path()).unwrap_or(false) && !swept.contains(&name) {
                swept.push(name);
            }
        }
    }
    Ok(swept)
}

/// Removes a group unless its user lives; returns whether it is gone.
pub(super) fn remove_if_unused(path: &Path) -> io::Result<bool> {
    let Some(_lock) = lock(path)? else { return Ok(!path.exists()) };
    remove_directory(path)?;
    Ok(true)
}

/// Kills the processes of a group and of those inside it, and removes them.
/// A group that is already gone is fine.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let mut pause = Duration::from_micros(50);
    for round in 0.. {
        match remove_tree(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && round < ROUNDS => {}
            other => return other,
        }
        kill(path);
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(60));
    }
    unreachable!("the loop ends by returning")
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // Processes, or groups inside.
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other,
    }
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn kill(path: &Path) {
    // v2 since 5.14: everything in the group and below, at once.
    if fs::OpenOptions::new()
        .write(true)
        .open(path.join("cgroup.kill"))
        .is_ok_and(|mut file| io::Write::write_all(&mut file, b"1").is_ok())
    {
        return;
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    for pid in processes(path) {
        // What is frozen on v1 does not end; one that has ended has no group.
        super::thaw(pid, name).ok();
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// Returns the processes in a group, without those of groups inside it.
pub(super) fn processes(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // Zero stands for processes that this process id namespace does not show.
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()
}
