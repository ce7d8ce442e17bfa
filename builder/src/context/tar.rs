//! A plain tar as a [`Tree`]: nothing is unpacked.
//!
//! The headers are read once and become a map of normal paths; contents are read where
//! they are. Whatever names a hostile tar has, they are keys of a map and nothing else:
//! `..` and absolute names end at the root, and no file of this machine is ever opened.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use store::layers::tar::SparseSegment;
use store::layers::{Entry, Kind as LayerKind, Metadata};

use crate::context::MAX_ENTRIES;
use crate::copy::members;
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Mtime, Node, Slice, Tree, Xattrs, normalize};
use crate::walked::Walked;

/// What names of one member are told by, instead of an inode's device.
const TAR_LINKS: u64 = u64::MAX - 1;
/// How much content is on its way at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The files of a tar.
#[derive(Debug)]
pub struct TarTree {
    file: Arc<File>,
    /// What to call it in messages.
    name: PathBuf,
    entries: BTreeMap<PathBuf, Member>,
    /// The time of the newest regular file.
    newest: Option<i64>,
}

#[derive(Clone, Debug)]
struct Member {
    node: Node,
    offset: u64,
    sparse: Option<Vec<SparseSegment>>,
}

impl Member {
    fn implied_directory() -> Self {
        let node = Node::directory(0o755, 0, 0, Mtime::default());
        Self { node, offset: 0, sparse: None }
    }
}

impl TarTree {
    /// Reads the headers of a plain tar; `name` is for messages.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] for one that is broken, and [`Error::TooManyEntries`].
    pub fn read(file: &Arc<File>, name: &Path) -> Result<Self> {
        let mut tree = Self {
            file: Arc::clone(file),
            name: name.to_owned(),
            entries: BTreeMap::new(),
            newest: None,
        };
        tree.entries.insert(PathBuf::new(), Member::implied_directory());
        let mut number = 0;
        members(file, name, &mut |entry, offset, sparse| {
            number += 1;
            if number > MAX_ENTRIES {
                return Err(Error::TooManyEntries { path: name.to_owned(), limit: MAX_ENTRIES });
            }
            tree.add(entry, offset, sparse, number as u64)
        })?;
        Ok(tree)
    }

    /// Returns the time of the newest regular file, in seconds since 1970.
    #[must_use]
    pub fn newest(&self) -> Option<i64> {
        self.newest
    }

    fn add(
        &mut self,
        entry: Entry,
        offset: u64,
        sparse: Option<Vec<SparseSegment>>,
        number: u64,
    ) -> Result<()> {
        let path = normalize(&path_of(&entry.path));
        let Metadata { mode, uid, gid, mtime, xattrs } = entry.metadata;
        let kind = match entry.kind {
            LayerKind::HardLink { target } => return self.link(&path, &target, number),
            LayerKind::Directory => Kind::Directory,
            LayerKind::File { size } => Kind::File { size },
            LayerKind::Symlink { target } => Kind::Symlink { target: path_of(&target) },
            LayerKind::CharDevice { major, minor } => Kind::Char { major, minor },
            LayerKind::BlockDevice { major, minor } => Kind::Block { major, minor },
            LayerKind::Fifo => Kind::Fifo,
        };
        let is_dir = kind == Kind::Directory;
        if path.as_os_str().is_empty() && !is_dir {
            // The root is a directory, whatever a tar says.
            return Ok(());
        }
        if matches!(kind, Kind::File { .. }) {
            self.newest = self.newest.max(Some(mtime.seconds));
        }
        let xattrs: Xattrs =
            xattrs.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect();
        let mtime = Mtime { seconds: mtime.seconds, nanoseconds: mtime.nanos };
        let node = Node { kind, mode, uid, gid, mtime, xattrs, link: None, stamp: None };
        self.make_room(&path, is_dir);
        self.entries.insert(path, Member { node, offset, sparse });
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &[u8], number: u64) -> Result<()> {
        let target = normalize(&path_of(target));
        let Some(member) = self.entries.get_mut(&target).filter(|member| !member.node.is_dir())
        else {
            let reason = format!(
                "{} is a hard link to {}, which is not in it",
                path.display(),
                target.display()
            );
            return Err(Error::Archive { path: self.name.clone(), reason });
        };
        member.node.link.get_or_insert((TAR_LINKS, number));
        let member = member.clone();
        if path != target && !target.starts_with(path) {
            self.make_room(path, false);
            self.entries.insert(path.to_owned(), member);
        }
        Ok(())
    }

    /// Makes the directories above a path, and removes what was below it unless it stays one.
    fn make_room(&mut self, path: &Path, is_dir: bool) {
        for parent in path.ancestors().skip(1) {
            match self.entries.get(parent) {
                Some(member) if member.node.is_dir() => break,
                // What is no directory gives way: nothing is ever followed to another place.
                _ => drop(self.entries.insert(parent.to_owned(), Member::implied_directory())),
            }
        }
        if !is_dir && self.entries.get(path).is_some_and(|member| member.node.is_dir()) {
            let below: Vec<PathBuf> = self.below(path).map(|(path, _)| path.clone()).collect();
            for path in below {
                self.entries.remove(&path);
            }
        }
    }

    /// Returns what is below a directory, parents first, names in byte order.
    fn below<'s>(&'s self, dir: &'s Path) -> impl Iterator<Item = (&'s PathBuf, &'s Member)> {
        // Paths are compared by component, so that a directory is followed by what is in it.
        let range = self.entries.range(dir.to_owned()..);
        range
            .skip_while(move |(path, _)| *path == dir)
            .take_while(move |(path, _)| path.starts_with(dir))
    }
}

impl Tree for TarTree {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        Ok(self.entries.get(path).map(|member| member.node.clone()))
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        let children = self.below(path).filter(|(child, _)| child.parent() == Some(path));
        Ok(children.filter_map(|(child, _)| child.file_name().map(OsStr::to_owned)).collect())
    }

    /// Copies the content into a file of its own: only small files are asked for this way
    /// (the Dockerfile, an archive in the archive).
    fn open(&self, path: &Path) -> Result<File> {
        let mut file = tempfile::tempfile().doing("copy", path)?;
        self.read_into(path, &mut |bytes| file.write_all(bytes))?;
        file.rewind().doing("copy", path)?;
        Ok(file)
    }

    fn content_digest(&self, path: &Path, _node: &Node) -> Result<[u8; 32]> {
        let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
        self.read_into(path, &mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        match hasher.finish() {
            oci::Digest::Sha256(bytes) => Ok(bytes),
            oci::Digest::Sha512(_) => unreachable!("the hasher was made for SHA-256"),
        }
    }

    fn walk(&self, dir: &Path) -> Result<Walked> {
        let relative = |path: &Path| path.strip_prefix(dir).unwrap_or(path).to_owned();
        let found = self.below(dir).map(|(path, member)| (relative(path), member.node.clone()));
        Ok(found.collect::<Vec<_>>().into())
    }

    fn slice(&self, path: &Path) -> Option<Slice> {
        let Member { node, offset, sparse } = self.entries.get(path)?;
        let Kind::File { .. } = node.kind else { return None };
        Some(Slice { file: Arc::clone(&self.file), offset: *offset, sparse: sparse.clone() })
    }
}

impl TarTree {
    fn read_into(
        &self,
        path: &Path,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<()> {
        let member = self.entries.get(path);
        let Some((member, Kind::File { size })) = member.map(|m| (m, m.node.kind.clone())) else {
            return Err(Error::SourceMissing { path: path.to_owned(), ignored: false });
        };
        let whole = [SparseSegment { offset: 0, bytes: size }];
        let segments = member.sparse.as_deref().unwrap_or(&whole);
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(size).unwrap_or(BUFFER_BYTES))];
        let (mut from, mut written) = (member.offset, 0);
        let zeros = |mut count: u64, buffer: &mut [u8], take: &mut dyn FnMut(&[u8]) -> _| {
            buffer.fill(0);
            while count > 0 {
                let part = usize::try_from(count).unwrap_or(usize::MAX).min(buffer.len());
                take(&buffer[..part])?;
                count -= part as u64;
            }
            Ok::<_, std::io::Error>(())
        };
        for segment in segments {
            zeros(segment.offset - written, &mut buffer, take).doing("read", path)?;
            let mut left = segment.bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                self.file.read_exact_at(&mut buffer[..part], from).doing("read", &self.name)?;
                take(&buffer[..part]).doing("read", path)?;
                from += part as u64;
                left -= part as u64;
            }
            written = segment.offset + segment.bytes;
        }
        zeros(size - written, &mut buffer, take).doing("read", path)
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::resolve;

    /// Writes a tar; a kind is the type flag of the header.
    fn tar(members: &[(u8, &str, &str)]) -> File {
        let mut builder = tar::Builder::new(tempfile::tempfile().unwrap());
        for (kind, path, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::new(*kind));
            header.set_mode(if *kind == b'5' { 0o750 } else { 0o640 });
            header.set_uid(7);
            header.set_mtime(1_000);
            // As they are: the crate would refuse what we want to see.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            let data = if *kind == b'0' { content.as_bytes() } else { b"" };
            if *kind != b'0' {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(members: &[(u8, &str, &str)]) -> TarTree {
        TarTree::read(&Arc::new(tar(members)), Path::new("t.tar")).unwrap()
    }

    fn paths(tree: &TarTree) -> Vec<String> {
        let walked = tree.walk(Path::new("")).unwrap();
        walked.iter().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn members_are_files_of_a_tree() {
        let tree = read(&[
            (b'5', "./", ""),
            (b'0', "./b/x", "in b"),
            (b'0', "b.txt", "beside"),
            (b'1', "b/y", "./b/x"),
            (b'2', "l", "/b/./x"),
            (b'5', "a/", ""),
        ]);
        assert_eq!(paths(&tree), ["a", "b", "b/x", "b/y", "b.txt", "l"]);
        assert_eq!(tree.list(Path::new("b")).unwrap(), ["x", "y"]);
        let node = |path: &str| tree.lookup(Path::new(path)).unwrap().unwrap();
        assert_eq!((node("a").mode, node("b").mode, node("b/x").uid), (0o750, 0o755, 7));
        assert_eq!(node("b/x").link, node("b/y").link);
        assert!(node("b/x").link.is_some() && node("b.txt").link.is_none());
        assert_eq!(resolve(&tree, Path::new("l"), true).unwrap().path, Path::new("b/x"));
        let digest = tree.content_digest(Path::new("b/y"), &node("b/y")).unwrap();
        assert_eq!(oci::Digest::Sha256(digest), oci::Digest::sha256(b"in b"));
        assert_eq!(std::io::read_to_string(tree.open(Path::new("b/y")).unwrap()).unwrap(), "in b");
        assert_eq!(tree.newest(), Some(1_000));
    }

    #[test]
    fn hostile_names_stay_inside() {
        let tree = read(&[
            (b'0', "../../etc/passwd", "ours"),
            (b'0', "/abs", "abs"),
            (b'2', "out", "/etc"),
            (b'0', "out/shadow", "not followed"),
            (b'0', "..", "the root is no file"),
            (b'0', "f", "file"),
            (b'0', "f/below", "the file gave way"),
            (b'5', "d/", ""),
            (b'0', "d/x/y", ""),
            (b'0', "d", "the directory gave way"),
            (b'1', "f/loop", "f/loop/../below"),
        ]);
        assert_eq!(
            paths(&tree),
            ["abs", "d", "etc", "etc/passwd", "f", "f/below", "f/loop", "out", "out/shadow"]
        );
        let node = |path: &str| tree.lookup(Path::new(path)).unwrap().unwrap();
        assert!(node("out").is_dir() && node("").is_dir() && node("f").is_dir());
        assert_eq!(node("d").kind, Kind::File { size: 22 });
        let broken = [(b'1', "x", "../nowhere")];
        let error =
            TarTree::read(&Arc::new(tar(&broken)), Path::new("t.tar")).unwrap_err().to_string();
        assert_eq!(error, "cannot unpack t.tar: x is a hard link to nowhere, which is not in it");
        let whole = tar(&[(b'0', "f", "content")]);
        whole.set_len(600).unwrap();
        assert!(matches!(
            TarTree::read(&Arc::new(whole), Path::new("t")),
            Err(Error::Archive { .. })
        ));
    }
}
