//! Reading a folder that anybody may have filled.
//!
//! Every path is resolved by the kernel beneath the folder, through no link of
//! any kind, and only regular files are opened: neither `..` nor a symbolic link
//! nor a pipe leads anywhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{Error, Result};

/// How many names one directory may have: those of a repository with a million
/// tags, in some hundred megabytes.
const MAX_NAMES: usize = 1_000_000;

/// A folder that is read.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: String,
}

impl Folder {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path: name }),
            Err(errno) => Err(Error::source("open", name, errno.into())),
        }
    }

    fn fail(&self, action: &'static str, path: &str, source: impl Into<io::Error>) -> Error {
        Error::source(action, format!("{}/{path}", self.path), source.into())
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve)
    }

    /// Opens a regular file, or returns `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or when a link stands in the way.
    pub(super) fn file(&self, path: &str) -> Result<Option<File>> {
        let file = match self.open_beneath(path, OFlags::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(self.fail("open", path, errno)),
        };
        let metadata = file.metadata().map_err(|source| self.fail("examine", path, source))?;
        match metadata.is_file() {
            true => Ok(Some(file)),
            false => Err(self.fail("open", path, io::Error::other("it is no regular file"))),
        }
    }

    /// Reads a file of at most `limit` bytes, or returns `None` where there is none.
    pub(super) fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| self.fail("read", path, source))?;
        if bytes.len() > limit {
            let reason = format!("it has more than {limit} bytes");
            return Err(self.fail("read", path, io::Error::other(reason)));
        }
        Ok(Some(bytes))
    }

    /// Returns the names of directories in a directory, sorted; none where it is
    /// not there. Names that are no text are left out.
    pub(super) fn directories(&self, path: &str) -> Result<Vec<String>> {
        let fail = |errno| self.fail("list", path, errno);
        let dir = match self.open_beneath(path, OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(fail(errno)),
        };
        let mut names = Vec::new();
        for entry in Dir::new(dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let may_be_one = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) if may_be_one => names.push(name.to_owned()),
                Ok(_) => {}
            }
            if names.len() > MAX_NAMES {
                let reason = format!("it has more than {MAX_NAMES} entries");
                return Err(self.fail("list", path, io::Error::other(reason)));
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/file"), "text").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink("sub/file", root.join("in")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let folder = Folder::open(&root).unwrap();
        assert_eq!(folder.read("sub/file", 4).unwrap().unwrap(), b"text");
        for path in ["out", "in", "up/secret", "../secret", "sub/../../secret"] {
            assert!(folder.read(path, 100).is_err(), "{path} was read");
        }
        assert!(folder.directories("up").is_err());
        assert_eq!(folder.directories("").unwrap(), [""; 0]);
        assert_eq!(folder.directories(".").unwrap(), ["sub"]);
        assert_eq!(folder.directories("sub/file").unwrap(), [""; 0]);
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "12345").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), Mode::RWXU).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.read("file", 5).unwrap().unwrap(), b"12345");
        assert!(folder.read("file", 4).is_err());
        assert!(folder.read("pipe", 4).is_err());
        assert!(folder.read(".", 4).is_err());
        assert!(folder.read("none", 4).unwrap().is_none());
    }
}
