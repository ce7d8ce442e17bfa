//! `cp`: between a container and this machine.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::copy::{Copied, Entry, Owner, copy, copy_contents};
use super::error::{Error, IoContext as _, Result};
use super::root::ContainerRoot;

/// A directory to be read and written in.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

/// One side of a copy: a path of the container or of this machine.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// In a container, from its root.
    Container(&'a ContainerRoot, &'a Path),
    /// On this machine.
    Host(&'a Path),
}

/// What is copied.
enum Source {
    /// What has this name.
    Named(OwnedFd, OsString),
    /// What is in this directory.
    Contents(OwnedFd),
}

/// Where it goes.
enum Target {
    /// Into this directory.
    Into(OwnedFd),
    /// To this name, which nothing has, or what is no directory.
    Named { parent: OwnedFd, name: OsString, exists: bool },
}

/// Copies a file or a tree, by docker's rules: into a directory that is there,
/// else to the name given; of a path that ends with `/.` what is in it. A link
/// is copied as a link.
///
/// # Errors
///
/// When the source is not there, when a directory is to become a file, and when
/// the system refuses.
pub fn transfer(from: Side<'_>, to: Side<'_>, owner: Owner) -> Result<Copied> {
    let source = from.source().doing("find", from.path())?;
    let target = to.target().doing("find", to.path())?;
    let doing = |copied: io::Result<Copied>| copied.doing("copy to", to.path());
    let is_directory = match &source {
        Source::Contents(_) => true,
        Source::Named(parent, name) => is_directory(parent, name),
    };
    match (source, target) {
        (Source::Named(parent, name), Target::Into(directory)) => doing(copy(
            Entry { directory: parent.as_fd(), name: &name },
            Entry { directory: directory.as_fd(), name: &name },
            owner,
        )),
        (_, Target::Named { exists: true, .. }) if is_directory => Err(Error::Invalid {
            what: format!(
                "{} is a directory and {} is not: it cannot be replaced",
                from.path().display(),
                to.path().display()
            ),
        }),
        (_, Target::Named { exists: false, .. }) if !is_directory && to.ends_with_slash() => {
            Err(Error::Invalid {
                what: format!("the directory {} does not exist", to.path().display()),
            })
        }
        (Source::Named(from_parent, from_name), Target::Named { parent, name, .. }) => doing(copy(
            Entry { directory: from_parent.as_fd(), name: &from_name },
            Entry { directory: parent.as_fd(), name: &name },
            owner,
        )),
        (Source::Contents(directory), Target::Into(target)) => {
            doing(copy_contents(directory.as_fd(), target.as_fd(), owner))
        }
        (Source::Contents(directory), Target::Named { parent, name, .. }) => {
            let mode = Mode::from_raw_mode(0o755);
            rustix::fs::mkdirat(&parent, &name, mode).doing("create", to.path())?;
            let flags = DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = openat(&parent, &name, flags, Mode::empty()).doing("open", to.path())?;
            doing(copy_contents(directory.as_fd(), target.as_fd(), owner))
        }
    }
}

impl Side<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::Container(_, path) | Self::Host(path) => path,
        }
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        match self {
            Self::Container(root, _) => root.open(path, flags),
            Self::Host(_) => Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())?),
        }
    }

    fn ends_with_slash(&self) -> bool {
        self.path().as_os_str().as_encoded_bytes().ends_with(b"/")
    }

    fn source(&self) -> io::Result<Source> {
        let path = self.path();
        let text = path.as_os_str().as_encoded_bytes();
        let is_contents = text.ends_with(b"/.") || text == b".";
        match (path.file_name(), is_contents) {
            (Some(name), false) => {
                let parent = self.open(&parent(path), DIRECTORY)?;
                // Now, and not while it is copied, is said that it is not there.
                rustix::fs::statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(Source::Named(parent, name.to_owned()))
            }
            // The root, or a path that ends with `..`: it has no name here.
            _ => Ok(Source::Contents(self.open(path, DIRECTORY)?)),
        }
    }

    fn target(&self) -> io::Result<Target> {
        let path = self.path();
        let exists = match self.open(path, OFlags::PATH) {
            Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode).is_dir() => {
                return Ok(Target::Into(self.open(path, DIRECTORY)?));
            }
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
        Ok(Target::Named {
            parent: self.open(&parent(path), DIRECTORY)?,
            name: name.to_owned(),
            exists,
        })
    }
}

/// Returns the directory that a path's last name is in.
fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn is_directory(parent: &OwnedFd, name: &OsString) -> bool {
    rustix::fs::statat(parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}
