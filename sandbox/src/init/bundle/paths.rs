//! Paths that are covered or protected, and kernel parameters.

use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, major, minor};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::super::mount;
use super::super::target::{STRICT, is_directory, open_beneath, open_in_root};
use crate::error::{Context as _, Error, Result};
use crate::sys::MOUNT_ATTR_RDONLY;

/// Covers files with /dev/null and directories with an empty tmpfs.
pub(super) fn mask(root: &OwnedFd, paths: &[PathBuf]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = genuine_null()?;
    for path in paths {
        let what = || format!("hide {}", path.display());
        let Some(target) = find(root, path).cannot(what)? else { continue };
        let cover = if is_directory(&target).cannot(what)? {
            mount::create(
                "tmpfs",
                &[("size", "0"), ("nr_inodes", "1")],
                mount::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY,
            )
        } else {
            mount::clone_of(&null)
        };
        mount::attach(&cover.cannot(what)?, &target).cannot(what)?;
    }
    Ok(())
}

/// Mounts paths on themselves, read-only.
pub(super) fn protect(root: &OwnedFd, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let what = || format!("protect {}", path.display());
        let Some(target) = find(root, path).cannot(what)? else { continue };
        let cover = clone_all(&target).cannot(what)?;
        mount::restrict(&cover, false, MOUNT_ATTR_RDONLY).cannot(what)?;
        mount::attach(&cover, &target).cannot(what)?;
    }
    Ok(())
}

/// Clones with what is mounted below: the covers of other paths stay.
fn clone_all(fd: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(fd, "", flags)
}

/// Opens a path beneath the root; none where there is nothing.
fn find(root: &OwnedFd, path: &Path) -> rustix::io::Result<Option<OwnedFd>> {
    match open_in_root(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        other => other.map(Some),
    }
}

/// Opens the host's /dev/null, which the container had no part in
/// (CVE-2025-31133), and makes sure that it is the device.
fn genuine_null() -> Result<OwnedFd> {
    let what = || "open /dev/null of the host";
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty()).cannot(what)?;
    let stat = fstat(&null).cannot(what)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(Error::invalid("/dev/null of the host is not the device")) }
}

/// Returns a procfs that the container had no part in: one of the helper's own,
/// or that at /proc where the kernel gives none.
fn own_proc(root: &OwnedFd) -> Result<OwnedFd> {
    match mount::create("proc", &[], mount::PLAIN) {
        Err(Errno::PERM) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let proc =
                open_beneath(root, Path::new("proc"), flags, STRICT).cannot(|| "open /proc")?;
            if fstatfs(&proc).cannot(|| "look at /proc")?.f_type != PROC_SUPER_MAGIC {
                return Err(Error::invalid("/proc must be a proc file system"));
            }
            Ok(proc)
        }
        other => other.cannot(|| "mount a proc file system"),
    }
}

/// Opens the file to which the AppArmor profile of the next exec is written,
/// of this very process (CVE-2019-16884).
pub(in crate::init) fn open_apparmor(root: &OwnedFd) -> Result<std::fs::File> {
    let pid = rustix::process::getpid().as_raw_nonzero();
    let path = format!("{pid}/attr/apparmor/exec");
    open_beneath(&own_proc(root)?, Path::new(&path), OFlags::WRONLY, STRICT)
        .map(std::fs::File::from)
        .cannot(|| "open the file for the AppArmor profile")
}

/// Sets kernel parameters of the container's namespaces, beside its mounts
/// (CVE-2025-52881).
pub(super) fn set_sysctls(root: &OwnedFd, sysctls: &[(String, String)]) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let proc = own_proc(root)?;
    for (name, value) in sysctls {
        let what = || format!("set the kernel parameter {name} to {value:?}");
        let path = Path::new("sys").join(name.replace('.', "/"));
        let file = open_beneath(&proc, &path, OFlags::WRONLY, STRICT).cannot(what)?;
        std::fs::File::from(file).write_all(value.as_bytes()).cannot(what)?;
    }
    Ok(())
}
