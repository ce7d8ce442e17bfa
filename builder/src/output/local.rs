//! The files of an image in a directory.
//!
//! The image may be hostile: its links lead anywhere, and whoever else can write to the directory
//! may change it meanwhile. So every name is made in a directory that was opened beneath the
//! destination without following any link, each file under a name of its own first, and then
//! renamed. What is there already stays, unless it is replaced by something of the same name; a
//! directory with something in it is never replaced by anything else.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self as sys, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps,
};
use rustix::io::Errno;
use store::layers::{Kind, Node, Timestamp};

use super::rootfs::{Rootfs, Take};
use crate::error::{Error, IoContext as _, Result};

/// A directory to make names in.
const PLACE: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many names are tried for a file that is being written. They are taken only by builds that
/// were killed.
const MAX_ATTEMPTS: u64 = 1_000_000;

/// Writes a root file system into a directory, which is made if it is missing; returns what was
/// left out: devices, which nobody wants to find in a directory of files.
///
/// Files belong to the caller. With an `epoch`, that is everything's time.
///
/// # Errors
/// Fails when something cannot be read or written.
pub fn write_local(rootfs: &Rootfs, epoch: Option<i64>, to: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(to).doing("create", to)?;
    // The destination itself is the user's: links on the way to it are followed.
    let root =
        sys::open(to, PLACE.difference(OFlags::NOFOLLOW), Mode::empty()).doing("open", to)?;
    let mut local = Local {
        shown: to.to_owned(),
        root,
        attempts: 0,
        directories: Vec::new(),
        left_out: Vec::new(),
    };
    rootfs.walk(epoch, &mut local)?;
    local.finish()?;
    Ok(local.left_out)
}

struct Local {
    shown: PathBuf,
    root: OwnedFd,
    attempts: u64,
    /// Directories whose mode and time are set at the end, when nothing changes in them any more.
    directories: Vec<(PathBuf, u32, Timestamp)>,
    left_out: Vec<PathBuf>,
}

impl Take for Local {
    fn take(&mut self, path: &Path, node: &Node, content: Option<File>) -> Result<()> {
        let shown = self.shown.join(path);
        self.place(path, node, content).map_err(|error| match error.raw_os_error() {
            Some(code) if code == Errno::NOTEMPTY.raw_os_error() => {
                Error::FileOverDirectory { path: shown }
            }
            _ => Error::Io { action: "write", path: shown, source: error },
        })
    }
}

impl Local {
    fn place(&mut self, path: &Path, node: &Node, content: Option<File>) -> io::Result<()> {
        let parent = self.open(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let (mode, mtime) = (node.metadata.mode, node.metadata.mtime);
        match &node.kind {
            Kind::Directory => {
                make_directory(&parent, name)?;
                self.directories.push((path.to_owned(), mode, mtime));
                Ok(())
            }
            Kind::File { .. } => {
                let Some(mut content) = content else { return Err(Errno::NOENT.into()) };
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let own = Mode::RUSR | Mode::WUSR;
                let (temporary, file) =
                    self.fresh(|name| sys::openat(&parent, name, flags, own))?;
                let mut file = File::from(file);
                let written = io::copy(&mut content, &mut file).and_then(|_| {
                    sys::fchmod(&file, Mode::from_raw_mode(mode))?;
                    Ok(sys::futimens(&file, &times(mtime))?)
                });
                put(&parent, &temporary, name, written)
            }
            Kind::Symlink { target } => {
                let (temporary, ()) =
                    self.fresh(|name| sys::symlinkat(OsStr::from_bytes(target), &parent, name))?;
                let dated =
                    sys::utimensat(&parent, &*temporary, &times(mtime), AtFlags::SYMLINK_NOFOLLOW);
                put(&parent, &temporary, name, dated.map_err(Into::into))
            }
            Kind::HardLink { target } => {
                let target = Path::new(OsStr::from_bytes(target));
                let other = self.open(target.parent().unwrap_or(Path::new("")))?;
                let first = target.file_name().ok_or(Errno::INVAL)?;
                let (temporary, ()) =
                    self.fresh(|name| sys::linkat(&other, first, &parent, name, AtFlags::empty()))?;
                put(&parent, &temporary, name, Ok(()))?;
                // Two names of one file: the rename did nothing, and the temporary one is left.
                match sys::unlinkat(&parent, &*temporary, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(mode);
                let (temporary, ()) =
                    self.fresh(|name| sys::mknodat(&parent, name, FileType::Fifo, mode, 0))?;
                put(&parent, &temporary, name, Ok(()))
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                self.left_out.push(path.to_owned());
                Ok(())
            }
        }
    }

    /// Opens a directory beneath the destination, no link followed.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        let beneath = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match sys::openat2(&self.root, beneath, PLACE, Mode::empty(), resolve) {
            // Old seccomp profiles know no openat2: the same, one name at a time.
            Err(Errno::NOSYS | Errno::PERM) => {
                let mut directory = sys::openat(&self.root, ".", PLACE, Mode::empty())?;
                for component in path.components() {
                    let Component::Normal(name) = component else {
                        return Err(Errno::INVAL.into());
                    };
                    directory = sys::openat(&directory, name, PLACE, Mode::empty())?;
                }
                Ok(directory)
            }
            other => Ok(other?),
        }
    }

    /// Makes something under a name that nobody has.
    fn fresh<T>(
        &mut self,
        make: impl Fn(&str) -> rustix::io::Result<T>,
    ) -> io::Result<(String, T)> {
        while self.attempts < MAX_ATTEMPTS {
            let name = format!(".rbuild-{}-{}.tmp", std::process::id(), self.attempts);
            match make(&name) {
                Ok(made) => return Ok((name, made)),
                Err(Errno::EXIST) => self.attempts += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }

    fn finish(&mut self) -> Result<()> {
        for (path, mode, mtime) in std::mem::take(&mut self.directories).into_iter().rev() {
            let shown = self.shown.join(&path);
            let directory = self.open(&path).doing("open", &shown)?;
            sys::futimens(&directory, &times(mtime)).doing("change", &shown)?;
            sys::fchmod(&directory, Mode::from_raw_mode(mode)).doing("change", &shown)?;
        }
        Ok(())
    }
}

/// Makes a directory, instead of whatever else has the name.
fn make_directory(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    let parent = parent.as_fd();
    match sys::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {}
        other => return Ok(other?),
    }
    let stat = sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        // What will be written into it must be possible until its mode is set.
        let directory = sys::openat(parent, name, PLACE, Mode::empty());
        if let Ok(directory) = directory {
            sys::fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777) | Mode::RWXU)?;
        }
        return Ok(());
    }
    sys::unlinkat(parent, name, AtFlags::empty())?;
    Ok(sys::mkdirat(parent, name, Mode::RWXU)?)
}

/// Gives something finished its name, or removes it when finishing failed.
fn put(
    parent: impl AsFd,
    temporary: &str,
    name: &OsStr,
    finished: io::Result<()>,
) -> io::Result<()> {
    let parent = parent.as_fd();
    let placed = finished.and_then(|()| match sys::renameat(parent, temporary, parent, name) {
        // An empty directory makes way; one with something in it does not.
        Err(Errno::ISDIR) => {
            sys::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            Ok(sys::renameat(parent, temporary, parent, name)?)
        }
        other => Ok(other?),
    });
    if placed.is_err() {
        // The first error counts.
        let _left = sys::unlinkat(parent, temporary, AtFlags::empty());
    }
    placed
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
