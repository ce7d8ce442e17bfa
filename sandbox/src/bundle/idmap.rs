//! Maps of user and group ids: of a container's namespace, and of mounts.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{IdMaps, IdRange};
use crate::error::{Context as _, Result};
use crate::sys;

/// Writes the maps of a process in a new user namespace.
pub(super) fn write(pid: u32, uids: &[IdRange], gids: &[IdRange]) -> Result<()> {
    for (file, map) in [("uid_map", uids), ("gid_map", gids)] {
        fs::write(format!("/proc/{pid}/{file}"), text(map))
            .cannot(|| format!("map the ids of the container ({file}: {})", text(map).trim()))?;
    }
    Ok(())
}

fn text(map: &[IdRange]) -> String {
    let line = |range: &IdRange| format!("{} {} {}\n", range.inside, range.outside, range.count);
    map.iter().map(line).collect()
}

/// Maps the ids of files that are seen through a mount.
pub(super) fn apply(mount: BorrowedFd<'_>, maps: &IdMaps) -> Result<()> {
    let (pid, pidfd) = sys::fork_into_user_namespace().cannot(|| "make a user namespace")?;
    let namespace = write(pid, &maps.uids, &maps.gids).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .cannot(|| "open a user namespace")
    });
    end(&pidfd);
    sys::mount_map_ids(mount, maps.recursive, namespace?.as_fd())
        .cannot(|| "map the ids of a mount (its file system may not know how)")
}

/// Ends the process that held the namespace.
fn end(pidfd: &OwnedFd) {
    // It is our child, and does nothing but wait for this.
    sys::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    while let Err(rustix::io::Errno::INTR) =
        waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
    {}
}
