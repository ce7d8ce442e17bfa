//! The walk over a directory that writes its tar.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::CString,
    io::{Read as _, Write},
    path::Path,
};

use rustix::fs::{FileType, Stat};

use super::{adjust, same};
use crate::layers::{
    dir::{Dir, OPAQUE_XATTR, is, is_whiteout, metadata_of, names},
    entry::{Entry, Kind, Metadata, Xattrs, is_image_xattr},
    error::{EntryContext as _, LayerError, LayerResult},
    index::LayerIndex,
    path::{MAX_PATH_BYTES, OPAQUE_NAME, WHITEOUT_PREFIX, display, exact, join, split},
    tar::Writer,
    view::{MergedView, Node, kind_of},
};

/// How deep directories may lie. The kernel's limit on paths allows little more, and each level
/// costs some stack.
const MAX_DEPTH: usize = 1024;
/// Below this depth, directories are opened again after each child rather than kept open.
const KEPT_OPEN: usize = 64;
/// How much of a file is read at once: large enough that system calls do not count.
const BUFFER_BYTES: usize = 256 * 1024;

/// What becomes of the directory that is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It stays as it is.
    Read,
    /// It is made equal to what unpacking the tar would give: what is left out is removed.
    Adjust,
}

/// What was packed.
#[derive(Debug)]
pub(crate) struct Packed<W> {
    /// The output, at the end of the tar.
    pub(crate) output: W,
    /// What unpacking the tar would note about it.
    pub(crate) index: LayerIndex,
    /// Whether nothing changed.
    pub(crate) is_empty: bool,
}

/// Writes a directory as a tar, the same bytes for the same content: for export and test data.
///
/// `clamp` is the latest time to write, in seconds since 1970.
///
/// # Errors
///
/// Fails if the directory cannot be read or the output not written.
pub fn tar_dir(directory: &Path, clamp: Option<i64>, output: impl Write) -> Result<(), LayerError> {
    let nothing = MergedView::open(&[]).map_err(LayerError::Read)?;
    let stubs: [&Path; 0] = [];
    pack(directory, &nothing, &stubs, clamp, Mode::Read, output).map(drop)
}

/// Writes what `directory` changes of `lower` as a tar.
///
/// `stubs` are paths of files and directories that were made to mount something on: where they are
/// still new and empty, they are left out.
pub(crate) fn pack<W: Write>(
    directory: &Path,
    lower: &MergedView,
    stubs: &[impl AsRef<Path>],
    clamp: Option<i64>,
    mode: Mode,
    output: W,
) -> LayerResult<Packed<W>> {
    let root = Dir::open(directory).entry("open", b"the changed files")?;
    let mut packer = Packer {
        root,
        lower,
        stubs: stubs.iter().map(|path| exact(path.as_ref())).collect(),
        clamp,
        mode,
        writer: Writer::new(output),
        waiting: Vec::new(),
        links: BTreeMap::new(),
        index: LayerIndex::default(),
        is_empty: true,
        buffer: vec![0; BUFFER_BYTES],
    };
    packer.pack_root()?;
    packer.index.whiteouts.sort_unstable();
    let output = packer.writer.finish().map_err(LayerError::Write)?;
    Ok(Packed { output, index: packer.index, is_empty: packer.is_empty })
}

struct Packer<'a, W> {
    root: Dir,
    lower: &'a MergedView,
    stubs: BTreeSet<Vec<u8>>,
    clamp: Option<i64>,
    mode: Mode,
    writer: Writer<W>,
    /// Unchanged directories on the way to where we are: written when something in them is.
    waiting: Vec<Entry>,
    /// Files with several names, by file system and number, and their first name.
    links: BTreeMap<(u64, u64), Vec<u8>>,
    index: LayerIndex,
    is_empty: bool,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<'_, W> {
    fn pack_root(&mut self) -> LayerResult<()> {
        let stat = self.root.stat(b".").entry("read", b"")?;
        let stat = stat.ok_or_else(|| missing(b""))?;
        let metadata = self.root.metadata(b".", &stat).entry("read", b"")?;
        // A directory that stands for nothing below has no root to compare with.
        let lower = (!self.lower.is_empty()).then(|| self.node(b"")).transpose()?.flatten();
        let is_changed = lower.is_some_and(|lower| !same::attributes(&lower.metadata, &metadata));
        if is_changed {
            let kind = Kind::Directory;
            self.write(Entry { path: b"./".to_vec(), kind, metadata: metadata.clone() })?;
        } else {
            self.index.implied.push(Vec::new());
        }
        self.children(b"", true, 0)?;
        if self.mode == Mode::Adjust {
            let mtime = metadata.mtime.in_tar(self.clamp);
            let root = if is_changed {
                Metadata { mtime, ..metadata }
            } else {
                Metadata::implied_directory()
            };
            adjust::root(&self.root, &root).entry("set the metadata of", b"")?;
        }
        Ok(())
    }

    /// Packs what is in a directory; `is_lower_seen` says whether lower layers show through it.
    fn children(&mut self, path: &[u8], is_lower_seen: bool, depth: usize) -> LayerResult<()> {
        if depth > MAX_DEPTH {
            let reason = "directories are nested too deeply";
            return Err(LayerError::Path { path: display(path), reason });
        }
        let mut open = Some(self.root.readable_beneath(path).entry("open", path)?);
        let names = open.as_ref().map(names).transpose().entry("list", path)?.unwrap_or_default();
        for name in &names {
            let name = CString::as_bytes(name);
            let child = join(path, name);
            if child.len() > MAX_PATH_BYTES {
                let reason = "the path is longer than 4095 bytes";
                return Err(LayerError::Path { path: display(path), reason });
            }
            let dir = match open.take() {
                Some(dir) => dir,
                None => self.root.readable_beneath(path).entry("open", path)?,
            };
            let stat = dir.stat(name).entry("read", &child)?.ok_or_else(|| missing(&child))?;
            if !is(&stat, FileType::Directory) {
                self.other(&dir, &child, &stat, is_lower_seen)?;
                open = Some(dir);
                continue;
            }
            let xattrs = dir.xattrs(name).entry("read the attributes of", &child)?;
            open = (depth < KEPT_OPEN).then_some(dir);
            self.directory(&child, &stat, &xattrs, is_lower_seen, depth + 1)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &[u8],
        stat: &Stat,
        xattrs: &Xattrs,
        is_lower_seen: bool,
        depth: usize,
    ) -> LayerResult<()> {
        refuse_references(path, xattrs)?;
        let is_opaque = xattrs.get(OPAQUE_XATTR.as_bytes()).is_some_and(|value| value == b"y");
        let lower = if is_lower_seen { self.node(path)? } else { None };
        let lower = lower.filter(|node| node.kind == Kind::Directory);
        let hides = is_opaque && lower.is_some() && self.lower_has_entries(path)?;
        let metadata = Metadata { xattrs: image_xattrs(xattrs), ..metadata_of(stat) };
        let is_changed = match &lower {
            Some(lower) => hides || !same::attributes(&lower.metadata, &metadata),
            // A place to mount on counts when something is in it.
            None => !self.stubs.contains(path),
        };
        let entry =
            Entry { path: join(path, b""), kind: Kind::Directory, metadata: metadata.clone() };
        self.waiting.push(entry);
        if is_changed {
            self.write_waiting()?;
        }
        if hides {
            self.write(marker(join(path, OPAQUE_NAME)))?;
        }
        self.children(path, lower.is_some() && !is_opaque, depth)?;
        if self.waiting.pop().is_some() {
            return self.leave_out(path, true);
        }
        if self.mode == Mode::Adjust {
            let metadata = Metadata { mtime: metadata.mtime.in_tar(self.clamp), ..metadata };
            adjust::directory(&self.root, path, &metadata, xattrs, hides)
                .entry("set the metadata of", path)?;
        }
        Ok(())
    }

    /// Packs anything but a directory.
    fn other(
        &mut self,
        dir: &Dir,
        path: &[u8],
        stat: &Stat,
        is_lower_seen: bool,
    ) -> LayerResult<()> {
        let (parent, name) = split(path);
        let lower = if is_lower_seen { self.node(path)? } else { None };
        if is_whiteout(stat) {
            if lower.is_none() {
                return self.leave_out(path, false);
            }
            self.index.whiteouts.push(path.to_vec());
            return self.write(marker(join(parent, &[WHITEOUT_PREFIX, name].concat())));
        }
        if is(stat, FileType::Socket) {
            return self.leave_out(path, false);
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            let reason = "names that start with `.wh.` are reserved for deletions in layers";
            return Err(LayerError::Path { path: display(path), reason });
        }
        let xattrs = dir.xattrs(name).entry("read the attributes of", path)?;
        refuse_references(path, &xattrs)?;
        let metadata = Metadata { xattrs: image_xattrs(&xattrs), ..metadata_of(stat) };
        let kind = kind_of(dir, name, stat).entry("read", path)?;
        if let Some(lower) = &lower
            && stat.st_nlink == 1
            && self.is_unchanged(lower, dir, path, &kind, &metadata)?
        {
            return self.leave_out(path, false);
        }
        if lower.is_none() && kind == (Kind::File { size: 0 }) && self.stubs.contains(path) {
            return self.leave_out(path, false);
        }
        let first = self.first_name(path, stat);
        let kind = match &first {
            Some(target) => Kind::HardLink { target: target.clone() },
            None => kind,
        };
        let size = if let Kind::File { size } = kind { Some(size) } else { None };
        self.write(Entry { path: path.to_vec(), kind, metadata: metadata.clone() })?;
        if let Some(size) = size {
            self.write_content(dir, path, size)?;
        }
        if self.mode == Mode::Adjust && first.is_none() {
            let mtime = metadata.mtime.in_tar(self.clamp);
            adjust::other(dir, name, metadata.mtime, mtime, &xattrs)
                .entry("set the metadata of", path)?;
        }
        Ok(())
    }

    fn is_unchanged(
        &self,
        lower: &Node,
        dir: &Dir,
        path: &[u8],
        kind: &Kind,
        metadata: &Metadata,
    ) -> LayerResult<bool> {
        if lower.kind != *kind || lower.metadata != *metadata {
            return Ok(false);
        }
        if let Kind::File { .. } = kind {
            let missing = || LayerError::Read(std::io::ErrorKind::NotFound.into());
            let below = self.lower.open_file(&display(path)).entry("read", path)?;
            let file = dir.open_file(split(path).1).entry("read", path)?;
            return same::content(file, below.ok_or_else(missing)?).entry("read", path);
        }
        Ok(true)
    }

    /// The first name of a file that was written before under another.
    fn first_name(&mut self, path: &[u8], stat: &Stat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
        (first != path).then(|| first.clone())
    }

    fn node(&self, path: &[u8]) -> LayerResult<Option<Node>> {
        self.lower.lstat(&display(path)).entry("read", path)
    }

    fn lower_has_entries(&self, path: &[u8]) -> LayerResult<bool> {
        let names = self.lower.list(&display(path)).entry("list", path)?;
        Ok(names.is_some_and(|names| !names.is_empty()))
    }

    /// Leaves something out of the layer: for one whose directory is to be it, it goes away.
    fn leave_out(&self, path: &[u8], is_directory: bool) -> LayerResult<()> {
        match self.mode {
            Mode::Read => Ok(()),
            Mode::Adjust => adjust::remove(&self.root, path, is_directory).entry("remove", path),
        }
    }

    fn write_waiting(&mut self) -> LayerResult<()> {
        for mut entry in std::mem::take(&mut self.waiting) {
            entry.metadata.mtime = entry.metadata.mtime.in_tar(self.clamp);
            self.writer.entry(&entry).map_err(LayerError::Write)?;
            self.is_empty = false;
        }
        Ok(())
    }

    fn write(&mut self, mut entry: Entry) -> LayerResult<()> {
        self.write_waiting()?;
        self.is_empty = false;
        entry.metadata.mtime = entry.metadata.mtime.in_tar(self.clamp);
        self.writer.entry(&entry).map_err(LayerError::Write)
    }

    fn write_content(&mut self, dir: &Dir, path: &[u8], size: u64) -> LayerResult<()> {
        if size == 0 {
            return Ok(());
        }
        let mut file = dir.open_file(split(path).1).entry("open", path)?;
        loop {
            let bytes = file.read(&mut self.buffer).entry("read", path)?;
            if bytes == 0 {
                return Ok(());
            }
            self.writer.data(&self.buffer[..bytes]).map_err(LayerError::Write)?;
        }
    }
}

/// An empty file whose name says something about lower layers. Its metadata means nothing and is
/// what containerd writes.
fn marker(path: Vec<u8>) -> Entry {
    Entry { path, kind: Kind::File { size: 0 }, metadata: Metadata::default() }
}

fn image_xattrs(xattrs: &Xattrs) -> Xattrs {
    let kept = xattrs.iter().filter(|(name, _)| is_image_xattr(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Refuses what only means something together with the layers it was made on. The sandbox mounts
/// without these features.
fn refuse_references(path: &[u8], xattrs: &Xattrs) -> LayerResult<()> {
    for name in [&b"user.overlay.redirect"[..], b"user.overlay.metacopy"] {
        if xattrs.contains_key(name) {
            let reason = "overlayfs refers to a lower layer here (redirect_dir or metacopy is on)";
            return Err(LayerError::Path { path: display(path), reason });
        }
    }
    Ok(())
}

fn missing(path: &[u8]) -> LayerError {
    let source = std::io::ErrorKind::NotFound.into();
    LayerError::Entry { action: "read", path: display(path), source }
}
