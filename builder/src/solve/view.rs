//! The files of a stack of layers as a [`Tree`], without a mount.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use store::layers::{Kind as LayerKind, Snapshot};

use crate::context::hash_file;
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Mtime, Node, Tree, Xattrs};

/// Stacked layers to look into.
#[derive(Debug)]
pub(super) struct View(pub(super) Snapshot);

impl Tree for View {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        let found = self.0.view()?.lstat(path).doing("look at", &absolute(path))?;
        Ok(found.map(|found| {
            let is_file = matches!(found.kind, LayerKind::File { .. });
            Node {
                kind: kind(found.kind),
                mode: found.metadata.mode,
                uid: found.metadata.uid,
                gid: found.metadata.gid,
                mtime: Mtime {
                    seconds: found.metadata.mtime.seconds,
                    nanoseconds: found.metadata.mtime.nanos,
                },
                xattrs: xattrs(found.metadata.xattrs),
                link: (is_file && found.links > 1).then_some(found.identity),
                stamp: None,
            }
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

fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
