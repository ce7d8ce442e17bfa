//! Copying trees from one directory to another by descriptors.
//!
//! Neither side is trusted: a container may exchange directories and links
//! while its files are copied. So every name is opened in its directory without
//! following a link, and nothing is done by a path.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod,
    fchown, fstat, futimens, mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

/// How deep directories may be in one another: each is an open descriptor.
const DEPTH_MAX: u32 = 256;

/// The permission bits that make a program run as its owner.
const SET_ID_BITS: u32 = 0o6000;

/// Who owns what is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The same as before, with set-id bits.
    Same,
    /// These ids; set-id bits are dropped, for they meant another owner.
    Ids(u32, u32),
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The bytes of files.
    pub bytes: u64,
    /// Names of what was left out: sockets and devices.
    pub left_out: Vec<String>,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The directory.
    pub directory: BorrowedFd<'a>,
    /// The name: one component, not `.` or `..`.
    pub name: &'a OsStr,
}

/// Copies what has one name to another name. A directory is merged into one
/// that is there; anything else replaces what is not a directory.
///
/// # Errors
///
/// The system's. What was copied until then stays.
pub fn copy(from: Entry<'_>, to: Entry<'_>, owner: Owner) -> io::Result<Copied> {
    let mut copier = Copier { owner, copied: Copied::default() };
    copier.entry(from, to, 0)?;
    Ok(copier.copied)
}

/// Copies what is in one directory into another.
///
/// # Errors
///
/// As [`copy`].
pub fn copy_contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, owner: Owner) -> io::Result<Copied> {
    let mut copier = Copier { owner, copied: Copied::default() };
    copier.contents(from, to, 0)?;
    Ok(copier.copied)
}

struct Copier {
    owner: Owner,
    copied: Copied,
}

impl Copier {
    fn entry(&mut self, from: Entry<'_>, to: Entry<'_>, depth: u32) -> io::Result<()> {
        let stat = statat(from.directory, from.name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(from, to, depth),
            FileType::RegularFile => self.file(from, to),
            FileType::Symlink => self.link(from, to, &stat),
            FileType::Fifo => {
                self.replace(to, || {
                    let mode = Mode::from_raw_mode(0o600);
                    mknodat(to.directory, to.name, FileType::Fifo, mode, 0)
                })?;
                let fd = open(to, OFlags::RDONLY | OFlags::NONBLOCK)?;
                Ok(self.dress(&fd, &stat)?)
            }
            // A device would be one of this machine, and a socket leads nowhere.
            _ => {
                self.copied.left_out.push(from.name.to_string_lossy().into_owned());
                Ok(())
            }
        }
    }

    fn directory(&mut self, from: Entry<'_>, to: Entry<'_>, depth: u32) -> io::Result<()> {
        if depth >= DEPTH_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let source = open(from, OFlags::RDONLY | OFlags::DIRECTORY)?;
        // What was looked at before may have been exchanged since.
        let stat = fstat(&source)?;
        let made = match mkdirat(to.directory, to.name, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        let target = open(to, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.contents(source.as_fd(), target.as_fd(), depth + 1)?;
        if made {
            // Last, for what is made in it changes its time.
            self.dress(&target, &stat)?;
        }
        Ok(())
    }

    fn contents(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                let (from, to) = (Entry { directory: from, name }, Entry { directory: to, name });
                self.entry(from, to, depth)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: Entry<'_>, to: Entry<'_>) -> io::Result<()> {
        // A pipe that took its place must not hold us up.
        let mut source = File::from(open(from, OFlags::RDONLY | OFlags::NONBLOCK)?);
        let stat = fstat(&source)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::AGAIN.into());
        }
        let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut target = None;
        let made = self.replace(to, || {
            target = Some(open_with(to, create)?);
            Ok(())
        });
        let target = match (made, target) {
            (Ok(()), Some(target)) => target,
            // A file that something is mounted on can be written, not replaced.
            (Err(Errno::BUSY), _) => open(to, OFlags::WRONLY | OFlags::TRUNC)?,
            (Err(error), _) => return Err(error.into()),
            (Ok(()), None) => return Err(Errno::NOENT.into()),
        };
        let mut target = File::from(target);
        self.copied.bytes += io::copy(&mut source, &mut target)?;
        Ok(self.dress(&OwnedFd::from(target), &stat)?)
    }

    fn link(&mut self, from: Entry<'_>, to: Entry<'_>, stat: &Stat) -> io::Result<()> {
        let target = readlinkat(from.directory, from.name, Vec::new())?;
        self.replace(to, || symlinkat(&target, to.directory, to.name))?;
        let (uid, gid) = self.ids(stat);
        chownat(
            to.directory,
            to.name,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        Ok(utimensat(to.directory, to.name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes something in place of what is there, unless that is a directory.
    fn replace(
        &self,
        to: Entry<'_>,
        mut make: impl FnMut() -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        match make() {
            Err(Errno::EXIST) => {
                unlinkat(to.directory, to.name, AtFlags::empty())?;
                make()
            }
            other => other,
        }
    }

    /// Sets owner, permissions and time, in this order: a new owner takes
    /// permissions away.
    fn dress(&self, fd: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
        let (uid, gid) = self.ids(stat);
        fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        let kept = match self.owner {
            Owner::Same => 0o7777,
            Owner::Ids(..) => 0o7777 & !SET_ID_BITS,
        };
        fchmod(fd, Mode::from_raw_mode(stat.st_mode & kept))?;
        futimens(fd, &times(stat))
    }

    fn ids(&self, stat: &Stat) -> (u32, u32) {
        match self.owner {
            Owner::Same => (stat.st_uid, stat.st_gid),
            Owner::Ids(uid, gid) => (uid, gid),
        }
    }
}

fn open(entry: Entry<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_with(entry, flags)
}

fn open_with(entry: Entry<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(entry.directory, entry.name, flags, Mode::from_raw_mode(0o600))
}

fn times(stat: &Stat) -> Timestamps {
    let of = |seconds, nanos| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let nanos = |value: u64| i64::try_from(value).unwrap_or_default();
    Timestamps {
        last_access: of(stat.st_atime, nanos(stat.st_atime_nsec)),
        last_modification: of(stat.st_mtime, nanos(stat.st_mtime_nsec)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    fn dir(path: &Path) -> File {
        File::open(path).unwrap()
    }

    fn ids() -> Owner {
        let process = (rustix::process::geteuid(), rustix::process::getegid());
        Owner::Ids(process.0.as_raw(), process.1.as_raw())
    }

    #[test]
    fn a_tree_is_merged_into_one_that_is_there() {
        let temporary = tempfile::tempdir().unwrap();
        let (from, to) = (temporary.path().join("from"), temporary.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "new").unwrap();
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o4751)).unwrap();
        symlink("/nowhere", from.join("a/link")).unwrap();
        fs::create_dir_all(to.join("a/b")).unwrap();
        fs::write(to.join("a/b/file"), "old and longer").unwrap();
        fs::write(to.join("a/kept"), "kept").unwrap();
        let copied = copy_contents(dir(&from).as_fd(), dir(&to).as_fd(), ids()).unwrap();
        assert_eq!(copied, Copied { bytes: 3, left_out: Vec::new() });
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "new");
        let metadata = fs::metadata(to.join("a/b/file")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o751, "set-id bits are dropped");
        assert_eq!(metadata.mtime(), fs::metadata(from.join("a/b/file")).unwrap().mtime());
        assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::read_to_string(to.join("a/kept")).unwrap(), "kept");
    }

    #[test]
    fn links_on_the_way_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        for name in ["from/sub", "to", "outside"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("from/sub/file"), "x").unwrap();
        fs::write(path("from/plain"), "x").unwrap();
        fs::write(path("outside/canary"), "safe").unwrap();
        symlink(path("outside"), path("to/sub")).unwrap();
        symlink(path("outside/canary"), path("to/plain")).unwrap();
        let error =
            copy_contents(dir(&path("from")).as_fd(), dir(&path("to")).as_fd(), ids()).unwrap_err();
        // A directory does not go through a link; a link to a file is replaced.
        let refused = [Errno::NOTDIR.raw_os_error(), Errno::LOOP.raw_os_error()];
        assert!(refused.contains(&error.raw_os_error().unwrap()), "{error}");
        fs::remove_file(path("to/sub")).unwrap();
        copy_contents(dir(&path("from")).as_fd(), dir(&path("to")).as_fd(), ids()).unwrap();
        assert_eq!(fs::read_to_string(path("to/plain")).unwrap(), "x");
        assert_eq!(fs::read_to_string(path("outside/canary")).unwrap(), "safe");
        assert_eq!(fs::read_dir(path("outside")).unwrap().count(), 1);
    }
}
