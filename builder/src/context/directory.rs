//! A directory as a [`Tree`].

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::held::{Content, Held, MAX_FILE_BYTES};
use super::index::Index;
use super::is_ignored;
use super::walk::{LISTING_BYTES, Names, walk};
use crate::error::{Error, IoContext as _, Result};
use crate::ignore::{Ignore, Matched};
use crate::tree::{Kind, Mtime, Node, Stamp, Tree, Xattrs};
use crate::walked::Walked;

/// Entries of one context; far above any real one, it ends a walk into a mounted world.
pub const MAX_ENTRIES: usize = 5_000_000;
/// How much of a file is read at once.
const READ_BYTES: usize = 256 * 1024;

/// A directory to copy from, without what its ignore file excludes.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    path: PathBuf,
    ignore: Ignore,
    index: Index,
    held: Held,
}

impl Context {
    /// Opens a directory.
    ///
    /// # Errors
    /// Fails when `path` is not a directory that can be read.
    pub fn open(path: &Path, ignore: Ignore, index: Index) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).doing("open the build context", path)?;
        Ok(Self { root, path: path.to_owned(), ignore, index, held: Held::default() })
    }

    /// Keeps in a directory what it holds of files and has no place for in memory.
    #[must_use]
    pub fn spilling_into(self, directory: &Path) -> Self {
        Self { held: Held::spilling_into(directory), ..self }
    }

    /// Returns what is remembered about the files, to be saved after the build.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            // Old seccomp profiles know no openat2, valgrind neither.
            Err(Errno::NOSYS | Errno::PERM) => open_by_component(self.root.as_fd(), path, flags),
            other => other,
        }
    }

    /// Opens a regular file and says what it is.
    fn open_file(&self, path: &Path) -> Result<(File, Stamp)> {
        let absolute = || self.path.join(path);
        // NONBLOCK: a file that was replaced by a named pipe must not stop the build.
        let fd = self
            .open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
            .doing("open", &absolute())?;
        let stat = rustix::fs::fstat(&fd).doing("look at", &absolute())?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::Changed { path: absolute() });
        }
        Ok((File::from(fd), stamp(&stat)))
    }

    pub(super) fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// Returns whether `path`, of this type, is not part of the context.
    fn is_hidden(&self, path: &Path, is_dir: bool) -> Result<bool> {
        if path.as_os_str().is_empty() || !is_ignored(&self.ignore, path) {
            return Ok(false);
        }
        // An excluded directory is there if something in it is re-included.
        if is_dir && self.ignore.may_reinclude_below(path) {
            if self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY).is_err() {
                return Ok(true);
            }
            return Ok(walk(self, path)?.is_empty());
        }
        Ok(true)
    }

    /// Returns which patterns a directory matches, itself or through its parents.
    pub(super) fn matched(&self, path: &Path) -> Matched {
        let mut matched = Matched::default();
        let mut parents: Vec<&Path> = path.ancestors().collect();
        parents.reverse();
        for parent in parents.into_iter().skip(1) {
            matched = self.ignore.check(&parent.to_string_lossy(), &matched).1;
        }
        matched
    }
}

impl Tree for Context {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let fd = match self.open_beneath(path, OFlags::PATH) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
            Err(error) => return Err(error).doing("look at", &self.path.join(path)),
        };
        let stat = rustix::fs::fstat(&fd).doing("look at", &self.path.join(path))?;
        let node = node(fd.as_fd(), c"", &stat).doing("read link", &self.path.join(path))?;
        Ok((!self.is_hidden(path, node.is_dir())?).then_some(node))
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        let absolute = self.path.join(path);
        let dir = self
            .open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
            .doing("open directory", &absolute)?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let found = Names::read(dir.as_fd(), &mut buffer).doing("read directory", &absolute)?;
        let mut names = Vec::new();
        for (name, kind) in found.iter() {
            let name = OsStr::from_bytes(name.to_bytes());
            if !self.is_hidden(&path.join(name), kind == FileType::Directory)? {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> Result<File> {
        Ok(self.open_file(path)?.0)
    }

    fn content_digest(&self, path: &Path, node: &Node) -> Result<[u8; 32]> {
        if let Some(known) = self.known_digest(node) {
            return Ok(known);
        }
        let (file, before) = self.open_file(path)?;
        let absolute = || self.path.join(path);
        if before.size > MAX_FILE_BYTES {
            let digest = hash_file(&file, &absolute())?;
            // What changed since it was found is not remembered under either state.
            let after = stamp_of(&file).doing("look at", &absolute())?;
            if node.stamp == Some(after) {
                self.index.put(after, digest);
            }
            return Ok(digest);
        }
        let content = read_small(&file, before.size).doing("read", &absolute())?;
        let digest = digest_of(&content);
        // One that changes while it is read has another time of change than it was found with,
        // now and for ever: what is remembered of the state before is found by nobody.
        if node.stamp == Some(before) && content.bytes.len() as u64 == before.size {
            self.index.put(before, digest);
            self.held.put(before, content);
        }
        Ok(digest)
    }

    fn take_content(&self, node: &Node) -> Option<Content> {
        self.held.take(node.stamp.as_ref()?)
    }

    fn known_digest(&self, node: &Node) -> Option<[u8; 32]> {
        node.stamp.as_ref().and_then(|stamp| self.index.get(stamp))
    }

    fn walk(&self, dir: &Path) -> Result<Walked> {
        walk(self, dir)
    }

    fn is_ignored(&self, path: &Path) -> bool {
        self.open_beneath(path, OFlags::PATH).is_ok() && is_ignored(&self.ignore, path)
    }
}

/// Opens a path beneath a directory as `openat2` does it: no symbolic link is followed, and
/// `path` has no `..` that could lead out.
fn open_by_component(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name());
    let mut directory = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for component in parent.components() {
        let Component::Normal(name) = component else { return Err(Errno::XDEV) };
        directory = rustix::fs::openat(&directory, name, through, Mode::empty())?;
    }
    rustix::fs::openat(&directory, name.unwrap_or(OsStr::new(".")), flags, Mode::empty())
}

/// Reads a file of few bytes; one that grows meanwhile only as far as it was.
fn read_small(file: &File, length: u64) -> std::io::Result<Content> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes)?;
    Ok(Content { bytes, capability: capability(file) })
}

/// Returns what [`hash_file`] does, of what was read.
fn digest_of(content: &Content) -> [u8; 32] {
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
    hasher.update(&content.bytes);
    if let Some(capability) = &content.capability {
        hasher.update(b"security.capability");
        hasher.update(capability);
    }
    match hasher.finish() {
        oci::Digest::Sha256(bytes) => bytes,
        oci::Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
    }
}

/// Returns the digest of a file's content, and of its capabilities where it has any.
///
/// # Errors
/// Fails when it cannot be read.
pub(crate) fn hash_file(mut file: &File, path: &Path) -> Result<[u8; 32]> {
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
    let length = file.metadata().doing("look at", path)?.len();
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(READ_BYTES).clamp(1, READ_BYTES)];
    // A file that grows meanwhile is read as far as it was.
    let mut left = length;
    while left > 0 {
        let count = file.read(&mut buffer).doing("read", path)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        left = left.saturating_sub(count as u64);
    }
    if let Some(capability) = capability(file) {
        hasher.update(b"security.capability");
        hasher.update(&capability);
    }
    match hasher.finish() {
        oci::Digest::Sha256(bytes) => Ok(bytes),
        oci::Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
    }
}

/// Returns the file capabilities of an open file, the one attribute that travels.
pub(crate) fn capability(file: &File) -> Option<Vec<u8>> {
    // A capability set is 20 or 24 bytes.
    let mut value = [0_u8; 64];
    let length = rustix::fs::fgetxattr(file, "security.capability", &mut value).ok()?;
    Some(value[..length].to_vec())
}

/// Returns what the kernel says about an open file now.
pub(crate) fn stamp_of(file: &File) -> Result<Stamp, Errno> {
    rustix::fs::fstat(file).map(|stat| stamp(&stat))
}

/// Turns what the kernel says into a node; `name` may be empty for `dir` itself.
pub(super) fn node(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<Node, Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Unknown => Kind::File { size },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
            Kind::Symlink { target: PathBuf::from(OsString::from_vec(target.into_bytes())) }
        }
        FileType::CharacterDevice => Kind::Char { major: device.0, minor: device.1 },
        FileType::BlockDevice => Kind::Block { major: device.0, minor: device.1 },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
    };
    let is_file = matches!(kind, Kind::File { .. });
    Ok(Node {
        mode: stat.st_mode & 0o7777,
        uid: 0,
        gid: 0,
        mtime: Mtime {
            seconds: stat.st_mtime,
            nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        xattrs: Xattrs::new(),
        link: (is_file && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino)),
        stamp: is_file.then(|| stamp(stat)),
        kind,
    })
}

fn stamp(stat: &Stat) -> Stamp {
    let nanoseconds = |seconds: i64, rest: u64| {
        seconds.saturating_mul(1_000_000_000).saturating_add(i64::try_from(rest).unwrap_or(0))
    };
    Stamp {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
        mode: stat.st_mode,
    }
}
