//! The merged tree of stacked layers, read without a mount.
//!
//! Follows overlayfs' rules: of several layers the topmost decides, directories are merged down to
//! the first layer in which the name is something else, is marked deleted, or is opaque.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::fs::{self as sys, FileType, Stat};

use super::{
    dir::{Dir, is, is_opaque, is_whiteout},
    entry::{Kind, Metadata},
    path::{components, exact, join, split},
};

/// How many symbolic links one look-up may lead through: the kernel's own limit.
const MAX_LINKS: usize = 40;
/// How many directories stay open, each with a descriptor per layer that has it.
const OPEN_DIRECTORIES: usize = 8;

/// Something in the merged tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is; never a hard link.
    pub kind: Kind,
    /// Its metadata.
    pub metadata: Metadata,
    /// The file system of the layer that has it, and its number there: equal for two names of one
    /// file.
    pub identity: (u64, u64),
    /// How many names it has in its layer.
    pub links: u64,
}

/// A directory of the merged tree: the directories that make it up, topmost first.
#[derive(Debug)]
struct MergedDir(Vec<Dir>);

/// What a name is in a merged directory.
enum Child<'a> {
    Directory(MergedDir),
    Other(&'a Dir, Stat),
}

/// A read-only look at stacked layers.
///
/// Paths are given from the root, with or without a leading slash. Symbolic links, where they are
/// followed, lead to places inside the root, as they would after `chroot`.
#[derive(Debug)]
pub struct MergedView {
    root: Arc<MergedDir>,
    open: Mutex<Vec<(Vec<u8>, Arc<MergedDir>)>>,
}

impl MergedView {
    /// Opens the directories of stacked layers, topmost first.
    ///
    /// # Errors
    ///
    /// Fails if one of them cannot be opened.
    pub fn open(layers: &[PathBuf]) -> io::Result<Self> {
        let layers = layers.iter().map(|path| Dir::open(path)?.child_readable(b""));
        let root = Arc::new(MergedDir(layers.collect::<io::Result<_>>()?));
        Ok(Self { root, open: Mutex::new(Vec::new()) })
    }

    /// Tells whether there is no layer at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.0.is_empty()
    }

    /// Tells whether the topmost directory at exactly this path hides those below it.
    pub(crate) fn is_opaque(&self, path: &Path) -> io::Result<bool> {
        match self.directory(&exact(path))? {
            Some(dir) => dir.0.first().map_or(Ok(false), is_opaque),
            None => Ok(false),
        }
    }

    /// Returns what is at exactly this path, or `None`. No component is followed: below a symbolic
    /// link there is nothing.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be read.
    pub fn lstat(&self, path: &Path) -> io::Result<Option<Node>> {
        let path = exact(path);
        let (parent, name) = split(&path);
        if name.is_empty() {
            return self.root.node().map(Some);
        }
        let Some(dir) = self.directory(parent)? else { return Ok(None) };
        dir.child(name)?.map(|child| node(&child, name)).transpose()
    }

    /// Resolves a path through symbolic links inside the root; the last component too if
    /// `follow_last`. Returns the path of what was found, free of links and without a leading
    /// slash, and what it is; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be read, and for paths through too many links.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<Option<(PathBuf, Node)>> {
        let Some(path) = self.resolve_bytes(path, follow_last)? else { return Ok(None) };
        let path = PathBuf::from(OsString::from_vec(path));
        Ok(self.lstat(&path)?.map(|node| (path, node)))
    }

    /// Returns what a path leads to, links followed, or `None`.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be read, and for paths through too many links.
    pub fn metadata(&self, path: &Path) -> io::Result<Option<Node>> {
        Ok(self.resolve(path, true)?.map(|(_, node)| node))
    }

    /// Reads a regular file of at most `max_bytes`, links followed; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Fails for anything but a regular file — a fifo does not block — and for longer ones.
    pub fn read_file(&self, path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(path) = self.resolve_bytes(path, true)? else { return Ok(None) };
        let Some(file) = self.open_at(&path)? else { return Ok(None) };
        let mut content = Vec::new();
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 > max_bytes {
            let message = format!("it is longer than {max_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(Some(content))
    }

    /// Opens the regular file at exactly this path; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// Fails for anything but a regular file, and if a layer cannot be read.
    pub fn open_file(&self, path: &Path) -> io::Result<Option<File>> {
        self.open_at(&exact(path))
    }

    /// Returns the names in the directory at exactly this path, in byte order; `None` if there is
    /// no such directory.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be read.
    pub fn list(&self, path: &Path) -> io::Result<Option<Vec<OsString>>> {
        match self.directory(&exact(path))? {
            Some(dir) => dir.names().map(Some),
            None => Ok(None),
        }
    }

    /// Returns the names in the directory that a path leads to, links followed.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be read.
    pub fn read_dir(&self, path: &Path) -> io::Result<Option<Vec<OsString>>> {
        let Some(path) = self.resolve_bytes(path, true)? else { return Ok(None) };
        self.list(Path::new(OsStr::from_bytes(&path)))
    }

    fn open_at(&self, path: &[u8]) -> io::Result<Option<File>> {
        let (parent, name) = split(path);
        let Some(dir) = self.directory(parent)? else { return Ok(None) };
        if name.is_empty() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        match dir.child(name)? {
            None => Ok(None),
            Some(Child::Directory(_)) => Err(io::Error::from(io::ErrorKind::IsADirectory)),
            Some(Child::Other(layer, _)) => layer.open_file(name).map(Some),
        }
    }

    /// Finds the path without links that a path leads to, if it exists.
    fn resolve_bytes(&self, path: &Path, follow_last: bool) -> io::Result<Option<Vec<u8>>> {
        let components = |path: &[u8]| components(path).rev().map(<[u8]>::to_vec).collect();
        let mut todo: Vec<Vec<u8>> = components(path.as_os_str().as_bytes());
        let mut resolved: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    resolved = split(&resolved).0.to_vec();
                    continue;
                }
                _ => {}
            }
            let Some(dir) = self.directory(&resolved)? else { return Ok(None) };
            match dir.child(&name)? {
                None => return Ok(None),
                Some(Child::Other(layer, stat))
                    if is(&stat, FileType::Symlink) && (follow_last || !todo.is_empty()) =>
                {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    let target = layer.read_link(&name)?;
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    todo.extend::<Vec<Vec<u8>>>(components(&target));
                }
                Some(_) => resolved = join(&resolved, &name),
            }
        }
        Ok(Some(resolved))
    }

    /// Opens the merged directory at a clean path, if there is one.
    fn directory(&self, path: &[u8]) -> io::Result<Option<Arc<MergedDir>>> {
        if path.is_empty() {
            return Ok(Some(Arc::clone(&self.root)));
        }
        if let Some(dir) = self.cached(path) {
            return Ok(Some(dir));
        }
        let (parent, name) = split(path);
        let Some(parent) = self.directory(parent)? else { return Ok(None) };
        let Some(Child::Directory(dir)) = parent.child(name)? else { return Ok(None) };
        let dir = Arc::new(dir);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.truncate(OPEN_DIRECTORIES - 1);
        open.insert(0, (path.to_vec(), Arc::clone(&dir)));
        Ok(Some(dir))
    }

    fn cached(&self, path: &[u8]) -> Option<Arc<MergedDir>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(known, _)| known == path)?;
        open[..=at].rotate_right(1);
        Some(Arc::clone(&open[0].1))
    }
}

impl MergedDir {
    /// Looks a name up as overlayfs does.
    fn child(&self, name: &[u8]) -> io::Result<Option<Child<'_>>> {
        let mut merged = Vec::new();
        for layer in &self.0 {
            let Some(stat) = layer.stat(name)? else { continue };
            if is_whiteout(&stat) {
                break;
            }
            if !is(&stat, FileType::Directory) {
                if merged.is_empty() {
                    return Ok(Some(Child::Other(layer, stat)));
                }
                break;
            }
            let dir = layer.child_readable(name)?;
            let ends_here = is_opaque(&dir)?;
            merged.push(dir);
            if ends_here {
                break;
            }
        }
        Ok((!merged.is_empty()).then(|| Child::Directory(Self(merged))))
    }

    fn node(&self) -> io::Result<Node> {
        let Some(top) = self.0.first() else {
            let (kind, metadata) = (Kind::Directory, Metadata::implied_directory());
            return Ok(Node { kind, metadata, identity: (0, 0), links: 1 });
        };
        let stat = sys::fstat(top)?;
        let metadata = top.metadata(b".", &stat)?;
        let identity = (stat.st_dev, stat.st_ino);
        Ok(Node { kind: Kind::Directory, metadata, identity, links: stat.st_nlink })
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        // The topmost layer that has a name decides whether it is there.
        let mut seen = BTreeMap::new();
        for layer in &self.0 {
            for entry in sys::Dir::read_from(layer)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") || seen.contains_key(name) {
                    continue;
                }
                let is_shown = match entry.file_type() {
                    FileType::CharacterDevice | FileType::Unknown => {
                        layer.stat(name)?.is_some_and(|stat| !is_whiteout(&stat))
                    }
                    _ => true,
                };
                seen.insert(name.to_vec(), is_shown);
            }
        }
        let shown = seen.into_iter().filter(|(_, is_shown)| *is_shown);
        Ok(shown.map(|(name, _)| OsString::from_vec(name)).collect())
    }
}

fn node(child: &Child<'_>, name: &[u8]) -> io::Result<Node> {
    let (dir, stat) = match child {
        Child::Directory(dir) => return dir.node(),
        Child::Other(dir, stat) => (dir, stat),
    };
    let identity = (stat.st_dev, stat.st_ino);
    let metadata = dir.metadata(name, stat)?;
    Ok(Node { kind: kind_of(dir, name, stat)?, metadata, identity, links: stat.st_nlink })
}

/// What something is that is no directory.
pub(crate) fn kind_of(dir: &Dir, name: &[u8], stat: &Stat) -> io::Result<Kind> {
    let (major, minor) = (sys::major(stat.st_rdev), sys::minor(stat.st_rdev));
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size: stat.st_size.cast_unsigned() },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: dir.read_link(name)? },
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        other => {
            let message = format!("{other:?} cannot be part of a layer");
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
    })
}
