//! The seam between the registry and whatever keeps its bytes.
//!
//! Everything the registry knows lives behind [`Storage`], whose operations are
//! those that a bucket has as well: small records under sorted keys, written
//! once or replaced whole; blobs named by their digest; uploads that any
//! replica can continue. Nothing is read, changed and written back, and no lock
//! outlives one request, so any number of processes can share one storage.
//!
//! # Layout
//!
//! ```text
//! blob/<alg>/<hh>/<hex>/data                    the bytes (hh: first two digits), or the list of them
//! blob/<alg>/<hh>/<hex>/<a:b>!/own              repository a/b may read the blob
//! blob/<alg>/<hh>/<hex>/<a:b>!/pin-<alg>-<hex>  … and this manifest of a/b needs it
//! blob/<alg>/<hh>/<hex>/<a:b>!/seen             somebody was told of late that a/b has it
//! repo/<a/b>!m/<alg>/<hex>                      manifest: one line of JSON, then its body
//! repo/<a/b>!t/<tag>                            tag → digest, replaced whole
//! repo/<a/b>!mt/<alg>-<hex>/<tag>               hint: the tag once named this manifest
//! repo/<a/b>!r/<alg>-<hex>/<alg>-<hex>          subject → finished descriptor of a referrer
//! repo/<a/b>!s/<alg>-<hex>                      somebody was told of late that the manifest is there
//! cat/<a/b>!                                    the repository exists
//! gc/<uuid>                                     what a collector is looking at
//! up/<uuid>/                                    an upload in progress
//! ```
//!
//! `!` and `:` occur in no repository name, so keys cannot collide, `a` and
//! `a/b` can coexist, and (`!` sorting below every character of a name) keys
//! sort as names do. A blob's owners and pins stand beside its bytes: one
//! sorted listing tells a collector all it must know about each blob.
//!
//! # Invariants
//!
//! - Bytes appear under `blob/…/data` only whole, hashed and synced.
//! - What a call has written is durable when the call returns.
//! - Commit order of a blob: data, then `own`. Of a manifest: pins, then the
//!   check that what it names is there, then referrer entry and manifest, then
//!   tag hints, then tags. A crash at any point leaves pins too many or bytes
//!   that nobody names; never a name without its content.
//! - A mark that is written again is as young as a new one: its age protects
//!   what somebody relies on from a collector.

mod bucket;
mod key;
mod listed;
mod local;

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use oci::Digest;

pub use bucket::{Bucket, BucketWriter, Promises, Redirect, Segments};
pub use key::{Key, MAX_REPOSITORY_BYTES, Prefix, UploadId};
pub use listed::{Mark, Record};
pub use local::{Local, LocalWriter};

/// The result of a storage operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a storage refused an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store has no room left. Nothing was half-written.
    #[error("cannot {action} {place}: no space left")]
    Full {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The key or path concerned.
        place: String,
    },
    /// Another request is writing to the same upload.
    #[error("another request is writing to upload {id}")]
    Busy {
        /// The upload.
        id: UploadId,
    },
    /// The storage was written by a newer version, or is something else.
    #[error("{place} is not a storage this version can use: {reason}")]
    Format {
        /// The root of the storage.
        place: String,
        /// What was found.
        reason: String,
    },
    /// The store failed.
    #[error("cannot {action} {place}")]
    Io {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// The key or path concerned.
        place: String,
        /// What the store said.
        source: io::Error,
    },
}

impl Error {
    /// Says what failed on what, and tells a full store from a broken one.
    pub fn from_io(action: &'static str, place: impl Into<String>, source: io::Error) -> Self {
        let place = place.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { action, place }
            }
            _ => Self::Io { action, place, source },
        }
    }
}

/// Tells two versions of a record apart: equal stamps mean the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Tells versions of the same moment apart.
    pub version: u64,
    /// When the record was written, by the store's clock, in nanoseconds since
    /// 1970.
    pub written_ns: i128,
}

impl Stamp {
    /// Returns when the record was written, in seconds since 1970.
    #[must_use]
    pub fn written_s(&self) -> u64 {
        u64::try_from(self.written_ns / 1_000_000_000).unwrap_or(0)
    }
}

/// Content that belongs to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stray {
    /// How many objects.
    pub count: u64,
    /// How long they are together.
    pub bytes: u64,
}

/// The content of a blob, opened for reading.
///
/// It stays readable while it is held, whatever happens to the blob's name.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Where the bytes are.
    pub content: Content,
    /// How many there are.
    pub size: u64,
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In a file, which the kernel can send.
    File(Arc<File>),
    /// In a bucket, from where they are streamed.
    Segments(Segments),
}

/// An upload that one request has opened for writing.
#[derive(Debug)]
pub struct Opened<W> {
    /// What [`Writer::save`] stored last, or the record the upload began with.
    pub record: Bytes,
    /// How many bytes the store holds; more than the record knows after a crash.
    pub size: u64,
    /// Where bytes go.
    pub writer: W,
}

/// A place that keeps records, blobs and uploads.
///
/// Implementations are shared by all requests of a process and by all replicas
/// of the registry; see the module's invariants.
pub trait Storage: Send + Sync + 'static {
    /// An upload opened for writing.
    type Writer: Writer;

    /// Returns a record, or `None` where there is none.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, key: &Key) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Returns the stamp of a record without reading it.
    ///
    /// # Errors
    /// When the store fails.
    fn stamp(&self, key: &Key) -> impl Future<Output = Result<Option<Stamp>>> + Send;

    /// Writes a record, replacing what was there.
    ///
    /// # Errors
    /// When the store fails or is full; the old record is then still there.
    fn put(&self, key: &Key, value: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Writes a record unless there is one, and returns whether it did.
    ///
    /// # Errors
    /// When the store fails or is full.
    fn put_new(&self, key: &Key, value: Bytes) -> impl Future<Output = Result<bool>> + Send;

    /// Writes empty records; those that exist are as young as new ones afterwards.
    ///
    /// # Errors
    /// When the store fails or is full; some may then have been written.
    fn mark(&self, keys: Vec<Key>) -> impl Future<Output = Result<()>> + Send;

    /// Removes a record, and returns whether there was one.
    ///
    /// # Errors
    /// When the store fails.
    fn delete(&self, key: &Key) -> impl Future<Output = Result<bool>> + Send;

    /// Removes a record if it is still `expected`, and returns whether it did.
    ///
    /// A record that somebody replaces meanwhile is kept; it may be missing for
    /// readers during the call.
    ///
    /// # Errors
    /// When the store fails.
    fn delete_if(&self, key: &Key, expected: Bytes) -> impl Future<Output = Result<bool>> + Send;

    /// Returns up to `limit` keys below `prefix` in byte order, without the
    /// prefix, starting after `after`.
    ///
    /// # Errors
    /// When the store fails.
    fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Opens a blob, or returns `None` where the store does not have it.
    ///
    /// # Errors
    /// When the store fails.
    fn blob(&self, digest: &Digest) -> impl Future<Output = Result<Option<Blob>>> + Send;

    /// Removes the bytes of a blob, and returns whether they were there.
    ///
    /// # Errors
    /// When the store fails.
    fn remove_blob(&self, digest: &Digest) -> impl Future<Output = Result<bool>> + Send;

    /// Begins an upload with its first record.
    ///
    /// # Errors
    /// When the store fails or is full.
    fn begin_upload(&self, id: &UploadId, record: Bytes)
    -> impl Future<Output = Result<()>> + Send;

    /// Returns the record and the size of an upload without opening it.
    ///
    /// # Errors
    /// When the store fails.
    fn peek_upload(
        &self,
        id: &UploadId,
    ) -> impl Future<Output = Result<Option<(Bytes, u64)>>> + Send;

    /// Opens an upload for this request alone.
    ///
    /// # Errors
    /// [`Error::Busy`] while another request, here or in another process, has it
    /// open; else when the store fails.
    fn open_upload(
        &self,
        id: &UploadId,
    ) -> impl Future<Output = Result<Option<Opened<Self::Writer>>>> + Send;

    /// Returns the uploads in progress, in no order.
    ///
    /// # Errors
    /// When the store fails.
    fn uploads(&self) -> impl Future<Output = Result<Vec<UploadId>>> + Send;

    /// Removes what crashed requests left behind, other than uploads.
    ///
    /// # Errors
    /// When the store fails.
    fn sweep(&self) -> impl Future<Output = Result<()>> + Send;

    /// Removes content written before `written_before_s` (in seconds since 1970)
    /// that belongs to no blob and no upload, unless `dry_run`, and returns how
    /// much that is.
    ///
    /// # Errors
    /// When the store fails.
    fn sweep_strays(
        &self,
        written_before_s: u64,
        dry_run: bool,
    ) -> impl Future<Output = Result<Stray>> + Send;
}

/// An upload opened for writing; dropping it closes the upload and keeps it.
pub trait Writer: Send + Sync + 'static {
    /// After how many bytes of one request the record is to be saved, so that a
    /// crash costs no more than these.
    const CHECKPOINT_BYTES: u64;

    /// Writes `chunks` at `offset`, cutting off what was stored beyond.
    ///
    /// The bytes need not be durable before [`Writer::commit`].
    ///
    /// # Errors
    /// When the store fails or is full.
    fn write(&mut self, offset: u64, chunks: &[Bytes]) -> impl Future<Output = Result<()>> + Send;

    /// Replaces the upload's record.
    ///
    /// # Errors
    /// When the store fails or is full.
    fn save(&mut self, record: Bytes) -> impl Future<Output = Result<()>> + Send;

    /// Opens the first `size` bytes written so far for reading.
    ///
    /// # Errors
    /// When the store fails.
    fn content(&mut self, size: u64) -> impl Future<Output = Result<Blob>> + Send;

    /// Makes the first `size` bytes the blob `digest`; the upload goes on.
    ///
    /// The caller has made sure that the bytes hash to `digest`. Where the blob
    /// exists already, the upload keeps its bytes: after a collector has removed
    /// that blob, publishing again brings it back.
    ///
    /// # Errors
    /// When the store fails or is full; the upload is then still there.
    fn publish(&mut self, digest: &Digest, size: u64) -> impl Future<Output = Result<()>> + Send;

    /// Ends an upload that was published, and drops bytes that the blob did not
    /// need.
    ///
    /// # Errors
    /// When the store fails.
    fn end(self) -> impl Future<Output = Result<()>> + Send;

    /// Turns the first `size` bytes into the blob `digest` and ends the upload.
    ///
    /// # Errors
    /// As [`Writer::publish`] and [`Writer::end`].
    fn commit(mut self, digest: &Digest, size: u64) -> impl Future<Output = Result<()>> + Send
    where
        Self: Sized,
    {
        async move {
            self.publish(digest, size).await?;
            self.end().await
        }
    }

    /// Ends the upload and drops its bytes.
    ///
    /// # Errors
    /// When the store fails.
    fn discard(self) -> impl Future<Output = Result<()>> + Send;
}
