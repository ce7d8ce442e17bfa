//! The files of a stack of layers as a [`Tree`], without a mount.
//!
//! A layer that a COPY made is a tar, and stays one until a RUN needs it as a directory: for
//! a look at what is where, its headers are enough.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use store::layers::{Kind as LayerKind, Metadata, Snapshot};

use crate::context::hash_file;
use crate::copy;
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Empty, Kind, Mtime, Node, Tree, Xattrs, check_name, normalize};

/// How much of a file in a packed layer can be read: such files are /etc/passwd and /etc/group,
/// of which not more is looked at.
const MAX_OPEN_BYTES: u64 = 4 << 20;

/// Stacked layers to look into.
#[derive(Debug)]
pub(super) struct View(pub(super) Snapshot);

impl Tree for View {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let found = self.0.view()?.lstat(path).doing("look at", &absolute(path))?;
        Ok(found.map(|found| {
            let is_shared = matches!(found.kind, LayerKind::File { .. }) && found.links > 1;
            node(found.kind, found.metadata, is_shared.then_some(found.identity))
        }))
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        Ok(self.0.view()?.list(path).doing("read directory", &absolute(path))?.unwrap_or_default())
    }

    fn open(&self, path: &Path) -> Result<File> {
        let file = self.0.view()?.open_file(path).doing("open", &absolute(path))?;
        file.ok_or_else(|| Error::SourceMissing { path: path.to_owned(), ignored: false })
    }

    fn content_digest(&self, path: &Path, _node: &Node) -> Result<[u8; 32]> {
        hash_file(&self.open(path)?, &absolute(path))
    }
}

fn node(of: LayerKind, metadata: Metadata, link: Option<(u64, u64)>) -> Node {
    let Metadata { mode, uid, gid, mtime, xattrs: attributes } = metadata;
    Node {
        kind: kind(of),
        mode,
        uid,
        gid,
        mtime: Mtime { seconds: mtime.seconds, nanoseconds: mtime.nanos },
        xattrs: xattrs(attributes),
        link,
        stamp: None,
    }
}

fn kind(kind: LayerKind) -> Kind {
    match kind {
        LayerKind::Directory => Kind::Directory,
        LayerKind::File { size } => Kind::File { size },
        LayerKind::Symlink { target } | LayerKind::HardLink { target } => {
            Kind::Symlink { target: PathBuf::from(OsString::from_vec(target)) }
        }
        LayerKind::CharDevice { major, minor } => Kind::Char { major, minor },
        LayerKind::BlockDevice { major, minor } => Kind::Block { major, minor },
        LayerKind::Fifo => Kind::Fifo,
    }
}

fn xattrs(found: store::layers::Xattrs) -> Xattrs {
    found.into_iter().map(|(name, value)| (OsStr::from_bytes(&name).to_owned(), value)).collect()
}

/// A layer that was not unpacked: what its tar says is where.
#[derive(Debug)]
pub(super) struct Packed {
    blob: File,
    entries: BTreeMap<PathBuf, (Node, u64)>,
}

impl Packed {
    /// Reads the headers of a plain tar. Returns `None` for one that deletes files, which
    /// has a meaning only together with what is below.
    pub(super) fn read(blob: File, path: &Path) -> Result<Option<Self>> {
        let mut entries: BTreeMap<PathBuf, (Node, u64)> = BTreeMap::new();
        let mut is_simple = true;
        copy::members(&blob, path, &mut |entry, offset, sparse| {
            let name = normalize(Path::new(OsStr::from_bytes(&entry.path)));
            is_simple &= check_name(&name).is_ok() && sparse.is_none();
            let found = match &entry.kind {
                LayerKind::HardLink { target } => {
                    entries.get(&normalize(Path::new(OsStr::from_bytes(target)))).cloned()
                }
                _ => Some((node(entry.kind, entry.metadata, None), offset)),
            };
            match found {
                Some(found) => drop(entries.insert(name, found)),
                None => is_simple = false,
            }
            Ok(())
        })?;
        Ok(is_simple.then_some(Self { blob, entries }))
    }
}

/// Unpacked layers below, packed ones (bottom first) on top.
#[derive(Debug)]
pub(super) struct Stacked {
    pub(super) below: Option<View>,
    pub(super) above: Vec<Packed>,
}

impl Tree for Stacked {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let packed = self.above.iter().rev().find_map(|layer| layer.entries.get(path));
        match (packed, &self.below) {
            (Some((node, _)), _) => Ok(Some(node.clone())),
            (None, Some(below)) => below.lookup(path),
            (None, None) => Empty.lookup(path),
        }
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        let below = self.below.as_ref().map_or_else(|| Ok(Vec::new()), |below| below.list(path))?;
        let mut names: BTreeSet<OsString> = below.into_iter().collect();
        for layer in &self.above {
            let children = layer.entries.keys().filter(|child| child.parent() == Some(path));
            names.extend(children.filter_map(|child| child.file_name().map(OsStr::to_owned)));
        }
        Ok(names.into_iter().collect())
    }

    fn open(&self, path: &Path) -> Result<File> {
        for layer in self.above.iter().rev() {
            let Some((node, offset)) = layer.entries.get(path) else { continue };
            let Kind::File { size } = node.kind else { break };
            let mut content = vec![0; usize::try_from(size.min(MAX_OPEN_BYTES)).unwrap_or(0)];
            layer.blob.read_exact_at(&mut content, *offset).doing("read", &absolute(path))?;
            let mut file = tempfile::tempfile().doing("copy", &absolute(path))?;
            file.write_all(&content).doing("copy", &absolute(path))?;
            file.rewind().doing("copy", &absolute(path))?;
            return Ok(file);
        }
        match &self.below {
            Some(below) => below.open(path),
            None => Empty.open(path),
        }
    }

    fn content_digest(&self, path: &Path, _node: &Node) -> Result<[u8; 32]> {
        hash_file(&self.open(path)?, &absolute(path))
    }
}

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
