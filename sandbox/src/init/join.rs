//! Joining a sandbox that runs.

use std::os::fd::BorrowedFd;

use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::error::{Context as _, Error, Result};

/// Enters the namespaces of a process; the process id namespace is already
/// that of the helper, which was born in it.
pub(super) fn join(target: BorrowedFd<'_>, pid: u32) -> Result<()> {
    let types = ThreadNameSpaceType::MOUNT
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
