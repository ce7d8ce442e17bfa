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

use super::ahead::{self, Ahead, InOrder, Small};
use super::place::{Body, Placed};
use crate::context::{self, HeldContent};
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Node, Slice, Tree};

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

/// A layer that was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its identity.
    pub diff_id: DiffId,
    /// The blob: the tar itself, whose digest is the diff id.
    pub blob: Descriptor,
    /// A file that is no longer what it was when it was found, if there is one: what was
    /// written is not what the step's key says, so it must not be found by that key.
    pub changed: Option<PathBuf>,
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
) -> Result<Written> {
    let small: Vec<(&Path, &Node)> = entries.values().filter_map(small_source).collect();
    if small.len() < ahead::FROM_FILES {
        return write_entries(lease, source, entries, how, None);
    }
    let ahead = Ahead::new(source, small);
    std::thread::scope(|scope| {
        for _ in 0..Ahead::threads() {
            scope.spawn(|| ahead.work());
        }
        write_entries(lease, source, entries, how, Some(InOrder::new(&ahead)))
    })
}

/// Returns the source of a file that is read ahead.
fn small_source(placed: &Placed) -> Option<(&Path, &Node)> {
    match (&placed.node, &placed.body) {
        (Node { kind: Kind::File { size }, link: None, .. }, Body::Source(from))
            if *size <= ahead::MAX_BYTES =>
        {
            Some((from, &placed.node))
        }
        _ => None,
    }
}

fn write_entries(
    lease: &Lease,
    source: &dyn Tree,
    entries: &BTreeMap<PathBuf, Placed>,
    how: &LayerWriting<'_>,
    ahead: Option<InOrder<'_>>,
) -> Result<Written> {
    let ingest = lease.ingest()?;
    let at = Path::new("the layer");
    let (writer, buffer) = (Writer::new(ingest), vec![0; BUFFER_BYTES]);
    let mut tar = Tar { writer, buffer, how, ahead, changed: None };
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
    let Tar { writer, changed, .. } = tar;
    let committed = writer.finish().doing("write", at)?.commit(None)?;
    let blob = Descriptor::new(MediaType::OCI_LAYER_TAR, committed.digest, committed.size);
    Ok(Written { diff_id: DiffId(committed.digest), blob, changed })
}

struct Tar<'a> {
    writer: Writer<store::Ingest>,
    buffer: Vec<u8>,
    how: &'a LayerWriting<'a>,
    /// The small files, in the order of the entries.
    ahead: Option<InOrder<'a>>,
    changed: Option<PathBuf>,
}

impl Tar<'_> {
    fn put(&mut self, source: &dyn Tree, path: &Path, placed: &Placed) -> Result<()> {
        let Placed { node, body, .. } = placed;
        let kind = match &node.kind {
            Kind::File { .. } => {
                let small = small_source(placed);
                let small = self.ahead.as_mut().filter(|_| small.is_some()).and_then(InOrder::next);
                return match small {
                    Some(small) => self.small(path, placed, small),
                    None => self.file(source, path, node, body),
                };
            }
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

    /// Writes a file that was read already.
    fn small(&mut self, path: &Path, placed: &Placed, small: Small) -> Result<()> {
        (self.how.check)()?;
        let Small { stamp, capability, content } = small;
        let Placed { node, body, .. } = placed;
        if let Body::Source(from) = body
            && node.stamp.is_some_and(|found| found != stamp)
        {
            self.changed.get_or_insert_with(|| from.clone());
        }
        match capability {
            None => self.header(path, content.len() as u64, node)?,
            Some(capability) => {
                let mut node = node.clone();
                node.xattrs.insert("security.capability".into(), capability);
                self.header(path, content.len() as u64, &node)?;
            }
        }
        self.writer.data(&content).doing("write", path)
    }

    fn file(&mut self, source: &dyn Tree, path: &Path, node: &Node, body: &Body) -> Result<()> {
        match body {
            Body::None => self.header(path, 0, node),
            Body::Inline(content) => {
                self.header(path, content.len() as u64, node)?;
                self.writer.data(content).doing("write", path)
            }
            Body::Slice(Slice { file, offset, sparse }) => {
                let Kind::File { size } = node.kind else { return Ok(()) };
                self.header(path, size, node)?;
                match sparse {
                    None => self.slice(file, *offset, size, path),
                    Some(segments) => self.sparse(file, *offset, size, segments, path),
                }
            }
            Body::Source(from) => {
                if let Some(content) = source.take_content(node) {
                    (self.how.check)()?;
                    return self.held(path, node, content);
                }
                let mut file = source.open(from)?;
                let stamp = context::stamp_of(&file).doing("look at", from)?;
                if node.stamp.is_some_and(|found| found != stamp) {
                    self.changed.get_or_insert_with(|| from.clone());
                }
                let size = stamp.size;
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

    /// Writes a file that was read for its digest.
    fn held(&mut self, path: &Path, node: &Node, content: HeldContent) -> Result<()> {
        let mut node = node.clone();
        if let Some(capability) = content.capability {
            node.xattrs.insert("security.capability".into(), capability);
        }
        self.header(path, content.bytes.len() as u64, &node)?;
        self.writer.data(&content.bytes).doing("write", path)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::context::{Context, Index};
    use crate::copy::{Destination, Placement, Selector, select};
    use crate::ignore::Ignore;
    use crate::tree::{Empty, Mtime};

    #[test]
    fn a_file_that_changes_after_it_was_found_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let file = dir.path().join("context/f");
        fs::write(&file, "found").unwrap();
        let index = Index::open(Path::new("/nonexistent"), 0);
        let context = Context::open(&dir.path().join("context"), Ignore::default(), index).unwrap();
        let exclude = Ignore::default();
        let selector = Selector { word: "f", parents: false, exclude: &exclude };
        let selected = select(&context, &selector).unwrap();
        let mut placement = Placement::new(&Empty, None, None, Mtime::default());
        placement.place(&selected[0], &context, &Destination::new("/f")).unwrap();
        let entries = placement.into_entries();
        let store = store::Store::open(&dir.path().join("store")).unwrap();
        let lease = store.lease().unwrap();
        let how = LayerWriting { clamp: Some(0), check: &|| Ok(()) };
        let write = || write_layer(&lease, &context, &entries, &how).unwrap();
        assert_eq!(write().changed, None);
        fs::write(&file, "other").unwrap();
        assert_eq!(write().changed, Some(PathBuf::from("f")));
    }

    /// Many small files are read ahead: the layer is that of one thread, and changes are seen.
    #[test]
    fn files_that_are_read_ahead_are_written_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("context/d");
        fs::create_dir_all(&files).unwrap();
        for number in 0..200_usize {
            let content = format!("{number} ").repeat(number * 7);
            fs::write(files.join(format!("{number:03}")), content).unwrap();
        }
        fs::write(files.join("100-large"), vec![1; 200_000]).unwrap();
        let index = Index::open(Path::new("/nonexistent"), 0);
        let context = Context::open(&dir.path().join("context"), Ignore::default(), index).unwrap();
        let exclude = Ignore::default();
        let selector = Selector { word: "d", parents: false, exclude: &exclude };
        let selected = select(&context, &selector).unwrap();
        let mut placement = Placement::new(&Empty, None, None, Mtime::default());
        placement.place(&selected[0], &context, &Destination::new("/d")).unwrap();
        let entries = placement.into_entries();
        let store = store::Store::open(&dir.path().join("store")).unwrap();
        let lease = store.lease().unwrap();
        let how = LayerWriting { clamp: Some(0), check: &|| Ok(()) };
        let ahead = write_layer(&lease, &context, &entries, &how).unwrap();
        let alone = write_entries(&lease, &context, &entries, &how, None).unwrap();
        assert_eq!((ahead.diff_id, ahead.changed), (alone.diff_id, None));

        fs::write(files.join("150"), "other").unwrap();
        let ahead = write_layer(&lease, &context, &entries, &how).unwrap();
        assert_eq!(ahead.changed, Some(PathBuf::from("d/150")));
        fs::remove_file(files.join("170")).unwrap();
        let error = write_layer(&lease, &context, &entries, &how).unwrap_err();
        assert!(error.to_string().contains("170"), "{error}");
        let stopped = LayerWriting { clamp: Some(0), check: &|| Err(Error::Cancelled) };
        assert!(write_layer(&lease, &context, &entries, &stopped).unwrap_err().is_cancelled());
    }

    #[test]
    fn a_small_file_is_read_once_for_its_digest_and_its_layer() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("context");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("small"), "read once").unwrap();
        fs::write(context.join("large"), vec![b'x'; 300 << 10]).unwrap();
        let index = Index::open(Path::new("/nonexistent"), 0);
        let context = Context::open(&context, Ignore::default(), index).unwrap();
        let exclude = Ignore::default();
        let select = |word: &str| {
            let selector = Selector { word, parents: false, exclude: &exclude };
            select(&context, &selector).unwrap()
        };
        let store = store::Store::open(&dir.path().join("store")).unwrap();
        let lease = store.lease().unwrap();
        let how = LayerWriting { clamp: Some(0), check: &|| Ok(()) };
        let write = |word: &str| {
            let selected = select(word);
            crate::copy::digest(&context, std::slice::from_ref(&selected), 2).unwrap();
            let mut placement = Placement::new(&Empty, None, None, Mtime::default());
            placement.place(&selected[0], &context, &Destination::new("/f")).unwrap();
            // Who opened it again would fail.
            fs::rename(dir.path().join("context"), dir.path().join("gone")).unwrap();
            fs::remove_file(dir.path().join("gone").join(word)).unwrap();
            fs::rename(dir.path().join("gone"), dir.path().join("context")).unwrap();
            write_layer(&lease, &context, &placement.into_entries(), &how)
        };
        let written = write("small").unwrap();
        assert_eq!(written.changed, None);
        let tar = store.blobs().read(&written.blob.digest, 1 << 20).unwrap();
        assert!(tar.windows(9).any(|window| window == b"read once"));
        assert!(matches!(write("large"), Err(Error::Io { .. })));
    }

    #[test]
    fn a_stopped_build_writes_no_layer() {
        let dir = tempfile::tempdir().unwrap();
        let store = store::Store::open(dir.path()).unwrap();
        let lease = store.lease().unwrap();
        let mut placement = Placement::new(&Empty, None, None, Mtime::default());
        let context = dir.path().join("source");
        fs::create_dir(&context).unwrap();
        fs::write(context.join("f"), "x").unwrap();
        let index = Index::open(Path::new("/nonexistent"), 0);
        let context = Context::open(&context, Ignore::default(), index).unwrap();
        let exclude = Ignore::default();
        let selector = Selector { word: "f", parents: false, exclude: &exclude };
        let selected = select(&context, &selector).unwrap();
        placement.place(&selected[0], &context, &Destination::new("/f")).unwrap();
        let how = LayerWriting { clamp: None, check: &|| Err(Error::Cancelled) };
        let error = write_layer(&lease, &context, &placement.into_entries(), &how).unwrap_err();
        assert!(error.is_cancelled());
        drop(lease);
        let ingest = store.root().ingest();
        assert_eq!(fs::read_dir(ingest).unwrap().count(), 0);
    }
}
