//! A tree of files to read from: the build context, or the root of a stage.
//!
//! Paths are relative to the tree's root and normal: no leading slash, no `.` or
//! `..`, and the empty path is the root itself. No operation follows a symbolic
//! link; [`resolve`] does that, beneath the root, one component at a time.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use store::layers::tar::SparseSegment;

use crate::context::HeldContent;
use crate::error::{Error, IoContext as _, Result};
use crate::walked::Walked;

/// Symbolic links followed on the way to one path, as in Linux's own limit.
const MAX_LINKS: usize = 40;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link, with its text.
    Symlink {
        /// Where it points.
        target: PathBuf,
    },
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket, which a copy turns into an empty file.
    Socket,
}

/// A point in time as files have it, seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtime {
    /// Whole seconds, negative before 1970.
    pub seconds: i64,
    /// The rest, below one second.
    pub nanoseconds: u32,
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

/// One file of a tree, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, including set-user-id and sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of its content.
    pub mtime: Mtime,
    /// Extended attributes that a layer carries.
    pub xattrs: Xattrs,
    /// Equal for the names of one file with several; `None` for a file with one name.
    pub link: Option<(u64, u64)>,
    /// What the kernel says about the file, where its content digest may be remembered by it.
    pub stamp: Option<Stamp>,
}

/// What changes whenever the content of a file does, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Device of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Status change time in nanoseconds since 1970; no program can set it.
    pub ctime_ns: i64,
    /// File type and permission bits.
    pub mode: u32,
}

impl Node {
    /// Returns a directory as a copy creates it when it is missing.
    #[must_use]
    pub fn directory(mode: u32, uid: u32, gid: u32, mtime: Mtime) -> Self {
        Self {
            kind: Kind::Directory,
            mode,
            uid,
            gid,
            mtime,
            xattrs: Xattrs::new(),
            link: None,
            stamp: None,
        }
    }

    /// Returns whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

/// A part of an open file, which is the content of another.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The file.
    pub file: Arc<File>,
    /// Where the content begins.
    pub offset: u64,
    /// Which parts of the content are there, one after the other; all of it without.
    pub sparse: Option<Vec<SparseSegment>>,
}

/// Something to copy files from or to look paths up in.
pub trait Tree: Sync {
    /// Returns the file at exactly this path, not following a link at its end.
    ///
    /// # Errors
    /// Fails when the file system does; a missing path is `Ok(None)`.
    fn lookup(&self, path: &Path) -> Result<Option<Node>>;

    /// Returns the names in a directory in byte order.
    ///
    /// # Errors
    /// Fails when `path` is not a directory that can be read.
    fn list(&self, path: &Path) -> Result<Vec<OsString>>;

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// Fails when it is not there, or not a regular file.
    fn open(&self, path: &Path) -> Result<File>;

    /// Returns a digest of the content of a regular file (and of nothing else about it).
    ///
    /// # Errors
    /// Fails when the file cannot be read.
    fn content_digest(&self, path: &Path, node: &Node) -> Result<[u8; 32]>;

    /// Returns the digest of a regular file's content if it is known without reading.
    fn known_digest(&self, node: &Node) -> Option<[u8; 32]> {
        let _ = node;
        None
    }

    /// Gives away the content of a file that was read for its digest and is held since, once.
    fn take_content(&self, node: &Node) -> Option<HeldContent> {
        let _ = node;
        None
    }

    /// Returns everything below a directory, parents before children, names in byte order.
    ///
    /// The paths are relative to the directory, which itself is not included.
    ///
    /// # Errors
    /// Fails when a directory cannot be read.
    fn walk(&self, dir: &Path) -> Result<Walked> {
        let mut found = Vec::new();
        let mut pending = vec![PathBuf::new()];
        // Depth first: the children of a directory are pushed in reverse, so that the
        // first of them is taken next.
        while let Some(relative) = pending.pop() {
            let is_root = relative.as_os_str().is_empty();
            let path = if is_root { dir.to_owned() } else { dir.join(&relative) };
            let node = match self.lookup(&path)? {
                Some(node) => node,
                None if is_root => return Ok(Walked::default()),
                // It vanished between the listing and the look.
                None => continue,
            };
            if node.is_dir() {
                pending.extend(self.list(&path)?.into_iter().rev().map(|name| relative.join(name)));
            }
            if !is_root {
                found.push((relative, node));
            }
        }
        Ok(found.into())
    }

    /// Returns where the content of a regular file lies in a larger one, for trees that
    /// have their files there.
    fn slice(&self, path: &Path) -> Option<Slice> {
        let _ = path;
        None
    }

    /// Returns whether `path` exists but is hidden from this tree by an ignore file.
    fn is_ignored(&self, path: &Path) -> bool {
        let _ = path;
        false
    }
}

/// A tree with nothing in it: the root of `FROM scratch`, and of `COPY --link`.
#[derive(Clone, Copy, Debug)]
pub struct Empty;

impl Tree for Empty {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let root = Node::directory(0o755, 0, 0, Mtime::default());
        Ok(path.as_os_str().is_empty().then_some(root))
    }

    fn list(&self, _path: &Path) -> Result<Vec<OsString>> {
        Ok(Vec::new())
    }

    fn open(&self, path: &Path) -> Result<File> {
        Err(Error::SourceMissing { path: path.to_owned(), ignored: false })
    }

    fn content_digest(&self, path: &Path, _node: &Node) -> Result<[u8; 32]> {
        Err(Error::SourceMissing { path: path.to_owned(), ignored: false })
    }
}

/// A tree with a single file, whose content is in another.
#[derive(Debug)]
pub struct OneFile {
    name: OsString,
    node: Node,
    content: Slice,
}

impl OneFile {
    /// Returns a tree with the file `name`, a regular file by its node.
    #[must_use]
    pub fn new(name: impl Into<OsString>, node: Node, content: Slice) -> Self {
        Self { name: name.into(), node, content }
    }
}

impl Tree for OneFile {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        if path == Path::new(&self.name) {
            return Ok(Some(self.node.clone()));
        }
        Empty.lookup(path)
    }

    fn list(&self, _path: &Path) -> Result<Vec<OsString>> {
        Ok(vec![self.name.clone()])
    }

    fn open(&self, path: &Path) -> Result<File> {
        if path != Path::new(&self.name) {
            return Empty.open(path);
        }
        // Opened anew, so that each reader has a position of its own.
        let descriptor = format!("/proc/self/fd/{}", self.content.file.as_raw_fd());
        let mut file = File::open(&descriptor).doing("open", path)?;
        file.seek(SeekFrom::Start(self.content.offset)).doing("read", path)?;
        Ok(file)
    }

    fn content_digest(&self, path: &Path, _node: &Node) -> Result<[u8; 32]> {
        crate::context::hash_file(&self.open(path)?, path)
    }

    fn slice(&self, path: &Path) -> Option<Slice> {
        (path == Path::new(&self.name)).then(|| self.content.clone())
    }
}

/// Makes a path of a Dockerfile relative to a root: `..` cannot leave it.
#[must_use]
pub fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Refuses names that a layer reads as deletions.
///
/// # Errors
/// Returns [`Error::ReservedName`] for a name that starts with `.wh.`.
pub fn check_name(path: &Path) -> Result<()> {
    match path.file_name() {
        Some(name) if name.as_bytes().starts_with(b".wh.") => {
            Err(Error::ReservedName { path: path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Where a path leads once its symbolic links are followed beneath the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links (except a last one that was not to be followed).
    pub path: PathBuf,
    /// What is there; `None` when nothing is.
    pub node: Option<Node>,
}

/// Follows the symbolic links of `path`, never out of the root.
///
/// Missing components are kept as they are, so that the result says where a new file
/// would have to be made.
///
/// # Errors
/// Returns [`Error::LinkLoop`] after 40 links, and what the tree returns.
pub fn resolve(tree: &dyn Tree, path: &Path, follow_last: bool) -> Result<Resolved> {
    let mut current = PathBuf::new();
    let mut links = 0;
    let mut pending: VecDeque<OsString> = names(path).collect();
    let mut node = tree.lookup(Path::new(""))?;
    let mut missing = false;
    while let Some(name) = pending.pop_front() {
        if name == OsStr::new("..") {
            current.pop();
            missing = false;
            node = tree.lookup(&current)?;
            continue;
        }
        let next = current.join(&name);
        let found = if missing { None } else { tree.lookup(&next)? };
        match found {
            Some(Node { kind: Kind::Symlink { target }, .. })
                if follow_last || !pending.is_empty() =>
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Error::LinkLoop { path: path.to_owned() });
                }
                if target.is_absolute() {
                    current = PathBuf::new();
                }
                for part in names(&target).collect::<Vec<_>>().into_iter().rev() {
                    pending.push_front(part);
                }
                node = tree.lookup(&current)?;
            }
            other => {
                missing = !other.as_ref().is_some_and(Node::is_dir);
                node = other;
                current = next;
            }
        }
    }
    Ok(Resolved { path: current, node })
}

/// Returns the names and `..`s of a path, in order.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}
