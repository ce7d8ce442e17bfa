//! What a container has changed in its image's files.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fgetxattr, openat, statat};
use store::layers::MergedView;

use super::Engine;
use super::containers::Container;
use super::error::{Error, IoContext as _, Result};

/// How deep directories may be in one another: each is an open descriptor.
const DEPTH_MAX: u32 = 256;

/// How overlayfs says that a directory hides the one below it.
const OPAQUE: &str = "user.overlay.opaque";

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The image does not have it.
    Added,
    /// The image has it, too.
    Changed,
    /// Only the image has it.
    Deleted,
}

impl Engine {
    /// Returns the paths that a container has changed, in order. Only its
    /// writable layer is walked, and mounts are not in it. It may run.
    ///
    /// # Errors
    ///
    /// When the layers of its image are gone or cannot be read.
    pub fn diff(&self, container: &Container) -> Result<BTreeMap<PathBuf, Change>> {
        let layers = &container.config.image.layers;
        let snapshot = self.store().pinned_snapshot(layers)?.ok_or_else(|| Error::Invalid {
            what: format!("the layers of container {} are not in the store", container.config.name),
        })?;
        let upper = container.dir().join("upper");
        let mut walk = Walk { view: snapshot.view()?, upper: &upper, changes: BTreeMap::new() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &upper, flags, Mode::empty()).doing("open", &upper)?;
        walk.directory(root.as_fd(), Path::new("/"), 0)?;
        Ok(walk.changes)
    }
}

struct Walk<'a> {
    view: &'a MergedView,
    upper: &'a Path,
    changes: BTreeMap<PathBuf, Change>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: BorrowedFd<'_>, path: &Path, depth: u32) -> Result<()> {
        let names = names(directory).doing("read", self.upper)?;
        if is_opaque(directory) {
            for name in self.view.list(path).doing("read the image's", path)?.unwrap_or_default() {
                if !names.contains(&name) {
                    self.changes.insert(path.join(name), Change::Deleted);
                }
            }
        }
        for name in names {
            self.entry(directory, &name, &path.join(&name), depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        depth: u32,
    ) -> Result<()> {
        // What is gone meanwhile is not there.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let below = self.view.lstat(path).doing("look in the image for", path)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let change = match (kind, &below) {
            (FileType::CharacterDevice, None) if stat.st_rdev == 0 => return Ok(()),
            (FileType::CharacterDevice, Some(_)) if stat.st_rdev == 0 => Change::Deleted,
            (_, None) => Change::Added,
            (_, Some(_)) => Change::Changed,
        };
        self.changes.insert(path.to_owned(), change);
        if kind == FileType::Directory && depth < DEPTH_MAX {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // A link that took its place leads nowhere.
            if let Ok(child) = openat(directory, name, flags, Mode::empty()) {
                self.directory(OwnedFd::as_fd(&child), path, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn names(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn is_opaque(directory: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    // Longer values are an error, and mean something else.
    fgetxattr(directory, OPAQUE, &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
}
