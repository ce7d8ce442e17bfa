//! Naming a process that runs, so that no other process is ever meant.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};

use crate::error::{Context as _, Error, Result};

/// A process of a sandbox, named by its id and the moment it started: ids are
/// used again, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The process id.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Running {
    /// Opens a pidfd of the process.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it is gone or the id belongs to another.
    pub fn open(&self) -> Result<OwnedFd> {
        let gone = || Error::NotRunning { pid: self.pid };
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Err(gone()),
            other => other.cannot(|| format!("open process {}", self.pid))?,
        };
        // The pidfd holds on to whoever has the id now: if that one started at
        // the given moment, it is the one meant.
        if find_start_time_of(self.pid) == Some(self.start_time) { Ok(pidfd) } else { Err(gone()) }
    }

    /// Returns whether the process still runs (a zombie does not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| find_start_time(&stat) == Some(self.start_time) && !is_zombie(&stat))
    }
}

/// Returns when process `pid` started.
pub(crate) fn find_start_time_of(pid: u32) -> Option<u64> {
    find_start_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads field 22. The second field is the command's name in parentheses and
/// may contain anything, so fields are counted after the last parenthesis.
pub(crate) fn find_start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn is_zombie(stat: &str) -> bool {
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| matches!(rest.trim_start().as_bytes().first(), Some(b'Z' | b'X')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_a_hostile_name() {
        let fields: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("17 (a) S 1) b) {}", fields.join(" "));
        assert_eq!(find_start_time(&stat), Some(22));
        assert_eq!(find_start_time("17 (x"), None);
    }

    #[test]
    fn another_process_with_the_id_is_not_meant() {
        let pid = std::process::id();
        let start_time = find_start_time_of(pid).unwrap();
        assert!(Running { pid, start_time }.open().is_ok());
        assert!(Running { pid, start_time }.is_alive());
        let other = Running { pid, start_time: start_time + 1 };
        assert!(matches!(other.open(), Err(Error::NotRunning { .. })));
        assert!(!other.is_alive());
    }
}
