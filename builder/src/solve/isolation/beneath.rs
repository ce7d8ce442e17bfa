//! Finding and making places beneath a root that belongs to an image: its links lead to
//! places inside, never out.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat2, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, IoContext as _, Result};

/// A name in a directory that is held open, whatever becomes of its own name.
#[derive(Debug)]
pub(super) struct At {
    pub(super) parent: OwnedFd,
    pub(super) name: OsString,
    /// The parents that had to be made, outermost first.
    made: Vec<(OwnedFd, OsString)>,
}

impl At {
    /// Removes the parents that were made and are empty.
    pub(super) fn remove_made(&self) {
        for (parent, name) in self.made.iter().rev() {
            // One with something in it is the command's by now.
            let _kept = unlinkat(parent, name, AtFlags::REMOVEDIR);
        }
    }
}

/// Opens the root itself.
pub(super) fn open(root: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(root, flags, Mode::empty()).doing("open", root)
}

/// Finds the place of an absolute path, and makes its parents where they are missing.
pub(super) fn at(root: &OwnedFd, path: &Path) -> Result<At> {
    let mut names: Vec<&OsStr> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(not_a_place(path)),
        }
    }
    let Some((name, parents)) = names.split_last() else { return Err(not_a_place(path)) };
    let mut parent = directory(root, Path::new("/")).doing("open the root for", path)?;
    let mut so_far = PathBuf::from("/");
    let mut made = Vec::new();
    for name in parents {
        so_far.push(name);
        parent = match directory(root, &so_far) {
            Err(Errno::NOENT) => {
                // A link that leads nowhere is in the way: EEXIST.
                mkdirat(&parent, *name, Mode::from_raw_mode(0o755)).doing("create", &so_far)?;
                made.push((parent, (*name).to_owned()));
                directory(root, &so_far).doing("open", &so_far)?
            }
            other => other.doing("open", &so_far)?,
        };
    }
    Ok(At { parent, name: (*name).to_owned(), made })
}

fn not_a_place(path: &Path) -> Error {
    Error::Instruction(format!("cannot mount on {}", path.display()))
}

fn directory(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..128 {
        // Renames elsewhere can make the kernel give up an honest resolution.
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_to_places_inside_and_what_was_made_goes() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("etc")).unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("escape")).unwrap();
        symlink("/real", root.path().join("link")).unwrap();
        fs::create_dir(root.path().join("real")).unwrap();
        let fd = open(root.path()).unwrap();

        let place = at(&fd, Path::new("/link/new/file")).unwrap();
        assert!(root.path().join("real/new").is_dir());
        place.remove_made();
        assert!(!root.path().join("real/new").exists());
        // Where the link leads inside the root there is nothing, and it is in the way.
        assert!(at(&fd, Path::new("/escape/etc/file")).is_err());
        assert_eq!(fs::read_dir(outside.path().join("etc")).unwrap().count(), 0);
        for path in ["/", "/a/../b", ""] {
            assert!(at(&fd, Path::new(path)).is_err(), "{path:?}");
        }
    }
}
