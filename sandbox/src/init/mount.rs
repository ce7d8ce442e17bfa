//! Mounting through descriptors: a mount is made detached, then put onto an
//! open target. No path of the image is resolved by the kernel's `mount(2)`.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::error::{Context as _, Result};
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};

/// What is mounted for programs to read, never to execute.
pub(super) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a detached mount of a new file system. An option without a value is a
/// flag.
pub(super) fn create(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Puts a detached mount onto an open file or directory.
pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Puts a detached mount onto a target and returns the mount's root.
pub(super) fn over(target: &OwnedFd, mount: OwnedFd) -> Result<OwnedFd> {
    attach(&mount, target).cannot(|| "put a mount in its place")?;
    Ok(mount)
}

/// Clones what an open descriptor refers to as a detached bind mount.
pub(super) fn clone_of(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    open_tree(
        fd,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )
}

/// Clones what a path of the host refers to as a detached bind mount.
pub(super) fn clone_path(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// Adds attributes to a mount.
pub(super) fn restrict(mount: &OwnedFd, recursive: bool, attributes: u64) -> std::io::Result<()> {
    crate::sys::mount_setattr(mount.as_fd(), recursive, attributes)
}

/// Makes the mount of a fresh procfs. The kernel gives none where parts of the
/// outer /proc are covered, as in a container: then that one is shown, with its
/// covers. Its processes are those of the outer container, which the user
/// namespace keeps out of reach.
pub(super) fn proc() -> Result<OwnedFd> {
    match create("proc", &[], PLAIN) {
        Err(rustix::io::Errno::PERM) => {
            let what = || "mount /proc, or show that of the outer container";
            let outer = clone_path(Path::new("/proc"), true).cannot(what)?;
            let plain = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
            restrict(&outer, true, plain).cannot(what)?;
            Ok(outer)
        }
        other => other.cannot(|| "mount /proc"),
    }
}
