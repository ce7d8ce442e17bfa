//! `mount_setattr(2)`.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// No writes through the mount.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// No effect of setuid bits.
pub(crate) const MOUNT_ATTR_NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// No device nodes.
pub(crate) const MOUNT_ATTR_NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// No execution.
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// Adds attributes to a mount, and with `recursive` to all mounts below it.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, set: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string, the structure and its size agree.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
