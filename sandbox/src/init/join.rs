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

/// Enters the namespaces of a process; the process id namespace is that of
/// children.
pub(super) fn join(target: BorrowedFd<'_>, pid: u32) -> Result<()> {
    let types = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
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
