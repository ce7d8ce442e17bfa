//! The mounts of a bundle, in its order.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, PROC_SUPER_MAGIC, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::super::target::{STRICT, is_directory, open_beneath, open_in_root};
use super::super::{Helper, mount, mounts};
use super::copy;
use crate::bundle::{Bundle, BundleMount, BundleMountKind, NamespaceKind};
use crate::error::{Context as _, Error, Result};
use crate::spawn::CgroupMount;
use crate::sys::{self, MOUNT_ATTR_RDONLY};

/// The longest string that `fsconfig(2)` takes.
const CONFIG_BYTES_MAX: usize = 255;

/// What of /proc may be mounted on: files that programs such as lxcfs
/// replace, as with runc.
const ON_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "meminfo",
    "stat",
    "swaps",
    "uptime",
    "loadavg",
    "slabinfo",
    "kcore",
    "sys/kernel/ns_last_pid",
    "sys/crypto/fips_enabled",
];

/// Mounts that are made read-only when everything is in them.
type Late<'a> = Vec<(OwnedFd, &'a Path)>;

impl Helper {
    /// Makes all mounts; `sources` are those of bind mounts.
    pub(super) fn mount_all<'a>(
        &mut self,
        root: &OwnedFd,
        bundle: &'a Bundle,
        cgroups: &[(CgroupMount, PathBuf)],
        sources: &mut VecDeque<OwnedFd>,
    ) -> Result<Late<'a>> {
        let mut late = Vec::new();
        for wanted in &bundle.mounts {
            let what = || format!("mount {}", wanted.target.display());
            let (made, is_late) = match &wanted.kind {
                BundleMountKind::Bind { .. } => {
                    let source = sources.pop_front();
                    let source = source.ok_or_else(|| Error::invalid("a source is missing"))?;
                    check_proc(wanted, &source)?;
                    let directory = is_directory(&source).cannot(what)?;
                    let place = self.bundle_target(root, &wanted.target, directory)?;
                    (mount::over(&place, source)?, false)
                }
                BundleMountKind::Filesystem { kind, source, options, copy_up } => {
                    let place = self.bundle_target(root, &wanted.target, true)?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    let covered = copy_up.then(|| open_in_root(root, &wanted.target, flags));
                    let made = match filesystem(kind, source, options, wanted, &place)? {
                        Made::Detached(made) => mount::over(&place, made)?,
                        Made::InPlace(made) => made,
                    };
                    if let Some(covered) = covered {
                        let what = || format!("copy {} into its tmpfs", wanted.target.display());
                        copy::tree(&covered.cannot(what)?, &made).cannot(what)?;
                    }
                    (made, kind == "tmpfs")
                }
                BundleMountKind::Cgroups => {
                    let place = self.bundle_target(root, &wanted.target, true)?;
                    let namespaced = bundle.namespace(NamespaceKind::Cgroup).is_some();
                    let readonly = wanted.set & MOUNT_ATTR_RDONLY != 0;
                    show(&place, cgroups, namespaced, readonly).cannot(what)?;
                    continue;
                }
            };
            let set = if is_late { wanted.set & !MOUNT_ATTR_RDONLY } else { wanted.set };
            apply(&made, wanted, set)?;
            if is_late && wanted.set & MOUNT_ATTR_RDONLY != 0 {
                late.push((made, wanted.target.as_path()));
            }
        }
        Ok(late)
    }

    /// Opens a target, and makes what is missing. The top directories that
    /// file systems of the kernel belong on must not be links (CVE-2026-41579).
    fn bundle_target(&mut self, root: &OwnedFd, path: &Path, directory: bool) -> Result<OwnedFd> {
        if directory && let Some(name @ ("/proc" | "/sys" | "/dev")) = path.to_str() {
            return self.builtin(root, &name[1..]);
        }
        if let Ok(below) = path.strip_prefix("/proc")
            && let Some(name) = below.to_str()
            && ON_PROC.contains(&name)
        {
            return open_beneath(root, &Path::new("proc").join(name), OFlags::PATH, STRICT)
                .cannot(|| format!("find the mount point {}", path.display()));
        }
        self.target(root, path, directory)
    }
}

/// Only a procfs belongs at /proc: files in it are written to by runtimes
/// (CVE-2019-16884).
fn check_proc(wanted: &BundleMount, source: &OwnedFd) -> Result<()> {
    if wanted.target != Path::new("/proc") {
        return Ok(());
    }
    if fstatfs(source).cannot(|| "look at what is to be /proc")?.f_type == PROC_SUPER_MAGIC {
        return Ok(());
    }
    Err(Error::invalid("what is mounted at /proc must be a proc file system"))
}

/// A mount of a new file system.
enum Made {
    /// It has still to be put in its place.
    Detached(OwnedFd),
    /// It is there.
    InPlace(OwnedFd),
}

/// Makes the mount of a new file system; detached, unless it took `mount(2)`.
fn filesystem(
    kind: &str,
    source: &str,
    options: &[(String, String)],
    wanted: &BundleMount,
    place: &OwnedFd,
) -> Result<Made> {
    let target = wanted.target.display();
    if wanted.target == Path::new("/proc") && kind != "proc" {
        return Err(Error::invalid("what is mounted at /proc must be a proc file system"));
    }
    if options.iter().any(|(key, value)| key.len().max(value.len()) > CONFIG_BYTES_MAX) {
        return mount_old(kind, source, options, place)
            .map(Made::InPlace)
            .cannot(|| format!("mount {kind} at {target}"));
    }
    match create(kind, source, options) {
        // Group 5 (tty) need not be mapped in a user namespace.
        Err((_, Errno::INVAL)) if kind == "devpts" => {
            let without: Vec<_> = options.iter().filter(|(key, _)| key != "gid").cloned().collect();
            create(kind, source, &without)
        }
        // The kernel gives none where parts of the outer one are covered, or
        // the network is not this user namespace's: that one is shown then.
        Err((_, Errno::PERM | Errno::ACCESS)) if matches!(kind, "proc" | "sysfs") => {
            let outer = if kind == "proc" { "/proc" } else { "/sys" };
            return mount::clone_path(Path::new(outer), true)
                .map(Made::Detached)
                .cannot(|| format!("mount {kind} at {target}, or show {outer} of the host"));
        }
        other => other,
    }
    .map(Made::Detached)
    .map_err(|(option, errno)| Error::Setup {
        what: match option {
            None => format!("mount {kind} at {target}"),
            Some(option) => format!("mount {kind} at {target} with the option {option}"),
        },
        source: errno.into(),
    })
}

/// Makes a detached mount, or tells which option was refused.
fn create(
    kind: &str,
    source: &str,
    options: &[(String, String)],
) -> Result<OwnedFd, (Option<String>, Errno)> {
    let plain = |errno| (None, errno);
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    if !source.is_empty() {
        fsconfig_set_string(&context, "source", source).map_err(plain)?;
    }
    for (key, value) in options {
        let set = if value.is_empty() {
            fsconfig_set_flag(&context, key)
        } else {
            fsconfig_set_string(&context, key, value)
        };
        set.map_err(|errno| {
            (Some(format!("{key}={value}").trim_end_matches('=').to_owned()), errno)
        })?;
    }
    fsconfig_create(&context).map_err(plain)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(plain)
}

/// Mounts with `mount(2)`, for long options; the target is named by its
/// descriptor, in the host's /proc, which is still there.
fn mount_old(
    kind: &str,
    source: &str,
    options: &[(String, String)],
    place: &OwnedFd,
) -> rustix::io::Result<OwnedFd> {
    let text: Vec<String> = options
        .iter()
        .map(|(key, value)| if value.is_empty() { key.clone() } else { format!("{key}={value}") })
        .collect();
    let options = CString::new(text.join(",")).map_err(|_| Errno::INVAL)?;
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    let path = path.as_str();
    rustix::mount::mount(source, path, kind, MountFlags::empty(), Some(options.as_c_str()))?;
    // What the name leads to now is the mount.
    let above = format!("{path}/.");
    rustix::fs::open(above, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
}

/// Sets attributes and propagation of a mount in its place.
fn apply(made: &OwnedFd, wanted: &BundleMount, set: u64) -> Result<()> {
    let what = || format!("set the options of {}", wanted.target.display());
    let change = |recursive, set, clear| {
        sys::mount_change_attributes(made.as_fd(), recursive, set, clear, 0)
    };
    if set | wanted.clear != 0 {
        match change(false, set, wanted.clear) {
            // Attributes that a user namespace locks stay.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                change(false, set, set & ATIME)
            }
            other => other,
        }
        .cannot(what)?;
    }
    if wanted.set_recursive | wanted.clear_recursive != 0 {
        change(true, wanted.set_recursive, wanted.clear_recursive).cannot(what)?;
    }
    if let Some((propagation, recursive)) = wanted.propagation {
        sys::mount_change_attributes(made.as_fd(), recursive, 0, 0, propagation.flag())
            .cannot(|| format!("set how {} propagates", wanted.target.display()))?;
    }
    Ok(())
}

/// The bits of the access time, which are one number.
const ATIME: u64 = 0x70;

/// Shows the control groups: in a namespace of their own as file systems, else
/// the container's own directories.
fn show(
    place: &OwnedFd,
    cgroups: &[(CgroupMount, PathBuf)],
    namespaced: bool,
    readonly: bool,
) -> rustix::io::Result<()> {
    let source = |(group, path): &(CgroupMount, PathBuf)| {
        if namespaced {
            mounts::cgroup_filesystem(group, !readonly)
        } else {
            let bound = mount::clone_path(path, false)?;
            let plain = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV | sys::MOUNT_ATTR_NOEXEC;
            let attributes = if readonly { plain | MOUNT_ATTR_RDONLY } else { plain };
            mount::restrict(&bound, false, attributes).map_err(|_| Errno::IO)?;
            Ok(bound)
        }
    };
    if let [group] = cgroups
        && group.0.controllers.is_empty()
    {
        return mount::attach(&source(group)?, place);
    }
    mounts::show_cgroup_trees(place, cgroups, |group| &group.0, source, readonly)
}
