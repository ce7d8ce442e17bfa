//! Makes a layer entry by entry, without a directory: for COPY and ADD.

use std::{collections::BTreeSet, io::Read, path::Path};

use super::{
    active::{Layer, LayerOptions, commit, invalid},
    entry::{Entry, Kind, Metadata},
    error::{LayerError, LayerResult},
    path::{self, Naming, OPAQUE_NAME, WHITEOUT_PREFIX, display, exact, join, split},
    tar::Writer,
};
use crate::{Ingest, Lease, error::Result};

/// How much of a file is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes a layer's tar from entries, hashing and storing it on the way.
///
/// Entries are written in the order in which they come: for the same bytes every time, the caller
/// gives them sorted, parents first. Nothing is unpacked; where a later step must see the files,
/// [`Lease::unpack`] does it then. Dropping the writer discards everything.
#[derive(Debug)]
pub struct LayerWriter {
    writer: Writer<Ingest>,
    clamp: Option<i64>,
    /// What was written, to refuse what a reader would read differently: two entries of one path.
    written: BTreeSet<Vec<u8>>,
    buffer: Vec<u8>,
}

impl LayerWriter {
    /// Starts a layer; of the options only the times matter here.
    ///
    /// # Errors
    ///
    /// Fails if the blob cannot be created.
    pub fn new(lease: &Lease, options: &LayerOptions) -> Result<Self> {
        let writer = Writer::new(lease.ingest()?);
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Self { writer, clamp: options.clamp, written: BTreeSet::new(), buffer })
    }

    /// Adds an entry without content: a directory, a link, a device or a fifo. The empty path is the
    /// root.
    ///
    /// # Errors
    ///
    /// Refuses paths that leave the root, that were written before, or have a name that starts with
    /// `.wh.`; fails if the blob cannot be written.
    pub fn add(&mut self, path: &Path, kind: Kind, metadata: &Metadata) -> Result<()> {
        self.entry(path, kind, metadata).map_err(invalid)
    }

    /// Adds a file of exactly `size` bytes.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), and if the content cannot be read or has another size.
    pub fn add_file(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<()> {
        self.file(path, metadata, size, content).map_err(invalid)
    }

    /// Hides what lower layers have at a path.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_whiteout(&mut self, path: &Path) -> Result<()> {
        let hidden = exact(path);
        let (parent, name) = split(&hidden);
        self.marker(join(parent, &[WHITEOUT_PREFIX, name].concat())).map_err(invalid)
    }

    /// Hides what lower layers have in a directory.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add).
    pub fn add_opaque(&mut self, directory: &Path) -> Result<()> {
        self.marker(join(&exact(directory), OPAQUE_NAME)).map_err(invalid)
    }

    /// Stores the layer.
    ///
    /// # Errors
    ///
    /// Fails if the blob cannot be written.
    pub fn finish(self) -> Result<Layer> {
        let is_empty = self.written.is_empty();
        let ingest = self.writer.finish().map_err(|error| invalid(LayerError::Write(error)))?;
        commit(ingest, is_empty)
    }

    fn file(
        &mut self,
        path: &Path,
        metadata: &Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> LayerResult<()> {
        self.entry(path, Kind::File { size }, metadata)?;
        let failed = |source| LayerError::Entry { action: "read", path: path.to_owned(), source };
        loop {
            let bytes = content.read(&mut self.buffer).map_err(failed)?;
            if bytes == 0 {
                return Ok(());
            }
            self.writer.data(&self.buffer[..bytes]).map_err(LayerError::Write)?;
        }
    }

    fn entry(&mut self, path: &Path, kind: Kind, metadata: &Metadata) -> LayerResult<()> {
        let refuse = |reason| Err(LayerError::Path { path: path.to_owned(), reason });
        let Naming::Plain(mut clean) = path::classify(path.as_os_str().as_encoded_bytes())? else {
            return refuse("names that start with `.wh.` are reserved for deletions in layers");
        };
        match (&kind, clean.is_empty()) {
            (Kind::Directory, true) => clean.push(b'.'),
            (_, true) => return refuse("the root of a layer must be a directory"),
            (Kind::CharDevice { major: 0, minor: 0 }, false) => {
                return refuse("the character device 0/0 is how overlayfs marks a deletion");
            }
            _ => {}
        }
        self.refuse_repetition(&clean)?;
        if kind == Kind::Directory {
            clean.push(b'/');
        }
        self.write(&Entry { path: clean, kind, metadata: metadata.clone() })
    }

    fn marker(&mut self, path: Vec<u8>) -> LayerResult<()> {
        if matches!(path::classify(&path)?, Naming::Plain(_) | Naming::Ignored) {
            let reason = "nothing can be hidden there";
            return Err(LayerError::Path { path: display(&path), reason });
        }
        self.refuse_repetition(&path)?;
        self.write(&Entry { path, kind: Kind::File { size: 0 }, metadata: Metadata::default() })
    }

    fn refuse_repetition(&mut self, path: &[u8]) -> LayerResult<()> {
        if !self.written.insert(path.to_vec()) {
            let reason = "it is in the layer already";
            return Err(LayerError::Path { path: display(path), reason });
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> LayerResult<()> {
        let mut entry = entry.clone();
        entry.metadata.mtime = entry.metadata.mtime.in_tar(self.clamp);
        self.writer.entry(&entry).map_err(LayerError::Write)
    }
}
