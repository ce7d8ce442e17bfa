//! Objects of a bucket under their keys, and what the store promises about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::multipart::PartId;
use object_store::{
    Error as StoreError, MultipartId, ObjectMeta, ObjectStoreExt as _, PutMode, PutPayload,
    UpdateVersion,
};
use oci::Digest;

use super::super::{Error, Key, Result, Stamp, UploadId};
use super::connect::{Redirects, Store};
use super::path;

/// How many marks of one manifest are written at a time. A round trip costs
/// tens of milliseconds on a real bucket, and images have tens of layers.
const PARALLEL_MARKS: usize = 16;

/// What a store was found to do when it was asked.
///
/// Without the first, two writers of one record may both believe that they were
/// first; without the second, so may two that continue one upload. Records
/// written once say the same whoever wrote them, and segments have names of
/// their own, so neither makes content wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promises {
    /// It refuses to write over an object that must be new (`If-None-Match: *`).
    pub put_if_absent: bool,
    /// It refuses to replace a version that is no longer there (`If-Match`).
    pub put_if_unchanged: bool,
}

/// What a listing says of an object.
pub(super) struct Found {
    /// Without the listing's prefix.
    pub(super) key: String,
    pub(super) size: u64,
    pub(super) written_s: u64,
}

/// The objects of a bucket, below its prefix.
#[derive(Debug)]
pub(super) struct Objects {
    store: Arc<dyn Store>,
    promises: Promises,
    redirects: Option<Redirects>,
    /// Begins the names that this process gives, and no other.
    nonce: UploadId,
    named: AtomicU64,
}

impl Objects {
    /// Asks the store what it promises, with an object that is removed again.
    pub(super) async fn probe(
        store: Arc<dyn Store>,
        redirects: Option<Redirects>,
        nonce: UploadId,
    ) -> Result<Self> {
        let promises = Promises { put_if_absent: false, put_if_unchanged: false };
        let objects = Self { store, promises, redirects, nonce, named: AtomicU64::new(0) };
        let key = format!("probe/{nonce}");
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        let first = objects.put(&key, value("first"), PutMode::Overwrite).await?;
        let again = objects.try_put(&key, value("second"), PutMode::Create).await;
        let put_if_absent = is_refused(&again);
        // Another version than that of `first` is there now, in either case.
        objects.put(&key, value("third"), PutMode::Overwrite).await?;
        let stale = objects.try_put(&key, value("fourth"), PutMode::Update(first)).await;
        let put_if_unchanged = is_refused(&stale);
        objects.delete(&key).await?;
        Ok(Self { promises: Promises { put_if_absent, put_if_unchanged }, ..objects })
    }

    /// Returns a name that nobody gives again.
    pub(super) fn unique_name(&self) -> String {
        format!("{}-{}", self.nonce, self.named.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn promises(&self) -> Promises {
        self.promises
    }

    /// Returns which objects clients fetch themselves.
    pub(super) fn redirects(&self) -> Option<&Redirects> {
        self.redirects.as_ref()
    }

    /// Begins an object that is written in parts.
    pub(super) async fn begin_parts(&self, key: &str) -> Result<MultipartId> {
        let begun = self.store.create_multipart(&path(key)?).await;
        begun.map_err(|source| fail("begin", key, source))
    }

    /// Writes the part `index` of an object.
    pub(super) async fn put_part(
        &self,
        key: &str,
        id: &MultipartId,
        index: usize,
        bytes: Bytes,
    ) -> Result<PartId> {
        let payload = PutPayload::from_bytes(bytes);
        let written = self.store.put_part(&path(key)?, id, index, payload).await;
        written.map_err(|source| fail("write a part of", key, source))
    }

    /// Makes an object of its parts.
    pub(super) async fn complete_parts(
        &self,
        key: &str,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<()> {
        let completed = self.store.complete_multipart(&path(key)?, id, parts).await;
        completed.map(drop).map_err(|source| fail("complete", key, source))
    }

    /// Drops the parts of an object.
    pub(super) async fn abandon_parts(&self, key: &str, id: &MultipartId) -> Result<()> {
        let abandoned = self.store.abort_multipart(&path(key)?, id).await;
        abandoned.map_err(|source| fail("abandon", key, source))
    }

    /// Returns an object and its version.
    pub(super) async fn get(&self, key: &str) -> Result<Option<(Bytes, UpdateVersion)>> {
        let read = async {
            let found = self.store.get(&path(key)?).await;
            let found = found.map_err(|source| fail("read", key, source))?;
            let version = UpdateVersion {
                e_tag: found.meta.e_tag.clone(),
                version: found.meta.version.clone(),
            };
            let bytes = found.bytes().await.map_err(|source| fail("read", key, source))?;
            Ok((bytes, version))
        };
        present(read.await)
    }

    /// Returns part of an object.
    pub(super) async fn range(&self, key: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
        let read = self.store.get_range(&path(key)?, range).await;
        read.map_err(|source| fail("read", key, source))
    }

    pub(super) async fn stamp(&self, key: &str) -> Result<Option<Stamp>> {
        let found = self.store.head(&path(key)?).await;
        Ok(present(found.map_err(|source| fail("examine", key, source)))?.as_ref().map(stamp_of))
    }

    /// Writes an object and returns its version.
    pub(super) async fn put(
        &self,
        key: &str,
        value: Bytes,
        mode: PutMode,
    ) -> Result<UpdateVersion> {
        let written = self.try_put(key, value, mode).await;
        written.map_err(|source| fail("write", key, source))
    }

    pub(super) async fn try_put(
        &self,
        key: &str,
        value: Bytes,
        mode: PutMode,
    ) -> std::result::Result<UpdateVersion, StoreError> {
        let path = object_store::path::Path::parse(key)?;
        let written =
            self.store.put_opts(&path, PutPayload::from_bytes(value), mode.into()).await?;
        Ok(written.into())
    }

    /// Writes an object unless there is one, and returns whether it did.
    pub(super) async fn put_new(&self, key: &str, value: Bytes) -> Result<bool> {
        if !self.promises.put_if_absent {
            // Two may come here at once: then the later one stays.
            if self.stamp(key).await?.is_some() {
                return Ok(false);
            }
            self.put(key, value, PutMode::Overwrite).await?;
            return Ok(true);
        }
        match self.try_put(key, value, PutMode::Create).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(source) => Err(fail("write", key, source)),
        }
    }

    /// Writes empty objects; writing one again changes nothing.
    pub(super) async fn mark(&self, keys: Vec<Key>) -> Result<()> {
        futures_util::stream::iter(keys)
            .map(async |key| self.put(key.as_str(), Bytes::new(), PutMode::Overwrite).await)
            .buffer_unordered(PARALLEL_MARKS)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
    }

    /// Removes an object that may be gone already.
    pub(super) async fn delete(&self, key: &str) -> Result<()> {
        let deleted = self.store.delete(&path(key)?).await;
        present(deleted.map_err(|source| fail("delete", key, source)))?;
        Ok(())
    }

    /// Returns up to `limit` keys below `prefix` after `after`, in byte order.
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>> {
        let found = self.found(prefix, after, limit).await?;
        Ok(found.into_iter().map(|found| found.key).collect())
    }

    /// As [`Objects::list`], with what the listing says beside.
    pub(super) async fn found(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Found>> {
        let below = path(prefix.trim_end_matches('/'))?;
        let objects = match path(&format!("{prefix}{}", sendable(after))) {
            Ok(offset) if !after.is_empty() => self.store.list_with_offset(Some(&below), &offset),
            _ => self.store.list(Some(&below)),
        };
        objects
            .map_err(|source| fail("list", prefix, source))
            .try_filter_map(|object| {
                let key = object.location.as_ref().strip_prefix(prefix);
                let found = key.filter(|key| *key > after).map(|key| Found {
                    key: key.to_owned(),
                    size: object.size,
                    written_s: u64::try_from(object.last_modified.timestamp()).unwrap_or(0),
                });
                std::future::ready(Ok(found))
            })
            .take(limit)
            .try_collect()
            .await
    }
}

/// Returns the beginning of `after` that can be part of a key: a client may ask
/// to start after anything. Starting too early is only slower.
fn sendable(after: &str) -> &str {
    let is_ours = |c: char| c.is_ascii_alphanumeric() || "._-!:/".contains(c);
    let end = after.find(|c| !is_ours(c)).unwrap_or(after.len());
    let end = after[..end].find("//").unwrap_or(end);
    after[..end].trim_end_matches('/')
}

/// Whether a store refused a conditional write for its condition.
fn is_refused(result: &std::result::Result<UpdateVersion, StoreError>) -> bool {
    matches!(result, Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }))
}

/// Takes an object that is not there for `None`.
fn present<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn stamp_of(object: &ObjectMeta) -> Stamp {
    let text = format!("{:?} {:?} {}", object.e_tag, object.version, object.size);
    let hash = Digest::sha256(text.as_bytes());
    let version = u64::from_str_radix(&hash.hex()[..16], 16).expect("a digest is hexadecimal");
    let written_ns = i128::from(object.last_modified.timestamp_millis()) * 1_000_000;
    Stamp { version, written_ns }
}

/// Says what failed on what, and tells an object that is not there from a store
/// that fails.
pub(super) fn fail(action: &'static str, place: &str, source: StoreError) -> Error {
    let kind = match source {
        StoreError::NotFound { .. } => std::io::ErrorKind::NotFound,
        _ => std::io::ErrorKind::Other,
    };
    Error::from_io(action, place, std::io::Error::new(kind, source))
}

#[cfg(test)]
mod tests {
    use super::sendable;

    #[test]
    fn a_listing_may_start_after_anything() {
        for (after, expected) in [
            ("", ""),
            ("v1", "v1"),
            ("a/b!", "a/b!"),
            ("a/", "a"),
            ("a//b", "a"),
            ("a\u{0}b", "a"),
            ("a~", "a"),
            ("ä", ""),
            ("/", ""),
        ] {
            assert_eq!(sendable(after), expected, "{after:?}");
        }
    }
}
