//! The root file system.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::mount;
use crate::error::{Context as _, Error, Result};
use crate::spec::Root;
use crate::sys;

/// The longest string that `fsconfig(2)` takes.
const CONFIG_BYTES_MAX: usize = 255;

/// The kernel's limit on lower directories.
const LOWERS_MAX: usize = 500;

/// `mount(2)` silently cuts its options at a page.
const OPTIONS_BYTES_MAX: usize = 4095;

/// The root, mounted somewhere in the host's tree.
pub(super) struct Mounted {
    pub(super) fd: OwnedFd,
    /// Whether it has to be made read-only when everything is in place.
    pub(super) readonly: bool,
}

/// Mounts the root over one of its own source directories: a place that
/// exists, and that nobody else in this mount namespace needs any more.
pub(super) fn mount(root: &Root, nodev: bool) -> Result<Mounted> {
    let (fd, readonly) = match root {
        Root::Directory { path, readonly } => (bind(path)?, *readonly),
        Root::Chroot { .. } => return Err(Error::invalid("a chroot is not mounted")),
        Root::Overlay { lowers, upper: None, .. } if lowers.len() == 1 => {
            // Overlayfs wants two layers when nothing is writable.
            (bind(&lowers[0])?, true)
        }
        Root::Overlay { lowers, upper, work, readonly, volatile } => {
            let overlay = Overlay {
                lowers,
                upper: upper.as_deref(),
                work: work.as_deref(),
                volatile: *volatile,
            };
            (overlay.mount(None)?, *readonly || upper.is_none())
        }
    };
    if nodev {
        sys::mount_setattr(fd.as_fd(), false, sys::MOUNT_ATTR_NODEV)
            .cannot(|| "refuse device nodes in the root")?;
    }
    Ok(Mounted { fd, readonly })
}

fn bind(path: &Path) -> Result<OwnedFd> {
    let what = || format!("mount the root {}", path.display());
    let place = open(path)?;
    let mount = mount::clone_path(path, false).cannot(what)?;
    mount::attach(&mount, &place).cannot(what)?;
    Ok(mount)
}

pub(super) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| format!("open the layer {}", path.display()))
}

/// An overlay to be mounted.
pub(super) struct Overlay<'a> {
    pub(super) lowers: &'a [PathBuf],
    pub(super) upper: Option<&'a Path>,
    pub(super) work: Option<&'a Path>,
    pub(super) volatile: bool,
}

/// The options beside the directories. One form for root and rootless; the
/// features that would leave marks in layers are off whatever the distribution's
/// default is.
const FLAGS: [(&str, &str); 4] =
    [("userxattr", ""), ("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow")];

impl Overlay<'_> {
    /// Mounts it at `place`, or over its own first directory.
    pub(super) fn mount(&self, place: Option<&Path>) -> Result<OwnedFd> {
        let first = self.lowers.first().ok_or_else(|| Error::invalid("the root has no layers"))?;
        if self.lowers.len() > LOWERS_MAX {
            return Err(Error::invalid(format!(
                "the root has {} layers, the kernel takes {LOWERS_MAX}",
                self.lowers.len()
            )));
        }
        if self.upper.is_some() != self.work.is_some() {
            return Err(Error::invalid(
                "an upper directory needs a work directory, and the other way round",
            ));
        }
        let at = open(place.unwrap_or(first))?;
        match self.detached() {
            Ok(mount) => mount::over(&at, mount),
            // Kernels before 6.5 have no `lowerdir+`; paths can be too long for it.
            Err(Errno::INVAL | Errno::NAMETOOLONG) => self.mount_old(place),
            Err(errno) => Err(self.explain(errno)),
        }
    }

    fn detached(&self) -> rustix::io::Result<OwnedFd> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let set = |key: &str, path: &Path| {
            if path.as_os_str().len() > CONFIG_BYTES_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            fsconfig_set_string(&context, key, path)
        };
        for (key, value) in FLAGS {
            if value.is_empty() {
                fsconfig_set_flag(&context, key)?;
            } else {
                fsconfig_set_string(&context, key, value)?;
            }
        }
        for lower in self.lowers {
            set("lowerdir+", lower)?;
        }
        if let (Some(upper), Some(work)) = (self.upper, self.work) {
            set("upperdir", upper)?;
            set("workdir", work)?;
            if self.volatile {
                fsconfig_set_flag(&context, "volatile")?;
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// Mounts with `mount(2)`, whose options must fit in a page: names relative
    /// to the directory that most lowers are in keep them short.
    fn mount_old(&self, place: Option<&Path>) -> Result<OwnedFd> {
        let first = &self.lowers[0];
        let base = first.parent().unwrap_or(Path::new("/"));
        rustix::process::chdir(base).cannot(|| format!("enter {}", base.display()))?;
        let mut names = Vec::with_capacity(self.lowers.len());
        for lower in self.lowers {
            names.push(escaped(lower.strip_prefix(base).unwrap_or(lower))?);
        }
        let mut options = FLAGS
            .map(
                |(key, value)| if value.is_empty() { key.into() } else { format!("{key}={value}") },
            )
            .join(",");
        options.push_str(&format!(",lowerdir={}", names.join(":")));
        if let (Some(upper), Some(work)) = (self.upper, self.work) {
            options.push_str(&format!(",upperdir={},workdir={}", escaped(upper)?, escaped(work)?));
            if self.volatile {
                options.push_str(",volatile");
            }
        }
        if options.len() > OPTIONS_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the names of the root's {} layers are too long for this kernel (6.5 has no such limit)",
                self.lowers.len()
            )));
        }
        let options = std::ffi::CString::new(options)
            .map_err(|_| Error::invalid("a layer's path contains NUL"))?;
        let own = first.file_name().ok_or_else(|| Error::invalid("a layer has no name"))?;
        let place = place.unwrap_or(Path::new(own));
        rustix::mount::mount(
            "overlay",
            place,
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .map_err(|errno| self.explain(errno))?;
        rustix::fs::openat(
            CWD,
            place,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .cannot(|| "open the root")
    }

    fn explain(&self, errno: Errno) -> Error {
        let on = |path: &Path| format!(" on the file system of {}", path.display());
        let what = match errno {
            Errno::NODEV => "mount the root: the kernel has no overlay file system".into(),
            Errno::PERM => "mount the root: overlay is not allowed here".into(),
            Errno::INVAL if self.upper.is_some_and(is_on_overlay) => format!(
                "mount the root{}: that is an overlay itself, as in a container; the store must be on a volume",
                self.upper.map(on).unwrap_or_default()
            ),
            _ => format!(
                "mount the root from {} layers{}",
                self.lowers.len(),
                self.upper.map(on).unwrap_or_default()
            ),
        };
        Error::Setup { what, source: errno.into() }
    }
}

/// Returns whether a directory is on an overlay, which cannot be the upper
/// layer of another.
fn is_on_overlay(path: &Path) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == OVERLAYFS_SUPER_MAGIC)
}

/// Escapes what `mount(2)` would take for a separator.
fn escaped(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| Error::invalid("a layer's path is not UTF-8"))?;
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '\\' | ',' | ':') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    Ok(escaped)
}
