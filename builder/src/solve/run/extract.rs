//! Files of a tree as files on disk: what a mount of a build context shows, and what a
//! cache mount begins with.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
    makedev, mkdirat, mknodat, openat, openat2, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::copy::Selected;
use crate::error::{Error, IoContext as _, Result};
use crate::solve::cancel::Cancel;
use crate::tree::{Kind, Mtime, Node, Tree};
use crate::walked::Walked;

/// Writes what was selected into the empty directory `root`: a directory's content becomes
/// that of `root`, which takes its owner and mode; a file keeps its name. Returns the first
/// file that is not any more what it was when it was selected.
///
/// Everything happens beneath `root`, and no link is followed.
///
/// # Errors
/// Fails when a file cannot be read or written, and when the build is stopped.
pub(super) fn extract(
    tree: &dyn Tree,
    selected: &Selected,
    root: &Path,
    cancel: &Cancel,
) -> Result<Option<PathBuf>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).doing("open", root)?;
    let mut writing = Writing {
        tree,
        root: directory,
        path: root,
        parent: None,
        links: BTreeMap::new(),
        changed: None,
    };
    if !selected.node.is_dir() {
        let name = selected.path.file_name().unwrap_or_default();
        writing.put(Path::new(name), &selected.path, &selected.node)?;
        return Ok(writing.changed);
    }
    for (relative, node) in selected.below.iter() {
        cancel.check()?;
        writing.put(relative, &selected.path.join(relative), node)?;
    }
    // Children change their directories' times, so the innermost come first.
    let directories = selected.below.iter().filter(|(_, node)| node.is_dir());
    for (relative, node) in directories.rev() {
        writing.times(relative, node.mtime)?;
    }
    writing.attributes(Path::new("."), &selected.node)?;
    writing.times(Path::new("."), selected.node.mtime)?;
    Ok(writing.changed)
}

struct Writing<'a> {
    tree: &'a dyn Tree,
    root: OwnedFd,
    path: &'a Path,
    /// The directory that was written to last.
    parent: Option<(PathBuf, OwnedFd)>,
    /// The first name of files with several.
    links: BTreeMap<(u64, u64), PathBuf>,
    changed: Option<PathBuf>,
}

impl Writing<'_> {
    fn put(&mut self, to: &Path, from: &Path, node: &Node) -> Result<()> {
        let absolute = self.path.join(to);
        let Some(name) = to.file_name() else { return Ok(()) };
        let parent = self.parent_of(to)?;
        if let Some(id) = node.link {
            if let Some(first) = self.links.get(&id) {
                let first = first.clone();
                let first_parent = self.open_directory(first.parent().unwrap_or(Path::new("")))?;
                let first_name = first.file_name().unwrap_or_default();
                return rustix::fs::linkat(
                    &first_parent,
                    first_name,
                    &parent,
                    name,
                    AtFlags::empty(),
                )
                .doing("link", &absolute);
            }
            self.links.insert(id, to.to_owned());
        }
        match &node.kind {
            Kind::Directory => {
                mkdirat(&parent, name, Mode::from_raw_mode(0o700)).doing("create", &absolute)?;
            }
            Kind::File { .. } => self.file(&parent, name, from, node, &absolute)?,
            Kind::Symlink { target } => {
                symlinkat(target, &parent, name).doing("create", &absolute)?;
            }
            Kind::Socket => self.node(&parent, name, FileType::RegularFile, 0, &absolute)?,
            Kind::Fifo => self.node(&parent, name, FileType::Fifo, 0, &absolute)?,
            Kind::Char { major, minor } => {
                let device = makedev(*major, *minor);
                self.node(&parent, name, FileType::CharacterDevice, device, &absolute)?;
            }
            Kind::Block { major, minor } => {
                let device = makedev(*major, *minor);
                self.node(&parent, name, FileType::BlockDevice, device, &absolute)?;
            }
        }
        self.attributes(to, node)?;
        if !node.is_dir() {
            self.times(to, node.mtime)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &std::ffi::OsStr,
        from: &Path,
        node: &Node,
        absolute: &Path,
    ) -> Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut to = File::from(to.doing("create", absolute)?);
        let mut source = self.tree.open(from)?;
        let copied = std::io::copy(&mut source, &mut to).doing("copy", absolute)?;
        let is_same = match (self.tree.lookup(from)?, &node.kind) {
            (Some(now), Kind::File { size }) => now.stamp == node.stamp && copied == *size,
            _ => false,
        };
        if !is_same && self.changed.is_none() {
            self.changed = Some(from.to_owned());
        }
        Ok(())
    }

    fn node(
        &self,
        parent: &OwnedFd,
        name: &std::ffi::OsStr,
        kind: FileType,
        device: rustix::fs::Dev,
        absolute: &Path,
    ) -> Result<()> {
        match mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device) {
            // An ordinary user has no devices; a plain file stands for one.
            Err(Errno::PERM) if kind != FileType::RegularFile => {
                self.node(parent, name, FileType::RegularFile, 0, absolute)
            }
            other => other.doing("create", absolute),
        }
    }

    fn attributes(&mut self, to: &Path, node: &Node) -> Result<()> {
        let absolute = self.path.join(to);
        let name = to.file_name().unwrap_or(std::ffi::OsStr::new("."));
        let parent = self.parent_of(to)?;
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .doing("change the owner of", &absolute)?;
        if matches!(node.kind, Kind::Symlink { .. }) {
            return Ok(());
        }
        // Nobody else writes here, and what was just made is no link.
        rustix::fs::chmodat(
            &parent,
            name,
            Mode::from_raw_mode(node.mode & 0o7777),
            AtFlags::empty(),
        )
        .doing("change the mode of", &absolute)?;
        if !matches!(node.kind, Kind::File { .. } | Kind::Directory) || node.xattrs.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&parent, name, flags, Mode::empty()).doing("open", &absolute)?;
        for (name, value) in &node.xattrs {
            let name = name.as_bytes();
            if let Err(error) = rustix::fs::fsetxattr(&file, name, value, XattrFlags::empty()) {
                // As in BuildKit: not every file system takes every attribute.
                tracing::debug!(%error, path = %absolute.display(), "an attribute is lost");
            }
        }
        Ok(())
    }

    fn times(&mut self, to: &Path, mtime: Mtime) -> Result<()> {
        let absolute = self.path.join(to);
        let name = to.file_name().unwrap_or(std::ffi::OsStr::new("."));
        let parent = self.parent_of(to)?;
        let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(&parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .doing("set the time of", &absolute)
    }

    /// Opens the directory that `path` is in.
    fn parent_of(&mut self, path: &Path) -> Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let opened = match &self.parent {
            Some((open, directory)) if open == parent => directory.try_clone(),
            _ => {
                let directory = self.open_directory(parent)?;
                let copy = directory.try_clone();
                self.parent = Some((parent.to_owned(), directory));
                copy
            }
        };
        opened.doing("open", &self.path.join(parent))
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(&self.root, name, flags, Mode::empty(), resolve)
            .doing("open", &self.path.join(path))
    }
}

/// Finds what a mount shows: the directory with all that is in it, or the file.
///
/// # Errors
/// Returns [`Error::SourceMissing`] when there is nothing.
pub(super) fn find(tree: &dyn Tree, source: Option<&str>) -> Result<Selected> {
    let path = crate::tree::normalize(Path::new(source.unwrap_or("")));
    let resolved = crate::tree::resolve(tree, &path, true)?;
    let Some(node) = resolved.node else {
        let ignored = tree.is_ignored(&resolved.path);
        return Err(Error::SourceMissing { path, ignored });
    };
    let below = if node.is_dir() { tree.walk(&resolved.path)? } else { Walked::default() };
    Ok(Selected {
        // The name is the mount's own business, the directory's mode can be seen inside.
        name: PathBuf::new(),
        path: resolved.path,
        node,
        below,
        above: Vec::new(),
        is_whole: true,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::tree::{Stamp, Xattrs};

    /// A tree that says what it was told, also what no file system would.
    struct Told {
        nodes: BTreeMap<PathBuf, Node>,
        file: PathBuf,
    }

    impl Tree for Told {
        fn lookup(&self, path: &Path) -> Result<Option<Node>> {
            Ok(self.nodes.get(path).cloned())
        }
        fn list(&self, path: &Path) -> Result<Vec<std::ffi::OsString>> {
            let names = self.nodes.keys().filter(|child| child.parent() == Some(path));
            Ok(names.filter_map(|child| child.file_name().map(Into::into)).collect())
        }
        fn open(&self, _path: &Path) -> Result<File> {
            File::open(&self.file).doing("open", &self.file)
        }
        fn content_digest(&self, _path: &Path, _node: &Node) -> Result<[u8; 32]> {
            Ok([0; 32])
        }
    }

    fn node(kind: Kind) -> Node {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mtime = Mtime { seconds: 1_000_000_000, nanoseconds: 5 };
        Node { kind, mode: 0o640, uid, gid, mtime, xattrs: Xattrs::new(), link: None, stamp: None }
    }

    fn told(directory: &Path, nodes: Vec<(&str, Node)>) -> Told {
        let file = directory.join("content");
        fs::write(&file, "12345").unwrap();
        let nodes = nodes.into_iter().map(|(path, node)| (PathBuf::from(path), node)).collect();
        Told { nodes, file }
    }

    fn selected(below: Vec<(&str, Node)>) -> Selected {
        Selected {
            name: PathBuf::new(),
            path: PathBuf::new(),
            node: Node { mode: 0o750, ..node(Kind::Directory) },
            below: below
                .into_iter()
                .map(|(path, node)| (path.into(), node))
                .collect::<Vec<_>>()
                .into(),
            above: Vec::new(),
            is_whole: true,
        }
    }

    #[test]
    fn files_have_all_that_their_nodes_say() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir(&root).unwrap();
        let file = || node(Kind::File { size: 5 });
        let linked = || Node { link: Some((1, 1)), ..file() };
        let below = vec![
            ("d", Node { mode: 0o711, ..node(Kind::Directory) }),
            ("d/f", file()),
            ("d/same", linked()),
            ("link", node(Kind::Symlink { target: "/etc".into() })),
            ("pipe", node(Kind::Fifo)),
            ("same", linked()),
            ("socket", node(Kind::Socket)),
        ];
        let tree = told(scratch.path(), below.clone());
        let changed = extract(&tree, &selected(below), &root, &Cancel::new()).unwrap();
        assert_eq!(changed, None);
        let of = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(fs::read_to_string(root.join("d/f")).unwrap(), "12345");
        assert_eq!(of("d/f").permissions().mode() & 0o7777, 0o640);
        assert_eq!(of("d").permissions().mode() & 0o7777, 0o711);
        assert_eq!(of("").permissions().mode() & 0o7777, 0o750);
        for name in ["d", "d/f", "link", ""] {
            assert_eq!((of(name).mtime(), of(name).mtime_nsec()), (1_000_000_000, 5), "{name}");
        }
        assert_eq!(of("d/same").ino(), of("same").ino());
        assert_eq!(fs::read_link(root.join("link")).unwrap(), Path::new("/etc"));
        assert_eq!(of("socket").len(), 0);
        assert!(of("socket").is_file());
    }

    #[test]
    fn a_tree_that_lies_writes_nothing_outside() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let link = node(Kind::Symlink { target: outside.clone() });
        let file = node(Kind::File { size: 5 });
        for (number, name) in
            ["way/f", "../outside/f", "/outside/f", "way/../../outside/f"].iter().enumerate()
        {
            let root = scratch.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            let below = vec![("way", link.clone()), (*name, file.clone())];
            let tree = told(scratch.path(), below.clone());
            assert!(extract(&tree, &selected(below), &root, &Cancel::new()).is_err(), "{name}");
            assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn a_file_that_changed_since_it_was_found_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("root");
        fs::create_dir(&root).unwrap();
        let stamp = Stamp { dev: 1, ino: 1, size: 5, mtime_ns: 1, ctime_ns: 1, mode: 0 };
        let then = Node { stamp: Some(stamp), ..node(Kind::File { size: 5 }) };
        let now = Node { stamp: Some(Stamp { mtime_ns: 2, ..stamp }), ..then.clone() };
        let tree = told(scratch.path(), vec![("f", now)]);
        let changed = extract(&tree, &selected(vec![("f", then)]), &root, &Cancel::new()).unwrap();
        assert_eq!(changed, Some("f".into()));
    }
}
