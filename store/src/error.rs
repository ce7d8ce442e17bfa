//! What can go wrong in the store, one variant per situation a caller could treat differently.

use std::io;
use std::path::{Path, PathBuf};

use oci::{DiffId, Digest, Platform};

use crate::layers::LayerError;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The filesystem refused an operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },

    /// The disk, or the user's share of it, is full. What was being written is discarded.
    #[error("cannot {action} {}: no space left (`rbuild prune` frees what nothing uses)", path.display())]
    StorageFull {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// What was being written.
        path: PathBuf,
        /// The system's own words: a full disk or a quota.
        source: io::Error,
    },

    /// The directory holds something that is not a store.
    #[error("{} is not a store: it holds {name:?} but no version file", path.display())]
    NotAStore {
        /// The directory that was opened.
        path: PathBuf,
        /// The first thing in it that no store has.
        name: String,
    },

    /// The version file does not hold a version.
    #[error("{} does not hold a store version but {text:?}", path.display())]
    VersionUnreadable {
        /// The version file.
        path: PathBuf,
        /// Its first bytes.
        text: String,
    },

    /// A newer program wrote this store.
    #[error(
        "the store at {} has format {found}, and this program knows formats up to {supported}: \
         use the newer program, or another --root",
        path.display()
    )]
    VersionTooNew {
        /// The root of the store.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format this program knows.
        supported: u32,
    },

    /// There is no way from the format found to the present one.
    #[error("the store at {} has format {found}, which this program cannot upgrade", path.display())]
    VersionTooOld {
        /// The root of the store.
        path: PathBuf,
        /// The format found.
        found: u32,
    },

    /// An older store cannot be upgraded while other programs use it.
    #[error("the store at {} must be upgraded, but other programs are using it: try again when they have ended", path.display())]
    UpgradeBlocked {
        /// The root of the store.
        path: PathBuf,
    },

    /// Nothing with this digest is stored.
    #[error("blob {digest} is not in the store")]
    BlobUnknown {
        /// The digest asked for.
        digest: Digest,
    },

    /// A blob is bigger than its reader is prepared to hold in memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} allowed here")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// Content is not what its name promised.
    #[error("content is {actual}, expected {expected}")]
    DigestMismatch {
        /// The digest promised.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },

    /// Content is longer or shorter than its descriptor promised.
    #[error("content of {expected_digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// The digest promised.
        expected_digest: Digest,
        /// The size promised, in bytes.
        expected: u64,
        /// The size of what came, in bytes.
        actual: u64,
    },

    /// A manifest, index or config does not say what it should.
    #[error("{digest} is not a valid {kind}")]
    Document {
        /// The blob.
        digest: Digest,
        /// What it should have been: "manifest", "image config" …
        kind: &'static str,
        /// What is wrong with it.
        source: oci::Error,
    },

    /// A manifest is well-formed but does not describe a container image.
    #[error("{digest} is not a container image: {reason}")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// Why not.
        reason: String,
    },

    /// No image has this name or ID.
    #[error("image {name} is not in the store")]
    ImageUnknown {
        /// What was asked for, as it was written.
        name: String,
    },

    /// Several images have an ID that starts like this.
    #[error("{prefix} could be any of {count} images")]
    ImageAmbiguous {
        /// The beginning of an ID that was given.
        prefix: String,
        /// How many images it fits.
        count: usize,
    },

    /// An image cannot be removed because several names lead to it.
    #[error("image {id} has {count} names: remove them one by one, or force it")]
    ImageHasNames {
        /// The image ID, short.
        id: String,
        /// How many names it has.
        count: usize,
    },

    /// An image cannot be removed because a container was made from it.
    #[error("image {name} is used by container {container}")]
    ImageInUse {
        /// What was to be removed.
        name: String,
        /// One of the containers that use it.
        container: String,
    },

    /// An image exists, but not for the platform wanted.
    #[error("there is no image for {wanted}, only for {available}")]
    PlatformUnavailable {
        /// The platform wanted.
        wanted: Box<Platform>,
        /// The platforms there are, for people.
        available: String,
    },

    /// A text that should name an image does not.
    #[error("{text:?} is not an image name")]
    InvalidName {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: oci::Error,
    },

    /// A layer's tar, or what was unpacked from it, cannot be used.
    #[error("layer {diff_id} is unusable")]
    Layer {
        /// The layer.
        diff_id: DiffId,
        /// What is wrong with it.
        source: Box<LayerError>,
    },

    /// A layer is needed unpacked, and is not.
    #[error("layer {diff_id} is not unpacked")]
    LayerMissing {
        /// The layer.
        diff_id: DiffId,
    },

    /// Changed files, or files to be copied, cannot be a layer.
    #[error("cannot make a layer")]
    LayerInvalid {
        /// Why not.
        source: Box<LayerError>,
    },

    /// An image archive cannot be read.
    #[error("not a usable image archive: {reason}")]
    Archive {
        /// What is wrong with it.
        reason: String,
    },

    /// The tar of an image archive is damaged.
    #[error("not a usable image archive")]
    ArchiveTar {
        /// What is wrong with it.
        source: Box<LayerError>,
    },

    /// A file of the store's own does not parse.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<Error> for io::Error {
    /// Wraps an error that has to pass through `Read` or `Write`. When it comes out again, and is
    /// given a context, it is itself again: see `IoContext::doing`.
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } | Error::StorageFull { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Attaches "did what, to which path" to an [`io::Error`].
pub(crate) trait IoContext<T> {
    /// Completes "cannot {action} {path}".
    fn doing(self, action: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn doing(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| match source.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => {
                let path = path.as_ref().to_owned();
                match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        Error::StorageFull { action, path, source }
                    }
                    _ => Error::Io { action, path, source },
                }
            }
        })
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn doing(self, action: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(io::Error::from).doing(action, path)
    }
}
