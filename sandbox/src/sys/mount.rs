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

/// The ids of files are seen as a user namespace says.
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// Adds attributes to a mount, and with `recursive` to all mounts below it.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, set: u64) -> io::Result<()> {
    change(mount, recursive, &attributes(set, 0, 0))
}

/// Sets and clears attributes of a mount, and changes how it propagates (an
/// `MS_…` flag, or zero).
pub(crate) fn mount_change_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
) -> io::Result<()> {
    change(mount, recursive, &attributes(set, clear, propagation))
}

/// Shows the ids of files through a mount as a user namespace maps them.
pub(crate) fn mount_map_ids(
    mount: BorrowedFd<'_>,
    recursive: bool,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut attributes = attributes(MOUNT_ATTR_IDMAP, 0, 0);
    attributes.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    change(mount, recursive, &attributes)
}

fn attributes(set: u64, clear: u64, propagation: u64) -> libc::mount_attr {
    libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 }
}

fn change(mount: BorrowedFd<'_>, recursive: bool, attributes: &libc::mount_attr) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty string, the structure and its size agree.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
