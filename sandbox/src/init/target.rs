//! Finding and making mount points beneath the root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat,
    openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use super::Helper;
use crate::error::{Context as _, Error, Result};
use crate::stubs::Stub;

/// Links lead to their place in the root, links of procfs nowhere.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// No links at all.
pub(super) const STRICT: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// Opens a path beneath the root, following the image's links inside it.
pub(super) fn open_in_root(
    root: &OwnedFd,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    open_beneath(root, path, flags, IN_ROOT)
}

/// Opens a path beneath a directory. Renames elsewhere can make the kernel give
/// up an honest resolution, so it is asked again.
pub(super) fn open_beneath(
    directory: &OwnedFd,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    for _ in 0..128 {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Returns whether a descriptor is a directory.
pub(super) fn is_directory(fd: &OwnedFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode).is_dir())
}

impl Helper {
    /// Opens one of the top directories that every sandbox mounts over; makes
    /// it when it is missing. A link there is refused: an image with a link
    /// for /dev must not choose where device nodes are made (CVE-2026-41579).
    pub(super) fn builtin(&mut self, root: &OwnedFd, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = match open_beneath(root, Path::new(name), flags, STRICT) {
            Err(Errno::NOENT) => {
                mkdirat(root, name, Mode::from_raw_mode(0o755))
                    .cannot(|| format!("make /{name} in the root"))?;
                self.stubs.push(Stub { path: Path::new("/").join(name), directory: true });
                open_beneath(root, Path::new(name), flags, STRICT)
            }
            other => other,
        };
        match opened {
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Error::invalid(format!(
                "the image has something else than a directory at /{name}"
            ))),
            other => other.cannot(|| format!("open /{name} in the root")),
        }
    }

    /// Opens the target of a mount; makes what is missing of it.
    pub(super) fn target(
        &mut self,
        root: &OwnedFd,
        path: &Path,
        directory: bool,
    ) -> Result<OwnedFd> {
        let what = || format!("find the mount point {}", path.display());
        let found = match open_in_root(root, path, OFlags::PATH) {
            Err(Errno::NOENT) => self.make(root, path, directory)?,
            other => other.cannot(what)?,
        };
        if fstatfs(&found).cannot(what)?.f_type == PROC_SUPER_MAGIC {
            return Err(Error::invalid(format!(
                "cannot mount on {}: it is inside /proc",
                path.display()
            )));
        }
        if is_directory(&found).cannot(what)? != directory {
            let (is, wanted) =
                if directory { ("a file", "a directory") } else { ("a directory", "a file") };
            return Err(Error::invalid(format!(
                "cannot mount {wanted} on {}, which is {is}",
                path.display()
            )));
        }
        Ok(found)
    }

    /// Makes a file or directory with all its parents, and opens it.
    ///
    /// A link to something that does not exist is followed: what it names is
    /// made, inside the root. (`/etc/resolv.conf` is often such a link.)
    pub(super) fn make(&mut self, root: &OwnedFd, path: &Path, directory: bool) -> Result<OwnedFd> {
        let what = || format!("make the mount point {}", path.display());
        let mut path = path.to_owned();
        for _ in 0..LINKS_MAX {
            let names = names(&path)?;
            let (existing, parent) = longest_existing(root, &names).cannot(what)?;
            let Some(missing) = names.get(existing) else {
                return open_in_root(root, &path, OFlags::PATH).cannot(what);
            };
            if fstatfs(&parent).cannot(what)?.f_type == PROC_SUPER_MAGIC {
                // Nothing can be made there, and its links are not the image's.
                return Err(Errno::NOENT).cannot(what);
            }
            let before: PathBuf =
                Path::new("/").join(names[..existing].iter().collect::<PathBuf>());
            match readlinkat(&parent, *missing, Vec::new()) {
                Ok(link) => {
                    let rest: PathBuf = names[existing + 1..].iter().collect();
                    path = clean(&before.join(OsStr::from_bytes(link.to_bytes())).join(rest));
                }
                Err(Errno::NOENT) => {
                    return self
                        .make_below(parent, before, &names[existing..], directory)
                        .cannot(what);
                }
                Err(error) => return Err(error).cannot(what),
            }
        }
        Err(Errno::LOOP).cannot(what)
    }

    /// Makes names one in the other, none of which exists.
    fn make_below(
        &mut self,
        mut current: OwnedFd,
        mut path: PathBuf,
        names: &[&OsStr],
        directory: bool,
    ) -> rustix::io::Result<OwnedFd> {
        for (index, name) in names.iter().enumerate() {
            path.push(name);
            let is_file = index + 1 == names.len() && !directory;
            if is_file {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::WRONLY
                    | OFlags::CLOEXEC;
                openat(&current, *name, flags, Mode::from_raw_mode(0o644))?;
            } else {
                mkdirat(&current, *name, Mode::from_raw_mode(0o755))?;
            }
            self.stubs.push(Stub { path: path.clone(), directory: !is_file });
            let kind = if is_file { OFlags::PATH } else { OFlags::PATH | OFlags::DIRECTORY };
            current = open_beneath(&current, Path::new(name), kind, STRICT)?;
        }
        Ok(current)
    }
}

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Opens the deepest directory of a path that exists; returns how many names
/// lead there.
fn longest_existing(root: &OwnedFd, names: &[&OsStr]) -> rustix::io::Result<(usize, OwnedFd)> {
    let mut existing = names.len();
    loop {
        let part = Path::new("/").join(names[..existing].iter().collect::<PathBuf>());
        match open_in_root(root, &part, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) if existing > 0 => existing -= 1,
            other => return other.map(|directory| (existing, directory)),
        }
    }
}

/// Takes `.` and `..` out of a path; above the root is the root.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => drop(cleaned.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// Splits an absolute path into its names.
fn names(path: &Path) -> Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::invalid(format!(
                    "a mount point must not contain ..: {}",
                    path.display()
                )));
            }
        }
    }
    Ok(names)
}

/// Makes sure that an entry of a directory we filled is the device it should
/// be: an image must not put something else in its place (CVE-2025-31133).
pub(super) fn is_device(
    directory: &OwnedFd,
    name: &str,
    major: u32,
    minor: u32,
) -> io::Result<bool> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && device == (major, minor))
}
