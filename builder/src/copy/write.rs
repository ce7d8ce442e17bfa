//! Writes placed files as a layer: content goes from the source straight into the tar.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use oci::{Descriptor, DiffId, MediaType};
use store::Lease;
use store::layers::tar::{SparseSegment, Writer};
use store::layers::{Entry, Kind as LayerKind, Metadata, Timestamp};

use super::place::{Body, Placed};
use crate::context;
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Node, Tree};

/// How much content is on its way at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// How a layer is written.
pub struct LayerWriting<'a> {
    /// The latest time in it, in seconds since 1970.
    pub clamp: Option<i64>,
    /// Asked again and again; an error ends the writing.
    pub check: &'a dyn Fn() -> Result<()>,
}

impl std::fmt::Debug for LayerWriting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriting").field("clamp", &self.clamp).finish_non_exhaustive()
    }
}

/// Writes a layer with these entries and returns it.
///
/// The entries are in the order of paths, so that parents come before what is in them.
///
/// # Errors
/// Fails when a source cannot be read, changes its size meanwhile, or the store is full.
pub fn write_layer(
    lease: &Lease,
    source: &dyn Tree,
    entries: &BTreeMap<PathBuf, Placed>,
    how: &LayerWriting<'_>,
) -> Result<(DiffId, Descriptor)> {
    let ingest = lease.ingest()?;
    let at = Path::new("the layer");
    let mut tar = Tar { writer: Writer::new(ingest), buffer: vec![0; BUFFER_BYTES], how };
    let mut first_names: BTreeMap<(u64, u64), &Path> = BTreeMap::new();
    for (path, placed) in entries {
        let is_file = matches!(placed.node.kind, Kind::File { .. });
        let first = placed.node.link.filter(|_| is_file).and_then(|link| {
            let first = first_names.entry(link).or_insert(path);
            (*first != path).then_some(*first)
        });
        match first {
            Some(first) => {
                let target = first.as_os_str().as_bytes().to_vec();
                let kind = LayerKind::HardLink { target };
                let entry = tar.entry(path, kind, &placed.node);
                tar.writer.entry(&entry).doing("write", at)?;
            }
            None => tar.put(source, path, placed)?,
        }
    }
    let ingest = tar.writer.finish().doing("write", at)?;
    let committed = ingest.commit(None)?;
    let descriptor = Descriptor::new(MediaType::OCI_LAYER_TAR, committed.digest, committed.size);
    // The blob is the tar itself, so its digest is the diff id.
    Ok((DiffId(committed.digest), descriptor))
}

struct Tar<'a> {
    writer: Writer<store::Ingest>,
    buffer: Vec<u8>,
    how: &'a LayerWriting<'a>,
}

impl Tar<'_> {
    fn put(&mut self, source: &dyn Tree, path: &Path, placed: &Placed) -> Result<()> {
        let Placed { node, body, .. } = placed;
        let kind = match &node.kind {
            Kind::File { .. } => return self.file(source, path, node, body),
            Kind::Directory => LayerKind::Directory,
            Kind::Symlink { target } => {
                LayerKind::Symlink { target: target.clone().into_os_string().into_vec() }
            }
            Kind::Char { major, minor } => LayerKind::CharDevice { major: *major, minor: *minor },
            Kind::Block { major, minor } => LayerKind::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => LayerKind::Fifo,
            // A copied socket is an empty file.
            Kind::Socket => LayerKind::File { size: 0 },
        };
        let entry = self.entry(path, kind, node);
        self.writer.entry(&entry).doing("write", path)
    }

    fn file(&mut self, source: &dyn Tree, path: &Path, node: &Node, body: &Body) -> Result<()> {
        match body {
            Body::None => self.header(path, 0, node),
            Body::Inline(content) => {
                self.header(path, content.len() as u64, node)?;
                self.writer.data(content).doing("write", path)
            }
            Body::Slice { file, offset, sparse } => {
                let Kind::File { size } = node.kind else { return Ok(()) };
                self.header(path, size, node)?;
                match sparse {
                    None => self.slice(file, *offset, size, path),
                    Some(segments) => self.sparse(file, *offset, size, segments, path),
                }
            }
            Body::Source(from) => {
                let mut file = source.open(from)?;
                let size = file.metadata().doing("look at", from)?.len();
                let mut node = node.clone();
                if let Some(capability) = context::capability(&file) {
                    node.xattrs.insert("security.capability".into(), capability);
                }
                self.header(path, size, &node)?;
                let mut left = size;
                while left > 0 {
                    (self.how.check)()?;
                    let want = usize::try_from(left).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
                    let count = file.read(&mut self.buffer[..want]).doing("read", from)?;
                    if count == 0 {
                        return Err(Error::Changed { path: from.clone() });
                    }
                    self.writer.data(&self.buffer[..count]).doing("write", path)?;
                    left -= count as u64;
                }
                Ok(())
            }
        }
    }

    /// Writes a file of which an archive holds only the parts that are not zero.
    fn sparse(
        &mut self,
        file: &File,
        offset: u64,
        size: u64,
        segments: &[SparseSegment],
        path: &Path,
    ) -> Result<()> {
        let (mut from, mut written) = (offset, 0);
        for segment in segments {
            self.zeros(segment.offset - written, path)?;
            self.slice(file, from, segment.bytes, path)?;
            from += segment.bytes;
            written = segment.offset + segment.bytes;
        }
        self.zeros(size - written, path)
    }

    fn zeros(&mut self, mut count: u64, path: &Path) -> Result<()> {
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            self.buffer[..part].fill(0);
            self.writer.data(&self.buffer[..part]).doing("write", path)?;
            count -= part as u64;
        }
        Ok(())
    }

    fn slice(&mut self, file: &File, mut offset: u64, size: u64, path: &Path) -> Result<()> {
        let end = offset + size;
        while offset < end {
            (self.how.check)()?;
            let want = usize::try_from(end - offset).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let count = file.read_at(&mut self.buffer[..want], offset).doing("read", path)?;
            if count == 0 {
                let reason = "it ends in the middle of a file".to_owned();
                return Err(Error::Archive { path: path.to_owned(), reason });
            }
            self.writer.data(&self.buffer[..count]).doing("write", path)?;
            offset += count as u64;
        }
        Ok(())
    }

    fn header(&mut self, path: &Path, size: u64, node: &Node) -> Result<()> {
        let entry = self.entry(path, LayerKind::File { size }, node);
        self.writer.entry(&entry).doing("write", path)
    }

    fn entry(&self, path: &Path, kind: LayerKind, node: &Node) -> Entry {
        let mut path = path.as_os_str().as_bytes().to_vec();
        if kind == LayerKind::Directory {
            path.push(b'/');
        }
        let mtime = Timestamp { seconds: node.mtime.seconds, nanos: node.mtime.nanoseconds };
        let xattrs = node.xattrs.iter();
        let metadata = Metadata {
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            mtime: mtime.in_tar(self.how.clamp),
            xattrs: xattrs
                .filter(|(name, _)| store::layers::is_image_xattr(name.as_bytes()))
                .map(|(name, value)| (name.as_bytes().to_vec(), value.clone()))
                .collect(),
        };
        Entry { path, kind, metadata }
    }
}
