//! A snapshot with a writable top, and what becomes of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use oci::{Descriptor, DiffId, MediaType};

use super::{
    dir::{Dir, set_metadata},
    entry::Metadata,
    error::LayerError,
    pack::{Mode, pack},
    place::{self, TREE},
    snapshot::Snapshot,
};
use crate::{
    Ingest, Lease,
    error::{Error, IoContext as _, Result},
};

/// How a layer is written.
#[derive(Clone, Debug, Default)]
pub struct LayerOptions {
    /// The latest time to write, in seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub clamp: Option<i64>,
    /// Paths that were made only to mount something on. Where they are still new and empty, they are
    /// not part of the layer.
    pub stubs: Vec<PathBuf>,
}

/// A layer that was just made and is stored as an uncompressed tar.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its identity.
    pub diff_id: DiffId,
    /// The stored blob: the plain tar, whose digest is the diff id.
    pub descriptor: Descriptor,
    /// Whether it changes nothing.
    pub is_empty: bool,
}

/// A snapshot with a writable top. Dropping it discards the changes.
#[derive(Debug)]
pub struct Active {
    lease: Lease,
    snapshot: Snapshot,
    directory: PathBuf,
}

impl Lease {
    /// Makes the directories for a writable file system on top of a snapshot.
    ///
    /// # Errors
    ///
    /// Fails if they cannot be created.
    pub fn active(&self, snapshot: &Snapshot) -> Result<Active> {
        let directory = self.scratch("active")?;
        let active = Active { lease: self.clone(), snapshot: snapshot.clone(), directory };
        prepare_upper(&active.directory, snapshot)?;
        Ok(active)
    }
}

impl Lease {
    /// Stores what a directory in overlay form changes of a snapshot as a layer. The directory is
    /// only read, and may be in use: a file that changes meanwhile is an error.
    ///
    /// # Errors
    ///
    /// As [`Active::into_layer`].
    pub fn layer_of(
        &self,
        upper: &Path,
        snapshot: &Snapshot,
        options: &LayerOptions,
    ) -> Result<Layer> {
        let LayerOptions { clamp, stubs } = options;
        let (view, ingest) = (snapshot.view()?, self.ingest()?);
        let packed = pack(upper, view, stubs, *clamp, Mode::Read, ingest).map_err(invalid)?;
        commit(packed.output, packed.is_empty)
    }
}

/// Makes `upper` and `work` in `directory`, which exists, for a writable file system on top of a
/// snapshot; for containers, whose directory is not a lease's.
///
/// # Errors
///
/// Fails if they cannot be created.
pub fn prepare_upper(directory: &Path, snapshot: &Snapshot) -> Result<()> {
    let upper = directory.join("upper");
    for path in [&upper, &directory.join("work")] {
        fs::create_dir(path).doing("create", path)?;
    }
    // The root of an overlay looks like its topmost directory: it must look like the one below.
    let metadata = snapshot.root_metadata()?;
    let dir = Dir::open(&upper).and_then(|dir| dir.child_readable(b""));
    dir.and_then(|dir| set_metadata(dir, &metadata)).doing("set the metadata of", &upper)
}

impl Active {
    /// The directory that takes the changes.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    /// The directory overlayfs works in.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    /// The directories below, from the top.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        self.snapshot.lowers()
    }

    /// The snapshot below.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Stores the changes as a layer. Only the changes are read, once; their directory then becomes
    /// the unpacked layer itself. Nothing may be mounted on it any more.
    ///
    /// # Errors
    ///
    /// Fails if the changes cannot be a layer, such as a file whose name starts with `.wh.`, and if
    /// something cannot be read or written.
    pub fn into_layer(self, options: &LayerOptions) -> Result<Layer> {
        let upper = self.upper();
        let ingest = self.lease.ingest()?;
        let LayerOptions { clamp, stubs } = options;
        let view = self.snapshot.view()?;
        let packed = pack(&upper, view, stubs, *clamp, Mode::Adjust, ingest).map_err(invalid)?;
        let layer = commit(packed.output, packed.is_empty)?;
        let made = self.directory.join("layer");
        fs::create_dir(&made).doing("create", &made)?;
        fs::rename(&upper, made.join(TREE)).doing("rename", &upper)?;
        place::place_layer(self.lease.store(), &made, &packed.index, layer.diff_id)?;
        Ok(layer)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // What cannot be removed now is removed by gc when the lease has ended.
        self.lease.discard(&self.directory);
    }
}

impl Snapshot {
    /// The metadata of the root directory.
    pub(crate) fn root_metadata(&self) -> Result<Metadata> {
        let Some(top) = self.lowers().first() else { return Ok(Metadata::implied_directory()) };
        let read = || {
            let dir = Dir::open(top)?;
            let stat = dir.stat(b".")?.ok_or(std::io::ErrorKind::NotFound)?;
            dir.metadata(b".", &stat)
        };
        read().doing("read the metadata of", top)
    }
}

/// Stores a finished tar.
pub(super) fn commit(ingest: Ingest, is_empty: bool) -> Result<Layer> {
    let committed = ingest.commit(None)?;
    let descriptor = Descriptor::new(MediaType::OCI_LAYER_TAR, committed.digest, committed.size);
    Ok(Layer { diff_id: DiffId(committed.digest), descriptor, is_empty })
}

/// Whether an error came from the store, through a stream.
pub(super) fn is_ours(inner: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    inner.is::<Error>()
}

/// Says that a layer cannot be made; what the store said through the stream is itself again.
pub(super) fn invalid(error: LayerError) -> Error {
    match error {
        LayerError::Write(source) if source.get_ref().is_some_and(is_ours) => {
            source.downcast::<Error>().expect("it was looked at just before")
        }
        error => Error::LayerInvalid { source: Box::new(error) },
    }
}
