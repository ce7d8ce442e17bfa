//! Joining a sandbox that runs.
//!
//! A process cannot enter a process id namespace, only its children are born
//! there. So the helper forks once more, a sibling rather than a child: the
//! caller waits for it as for every other process it started.

use std::os::fd::BorrowedFd;

use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::Helper;
use crate::error::{Context as _, Error, Result};
use crate::spawn::Message;
use crate::sys;

/// The namespaces by their names in /proc.
const NAMESPACES: [(&str, ThreadNameSpaceType); 8] = [
    ("user", ThreadNameSpaceType::USER),
    ("mnt", ThreadNameSpaceType::MOUNT),
    ("pid", ThreadNameSpaceType::PROCESS_ID),
    ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
    ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
    ("net", ThreadNameSpaceType::NETWORK),
    ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
    ("time", ThreadNameSpaceType::TIME),
];

/// Enters the namespaces of a process; the process id namespace is that of
/// children. Those that are shared with the caller are left alone: the host's
/// network, for instance, an ordinary user must not even enter again.
pub(super) fn join(target: BorrowedFd<'_>, pid: u32) -> Result<()> {
    let of = |process: &str, name: &str| std::fs::read_link(format!("/proc/{process}/ns/{name}"));
    let mut types = ThreadNameSpaceType::empty();
    for (name, kind) in NAMESPACES {
        let ours = match of("self", name) {
            // A kernel without this kind.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.cannot(|| "look at the own namespaces")?,
        };
        let theirs = match of(&pid.to_string(), name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::NotRunning { pid });
            }
            other => other.cannot(|| format!("look at the namespaces of process {pid}"))?,
        };
        if theirs != ours {
            types |= kind;
        }
    }
    match move_into_thread_name_spaces(target, types) {
        // The kernel: the process has ended.
        Err(rustix::io::Errno::SRCH) => Err(Error::NotRunning { pid }),
        other => other.cannot(|| format!("join the namespaces of process {pid}")),
    }
}

impl Helper {
    /// Goes on in a sibling, which is in the process id namespace. Returns
    /// whether this is the sibling.
    pub(super) fn fork(&self) -> Result<bool> {
        let Some((pid, pidfd)) =
            sys::fork_sibling().cannot(|| "start a process in the container")?
        else {
            return Ok(true);
        };
        self.channel.send(&Message::Joined { pid, pidfd }).cannot(|| "report the process")?;
        Ok(false)
    }
}
