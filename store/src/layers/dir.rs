//! Directories held open: everything inside a layer happens relative to one of these.
//!
//! Paths inside a layer come from strangers. They are never joined to a path of the host and given
//! to the system as one: a directory is opened beneath the layer's root, following no symbolic
//! link, and what happens in it names a single component.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
        XattrFlags,
    },
    io::Errno,
};

use super::{
    entry::{Metadata, Timestamp, Xattrs, is_image_xattr},
    path::components,
};

/// The attribute with which overlayfs marks a directory that hides what is below it. The `user.`
/// form works for root and in a user namespace alike, with the mount option `userxattr`.
pub(crate) const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// A directory, open only as a place (`O_PATH`).
#[derive(Debug)]
pub(crate) struct Dir(OwnedFd);

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const PLACE: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const LIST: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory of the store itself, whose path is ours.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = PLACE.difference(OFlags::NOFOLLOW);
        Ok(Self(sys::open(path, flags, Mode::empty())?))
    }

    /// Opens the directory at a clean path beneath this one; no component may be a link.
    pub(crate) fn beneath(&self, path: &[u8]) -> io::Result<Self> {
        Ok(Self(self.open_beneath(path, PLACE)?))
    }

    /// Opens the directory at a clean path beneath this one so that it can be listed and changed.
    pub(crate) fn readable_beneath(&self, path: &[u8]) -> io::Result<Self> {
        Ok(Self(self.open_beneath(path, LIST)?))
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let target = if path.is_empty() { b"." } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(&self.0, target, flags, Mode::empty(), resolve) {
            // Old seccomp profiles know no openat2. The same, one component at a time:
            Err(Errno::NOSYS | Errno::PERM) => self.walk_beneath(path, flags),
            other => Ok(other?),
        }
    }

    fn walk_beneath(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let mut dir = sys::openat(&self.0, ".", PLACE, Mode::empty())?;
        for name in components(path) {
            dir = sys::openat(&dir, name, PLACE, Mode::empty())?;
        }
        Ok(sys::openat(&dir, ".", flags, Mode::empty())?)
    }

    /// Reads the metadata of a name, following nothing; `None` if there is no such name.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match sys::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a child directory, or this one for no name, so that it can be listed and changed.
    pub(crate) fn child_readable(&self, name: &[u8]) -> io::Result<Self> {
        let name = if name.is_empty() { b"." } else { name };
        Ok(Self(sys::openat(&self.0, name, LIST, Mode::empty())?))
    }

    /// Creates a file that does not exist yet.
    pub(crate) fn create(&self, name: &[u8], mode: u32) -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(sys::openat(&self.0, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    /// Opens a regular file for reading; anything else is an error, and a fifo does not block.
    pub(crate) fn open_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let stat = self.stat(name)?.ok_or_else(|| io::Error::from(Errno::NOENT))?;
        // Opening a device could already do something, so the type is looked at before and after.
        if !is(&stat, FileType::RegularFile) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let file = sys::openat(&self.0, name, flags, Mode::empty())?;
        if !is(&sys::fstat(&file)?, FileType::RegularFile) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(file.into())
    }

    /// Reads where a symbolic link points.
    pub(crate) fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(sys::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    /// Makes a directory that only its owner may enter; its metadata is set when it is full.
    pub(crate) fn make_dir(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::mkdirat(&self.0, name, Mode::RWXU)?)
    }

    /// Makes overlayfs' whiteout, which needs no privileges.
    pub(crate) fn make_whiteout(&self, name: &[u8]) -> io::Result<()> {
        Ok(sys::mknodat(&self.0, name, FileType::CharacterDevice, Mode::empty(), 0)?)
    }

    /// Gives a file, link or device times; links are not followed.
    pub(crate) fn set_times(&self, name: &[u8], mtime: Timestamp) -> io::Result<()> {
        Ok(sys::utimensat(&self.0, name, &both(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// A path to a name in this directory, for calls that know no directory descriptors. It leads
    /// through the descriptor, so that only the last component is looked up.
    pub(crate) fn path_of(&self, name: &[u8]) -> PathBuf {
        let mut path = PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        path.push(OsStr::from_bytes(name));
        path
    }

    /// Sets an attribute of a name that cannot be opened; links are not followed.
    pub(crate) fn set_xattr(&self, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
        Ok(sys::lsetxattr(self.path_of(name), key, value, XattrFlags::empty())?)
    }

    /// Reads the attributes of a name that belong to an image.
    pub(crate) fn image_xattrs(&self, name: &[u8]) -> io::Result<Xattrs> {
        Ok(self.xattrs(name)?.into_iter().filter(|(key, _)| is_image_xattr(key)).collect())
    }

    /// Reads all attributes of a name, links not followed.
    pub(crate) fn xattrs(&self, name: &[u8]) -> io::Result<Xattrs> {
        let path = self.path_of(name);
        let names = match read_growing(|buffer| sys::llistxattr(&path, buffer)) {
            Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
            other => other?,
        };
        let mut xattrs = Xattrs::new();
        for key in names.split(|byte| *byte == 0).filter(|key| !key.is_empty()) {
            match read_growing(|buffer| sys::lgetxattr(&path, key, buffer)) {
                Ok(value) => drop(xattrs.insert(key.to_vec(), value)),
                // Removed meanwhile, or not for us to see.
                Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(xattrs)
    }

    /// The metadata of a name, with the attributes of an image.
    pub(crate) fn metadata(&self, name: &[u8], stat: &Stat) -> io::Result<Metadata> {
        Ok(Metadata { xattrs: self.image_xattrs(name)?, ..metadata_of(stat) })
    }
}

/// What `stat` says of the metadata; it knows no attributes.
pub(crate) fn metadata_of(stat: &Stat) -> Metadata {
    Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime_of(stat),
        xattrs: Xattrs::new(),
    }
}

/// When the content changed.
pub(crate) fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp {
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).expect("the kernel keeps it below a billion"),
    }
}

/// Whether something is of this type.
pub(crate) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// Whether something is overlayfs' mark of a deletion.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == 0
}

/// The names in a directory, in byte order, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in sys::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether a directory hides what layers below have in it.
pub(crate) fn is_opaque(dir: impl AsFd) -> io::Result<bool> {
    let mut value = [0_u8; 1];
    match sys::fgetxattr(dir, OPAQUE_XATTR, &mut value) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives an open file or directory its owner, mode, attributes and time, in the order in which
/// none undoes another: a change of owner clears setuid and capabilities.
pub(crate) fn set_metadata(fd: impl AsFd, metadata: &Metadata) -> io::Result<()> {
    set_owner(&fd, metadata)?;
    sys::fchmod(&fd, Mode::from_raw_mode(metadata.mode))?;
    set_xattrs(&fd, &metadata.xattrs)?;
    set_open_times(fd, metadata.mtime)
}

/// Gives an open file or directory its owner.
pub(crate) fn set_owner(fd: impl AsFd, metadata: &Metadata) -> io::Result<()> {
    let (uid, gid) = owner(metadata);
    Ok(sys::fchown(fd, uid, gid)?)
}

/// The owner as the system calls take it.
pub(crate) fn owner(metadata: &Metadata) -> (Option<sys::Uid>, Option<sys::Gid>) {
    (Some(sys::Uid::from_raw(metadata.uid)), Some(sys::Gid::from_raw(metadata.gid)))
}

/// Gives an open file or directory its attributes.
pub(crate) fn set_xattrs(fd: impl AsFd, xattrs: &Xattrs) -> io::Result<()> {
    for (name, value) in xattrs {
        sys::fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Gives an open file or directory its time.
pub(crate) fn set_open_times(fd: impl AsFd, mtime: Timestamp) -> io::Result<()> {
    Ok(sys::futimens(fd, &both(mtime))?)
}

fn both(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Calls `read` with growing buffers until the value fits.
fn read_growing(
    mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match read(&mut buffer) {
            Ok(bytes) => {
                buffer.truncate(bytes);
                return Ok(buffer);
            }
            // The kernel's own limit is 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}
