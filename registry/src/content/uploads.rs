//! Uploads: bytes come in, are hashed and stored at the same time, and become a
//! blob once they are what their digest promises.
//!
//! ```text
//! connection ─► batch k+1        (the connection's task)
//!               batch k ─► hash  (a blocking thread)
//!                       └► store (another)
//! ```
//!
//! One batch is received while the one before it is hashed and written; an
//! upload holds two batches and no more, and all uploads share a [`Budget`].
//!
//! An upload's record holds its offset and hash state. Requests that end in the
//! middle leave both as far as they came; a process that dies leaves the last
//! checkpoint, and what was stored beyond it is cut off on resume.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use oci::{Algorithm, Digest, Repository};
use serde::{Deserialize, Serialize};

use super::reading::{hash, rehash};
use super::{Error, Registry, Result};
use crate::hashing::Hashing;
use crate::storage::{self, Opened, Storage, UploadId, Writer};

/// How long an upload may lie untouched. Clients that resume do so within
/// hours; a day forgives a night.
pub const MAX_UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// What all uploads together may hold in memory, in bytes.
const BUDGET_BYTES: usize = 16 << 20;

/// The largest batch: long enough that changing threads costs nothing beside
/// hashing it (about 1 ms), short enough that two fit into a processor's cache.
const MAX_BATCH_BYTES: usize = 512 << 10;

/// The smallest batch, however many uploads there are.
const MIN_BATCH_BYTES: usize = 32 << 10;

/// How many uploads may be receiving at once; others are told to come back. Their
/// smallest batches take 64 MiB together.
const MAX_RECEIVING: usize = 1024;

/// Batches end at multiples of this, so that a storage can write whole blocks.
const BLOCK_BYTES: usize = 4096;

/// The body of a request.
pub trait Chunks:
    Stream<Item = std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin
{
}

impl<T> Chunks for T where
    T: Stream<Item = std::result::Result<Bytes, Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
{
}

/// Shares memory among the uploads of a process.
#[derive(Debug, Default)]
pub(super) struct Budget {
    uploads: AtomicUsize,
}

/// One upload's part of the budget; dropping it gives it back.
struct Share<'a>(&'a Budget);

impl Budget {
    fn join(&self) -> Result<Share<'_>> {
        let share = Share(self);
        match self.uploads.fetch_add(1, Ordering::Relaxed) {
            0..MAX_RECEIVING => Ok(share),
            _ => Err(Error::TooManyUploads),
        }
    }
}

impl Share<'_> {
    /// Returns how large the next batch may be: two of them per upload.
    fn batch_bytes(&self) -> usize {
        let uploads = self.0.uploads.load(Ordering::Relaxed).max(1);
        let share = (BUDGET_BYTES / (2 * uploads)).clamp(MIN_BATCH_BYTES, MAX_BATCH_BYTES);
        share / BLOCK_BYTES * BLOCK_BYTES
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An upload, as a request names it.
#[derive(Clone, Copy, Debug)]
pub struct UploadRef<'a> {
    /// Which one.
    pub id: UploadId,
    /// The repository in its path.
    pub repository: &'a Repository,
    /// Who asks; nobody else's uploads exist for them. `""` has no name.
    pub owner: &'a str,
}

impl UploadRef<'_> {
    fn unknown(&self) -> Error {
        Error::upload_unknown(self.id, self.repository)
    }
}

/// The record of an upload.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    repository: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    owner: String,
    algorithm: String,
    /// How many bytes the hash state has seen.
    offset: u64,
    /// See [`Hashing::save`].
    state: String,
    /// When the upload was last written to, in seconds since 1970.
    touched_s: u64,
}

impl Session {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("text and numbers always serialize").into()
    }

    /// Returns how far the upload has come: what is stored beyond the record is
    /// not trusted, and nothing is if the storage lost what the record counts.
    fn offset(&self, stored: u64) -> u64 {
        if stored >= self.offset { self.offset } else { 0 }
    }
}

/// An upload while one request works on it.
struct Active<W> {
    id: UploadId,
    repository: String,
    owner: String,
    hashing: Hashing,
    offset: u64,
    checkpoint: u64,
    writer: W,
}

impl<W: Writer> Active<W> {
    async fn save(&mut self, now_s: u64) -> Result<()> {
        let session = Session {
            repository: self.repository.clone(),
            owner: self.owner.clone(),
            algorithm: self.hashing.algorithm().to_string(),
            offset: self.offset,
            state: self.hashing.save(),
            touched_s: now_s,
        };
        self.writer.save(session.encode()).await?;
        self.checkpoint = self.offset;
        Ok(())
    }

    /// Hashes and stores a batch, both at once.
    async fn process(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let size: usize = batch.iter().map(Bytes::len).sum();
        if size == 0 {
            return Ok(());
        }
        let hashing = self.hashing.clone();
        let (hashed, written) = tokio::join!(
            hash(hashing, batch.clone(), size),
            self.writer.write(self.offset, &batch)
        );
        // If storing failed, the state stays where the stored bytes end.
        written?;
        self.hashing = hashed;
        self.offset += size as u64;
        Ok(())
    }
}

/// How a batch ended.
enum End {
    /// It is full; more may come.
    Full,
    /// The body is complete.
    Complete,
    /// The connection broke.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

/// Receives until exactly `limit` bytes are there or the body ends; what came
/// beyond waits in `rest` for the next batch.
async fn gather(body: &mut impl Chunks, rest: &mut Bytes, limit: usize) -> (Vec<Bytes>, End) {
    let mut batch = Vec::new();
    let mut size = 0;
    while size < limit {
        let mut chunk = match std::mem::take(rest) {
            waiting if !waiting.is_empty() => waiting,
            _ => match body.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(broken)) => return (batch, End::Broken(broken)),
                None => return (batch, End::Complete),
            },
        };
        if chunk.len() > limit - size {
            *rest = chunk.split_off(limit - size);
        }
        size += chunk.len();
        batch.push(chunk);
    }
    (batch, End::Full)
}

impl<S: Storage> Registry<S> {
    /// Begins an upload to `repository` for `owner`; `algorithm` is what the
    /// client will name the blob by, if it says so.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn begin_upload(
        &self,
        repository: &Repository,
        owner: &str,
        algorithm: Option<Algorithm>,
    ) -> Result<UploadId> {
        let id = self.new_upload_id()?;
        let hashing = Hashing::new(algorithm.unwrap_or_default());
        let session = Session {
            repository: repository.to_string(),
            owner: owner.to_owned(),
            algorithm: hashing.algorithm().to_string(),
            offset: 0,
            state: hashing.save(),
            touched_s: self.now_s(),
        };
        self.storage.begin_upload(&id, session.encode()).await?;
        Ok(id)
    }

    /// Returns how many bytes an upload has.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`] where there is no such upload.
    pub async fn upload_size(&self, upload: UploadRef<'_>) -> Result<u64> {
        let (record, stored) =
            self.storage.peek_upload(&upload.id).await?.ok_or_else(|| upload.unknown())?;
        match serde_json::from_slice::<Session>(&record) {
            Ok(session)
                if session.repository == upload.repository.as_str()
                    && session.owner == upload.owner =>
            {
                Ok(session.offset(stored))
            }
            _ => Err(upload.unknown()),
        }
    }

    /// Appends `body` to an upload and returns how many bytes it has then.
    ///
    /// `start` is where the client believes the upload stands.
    ///
    /// # Errors
    /// [`Error::OutOfOrder`], [`Error::Interrupted`] and storage errors leave the
    /// upload as far as it came; [`Error::UploadUnknown`].
    pub async fn append(
        &self,
        upload: UploadRef<'_>,
        start: Option<u64>,
        body: &mut impl Chunks,
    ) -> Result<u64> {
        let mut upload = self.open_upload(upload).await?;
        self.receive(&mut upload, start, body).await?;
        upload.save(self.now_s()).await?;
        Ok(upload.offset)
    }

    /// Appends `body` to an upload, and makes the whole the blob `digest`.
    ///
    /// # Errors
    /// As [`Registry::append`]; [`Error::DigestMismatch`] ends the upload.
    pub async fn finish_upload(
        &self,
        upload: UploadRef<'_>,
        digest: &Digest,
        start: Option<u64>,
        body: &mut impl Chunks,
    ) -> Result<()> {
        let repository = upload.repository;
        let mut upload = self.open_upload(upload).await?;
        if upload.offset == 0 {
            // Nothing is hashed yet, and now the algorithm is known.
            upload.hashing = Hashing::new(digest.algorithm());
        }
        self.receive(&mut upload, start, body).await?;
        let actual = if upload.hashing.algorithm() == digest.algorithm() {
            upload.hashing.finish()
        } else {
            hash_again(&mut upload, digest.algorithm()).await?
        };
        if actual != *digest {
            upload.writer.discard().await?;
            return Err(Error::DigestMismatch { expected: *digest, actual });
        }
        let pushed = BTreeSet::from([*digest]);
        upload.writer.publish(digest, upload.offset).await?;
        self.own(repository, digest).await?;
        while self.give_way(&pushed).await? {
            self.own(repository, digest).await?;
        }
        // A blob that was there already may have been nobody's until we owned it,
        // and is gone by now.
        upload.writer.publish(digest, upload.offset).await?;
        Ok(upload.writer.end().await?)
    }

    /// Ends an upload and drops its bytes.
    ///
    /// # Errors
    /// [`Error::UploadUnknown`] where there is no such upload.
    pub async fn cancel_upload(&self, upload: UploadRef<'_>) -> Result<()> {
        Ok(self.open_upload(upload).await?.writer.discard().await?)
    }

    /// Removes uploads that nobody has touched for [`MAX_UPLOAD_AGE`], and what
    /// crashed requests left behind. Returns how many uploads were removed.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn expire_uploads(&self) -> Result<usize> {
        let mut removed = 0;
        for id in self.abandoned_uploads().await? {
            // One that cannot be opened is being written to: it lives.
            if let Ok(Some(Opened { writer, .. })) = self.storage.open_upload(&id).await {
                writer.discard().await?;
                removed += 1;
            }
        }
        self.storage.sweep().await?;
        Ok(removed)
    }

    /// Returns the uploads that nobody has touched for [`MAX_UPLOAD_AGE`].
    pub(crate) async fn abandoned_uploads(&self) -> Result<Vec<UploadId>> {
        let oldest_s = self.now_s().saturating_sub(MAX_UPLOAD_AGE.as_secs());
        let mut abandoned = Vec::new();
        for id in self.storage.uploads().await? {
            let (record, _) = match self.storage.peek_upload(&id).await {
                Ok(Some(peeked)) => peeked,
                Ok(None) | Err(storage::Error::Format { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            // A record that a power cut left unreadable belongs to nobody.
            let is_live = serde_json::from_slice::<Session>(&record)
                .is_ok_and(|session| session.touched_s >= oldest_s);
            if !is_live {
                abandoned.push(id);
            }
        }
        Ok(abandoned)
    }

    /// Opens an upload and finds out where it stands.
    async fn open_upload(&self, upload: UploadRef<'_>) -> Result<Active<S::Writer>> {
        // Whoever may not know of the upload must not be able to lock it.
        self.upload_size(upload).await?;
        let unknown = || upload.unknown();
        let Opened { record, size, writer } =
            self.storage.open_upload(&upload.id).await?.ok_or_else(unknown)?;
        let session: Session = serde_json::from_slice(&record).map_err(|_| unknown())?;
        let algorithm: Algorithm = session.algorithm.parse().map_err(|_| unknown())?;
        let offset = session.offset(size);
        let hashing = match offset {
            0 => Hashing::new(algorithm),
            _ => Hashing::restore(algorithm, &session.state).ok_or_else(unknown)?,
        };
        let Session { repository, owner, .. } = session;
        Ok(Active { id: upload.id, repository, owner, hashing, offset, checkpoint: offset, writer })
    }

    /// Receives a body: one batch comes in while the one before is processed.
    async fn receive(
        &self,
        upload: &mut Active<S::Writer>,
        start: Option<u64>,
        body: &mut impl Chunks,
    ) -> Result<()> {
        if let Some(start) = start.filter(|start| *start != upload.offset) {
            return Err(Error::OutOfOrder { start, size: upload.offset });
        }
        let share = self.budget.join()?;
        let mut batch = Vec::new();
        let mut rest = Bytes::new();
        // After the first, all batches are whole blocks.
        let past_block = usize::try_from(upload.offset % BLOCK_BYTES as u64).unwrap_or(0);
        let mut limit = share.batch_bytes() - past_block;
        loop {
            let ((next, end), processed) =
                tokio::join!(gather(body, &mut rest, limit), upload.process(batch));
            processed?;
            limit = share.batch_bytes();
            if upload.offset - upload.checkpoint >= S::Writer::CHECKPOINT_BYTES {
                upload.save(self.now_s()).await?;
            }
            match end {
                End::Full => batch = next,
                End::Complete => return upload.process(next).await,
                End::Broken(source) => {
                    upload.process(next).await?;
                    upload.save(self.now_s()).await?;
                    tracing::debug!(upload = %upload.id, offset = upload.offset, "interrupted");
                    return Err(Error::Interrupted { received: upload.offset, source });
                }
            }
        }
    }
}

/// Reads an upload back to hash it by another algorithm: the client named one
/// only when it closed the upload.
async fn hash_again<W: Writer>(upload: &mut Active<W>, algorithm: Algorithm) -> Result<Digest> {
    let blob = upload.writer.content(upload.offset).await?;
    Ok(rehash(blob, algorithm, &format!("upload {}", upload.id)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_upload_more_than_may_be_is_refused_until_another_ends() {
        let budget = Budget::default();
        let mut shares: Vec<_> =
            (0..MAX_RECEIVING).map(|_| budget.join().expect("there is room")).collect();
        assert_eq!(shares[0].batch_bytes(), MIN_BATCH_BYTES);
        assert!(matches!(budget.join(), Err(Error::TooManyUploads)));
        shares.pop();
        drop(budget.join().expect("one has ended"));
        shares.clear();
        assert_eq!(budget.join().unwrap().batch_bytes(), MAX_BATCH_BYTES);
    }
}
