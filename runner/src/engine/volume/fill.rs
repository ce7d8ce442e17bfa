//! Filling an empty volume with what the image has at its place.
//!
//! ```text
//! image ── copy ──► copy.new/ ── rename ──► copy/ ── rename each ──► _data/
//!                       a crash discards        a crash goes on here
//! ```
//!
//! `_data` itself is never replaced: a container that has it mounted already
//! sees the files appear in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
    fchmod, fchown, flock, fsetxattr, futimens, openat, renameat_with,
};
use rustix::io::Errno;
use store::layers::{MergedView, Metadata};

use super::DATA;
use crate::engine::error::{IoContext as _, Result};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A volume that nobody else fills meanwhile.
#[derive(Debug)]
pub(super) struct Filler<'a> {
    dir: &'a Path,
    _lock: File,
}

impl<'a> Filler<'a> {
    /// Waits until nobody fills the volume in `dir`, and finishes what a killed
    /// program has begun.
    pub(super) fn begin(dir: &'a Path) -> Result<Self> {
        let path = dir.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.doing("open", &path)?;
        flock(&lock, FlockOperation::LockExclusive).doing("lock", &path)?;
        let filler = Self { dir, _lock: lock };
        super::super::tree::remove(&filler.unfinished())?;
        filler.move_in()?;
        Ok(filler)
    }

    /// Tells whether nothing is in the volume.
    pub(super) fn is_empty(&self) -> Result<bool> {
        let data = self.dir.join(DATA);
        Ok(fs::read_dir(&data).doing("read", &data)?.next().is_none())
    }

    /// Fills the volume with what `copy` puts into the directory it is given.
    pub(super) fn fill(&self, copy: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let new = self.unfinished();
        fs::create_dir(&new).doing("create", &new)?;
        if let Err(error) = copy(&new) {
            // What cannot be removed now goes when it is filled the next time.
            let _removed = super::super::tree::remove(&new);
            return Err(error);
        }
        let copied = self.finished();
        fs::rename(&new, &copied).doing("create", &copied)?;
        self.move_in()
    }

    /// Moves what was copied to where containers see it.
    fn move_in(&self) -> Result<()> {
        let copied = self.finished();
        let from = match openat(CWD, &copied, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.doing("open", &copied)?,
        };
        let data = self.dir.join(DATA);
        let to = openat(CWD, &data, DIRECTORY, Mode::empty()).doing("open", &data)?;
        for entry in fs::read_dir(&copied).doing("read", &copied)? {
            let name = entry.doing("read", &copied)?.file_name();
            match renameat_with(&from, &name, &to, &name, RenameFlags::NOREPLACE) {
                // A container that runs was faster: what it has written stays.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error).doing("write to", &data),
            }
        }
        // Last, or what was moved would change the time again.
        dress(&copied, &to).doing("set the metadata of", &data)?;
        super::super::tree::remove(&copied)
    }

    fn unfinished(&self) -> PathBuf {
        self.dir.join("copy.new")
    }

    fn finished(&self) -> PathBuf {
        self.dir.join("copy")
    }
}

/// Gives a directory the owner, permissions, attributes and time of another, in
/// this order: a change of the owner takes permissions away.
fn dress(like: &Path, directory: &OwnedFd) -> io::Result<()> {
    let top = MergedView::open(&[like.to_owned()])?.lstat(Path::new("/"))?;
    let Some(Metadata { mode, uid, gid, mtime, xattrs }) = top.map(|node| node.metadata) else {
        return Ok(());
    };
    fchown(directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fchmod(directory, Mode::from_raw_mode(mode))?;
    for (name, value) in &xattrs {
        fsetxattr(directory, name.as_slice(), value, XattrFlags::empty())?;
    }
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Ok(futimens(directory, &Timestamps { last_access: time, last_modification: time })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt as _;

    /// A volume's directory, empty.
    fn volume() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(DATA)).unwrap();
        dir
    }

    fn put(path: &Path) -> Result<()> {
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "of the image").unwrap();
        fs::write(path.join("top"), "of the image").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o1750)).unwrap();
        Ok(())
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_and_permissions_come_in() {
        let dir = volume();
        let data = dir.path().join(DATA);
        let filler = Filler::begin(dir.path()).unwrap();
        assert!(filler.is_empty().unwrap());
        filler.fill(put).unwrap();
        assert!(!filler.is_empty().unwrap());
        assert_eq!(names(&data), ["sub", "top"]);
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, 0o1750);
        assert_eq!(names(dir.path()), [DATA, "lock"], "nothing else is left");
    }

    #[test]
    fn what_was_cut_short_while_it_was_copied_is_discarded() {
        let dir = volume();
        fs::create_dir(dir.path().join("copy.new")).unwrap();
        fs::write(dir.path().join("copy.new/half"), "a ha").unwrap();
        let filler = Filler::begin(dir.path()).unwrap();
        assert!(filler.is_empty().unwrap());
        assert_eq!(names(dir.path()), [DATA, "lock"]);
    }

    #[test]
    fn what_was_cut_short_while_it_was_moved_is_moved() {
        let dir = volume();
        let (copied, data) = (dir.path().join("copy"), dir.path().join(DATA));
        fs::create_dir(&copied).unwrap();
        put(&copied).unwrap();
        // This one was moved before the crash, and has been changed since.
        fs::write(data.join("top"), "of a container").unwrap();
        drop(Filler::begin(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(data.join("sub/file")).unwrap(), "of the image");
        assert_eq!(fs::read_to_string(data.join("top")).unwrap(), "of a container");
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o7777, 0o1750);
        assert_eq!(names(dir.path()), [DATA, "lock"]);
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let dir = volume();
        let filler = Filler::begin(dir.path()).unwrap();
        let copy = |path: &Path| {
            fs::write(path.join("half"), "a ha").unwrap();
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)).doing("write to", path)
        };
        assert!(filler.fill(copy).unwrap_err().to_string().contains("cannot write to"));
        assert!(filler.is_empty().unwrap());
        drop(filler);
        assert_eq!(names(dir.path()), [DATA, "lock"]);
    }
}
