//! The storage of many machines: a bucket of S3, Google or Azure, or of any
//! store that speaks their protocols.
//!
//! A key is an object's name below the prefix. Objects are written once or
//! replaced whole, never copied, renamed or appended to.
//!
//! ```text
//! blob/…/data           what the blob is made of: {"size", "upload", "segments": [{"name", "size"}]}
//! up/<uuid>/session     the upload: the same list on one line, then the upload's record
//! seg/<uuid>/<name>     received bytes; written once
//! ```
//!
//! An upload's bytes stay where they arrived: closing it writes the list as the
//! blob's `data`. So any replica can continue an upload from the list in its
//! session, and the digest need not be known before the last byte. What one
//! request brings is one object ([`growing`]), unless there are so many requests
//! that their parts do not fit into memory; so nearly every blob is one object,
//! which clients can fetch from the bucket themselves ([`Redirect`]).
//!
//! What a store promises is asked at start ([`Promises`]).

mod connect;
mod growing;
mod objects;
mod segments;
mod strays;
mod upload;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use object_store::PutMode;
use object_store::path::Path;
use oci::Digest;
use url::Url;

use super::{Blob, Content, Error, Key, Opened, Prefix, Result, Stamp, Storage, Stray, UploadId};
pub use connect::Redirect;
use connect::Redirects;
use objects::Objects;
pub use objects::Promises;
use segments::SegmentList;
pub use segments::Segments;
pub use upload::BucketWriter;

/// A storage in a bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    objects: Arc<Objects>,
    /// Uploads that a request of this process has open. Other replicas are
    /// found out by the conditional write of the session.
    open: Arc<Mutex<BTreeSet<UploadId>>>,
}

impl Bucket {
    /// Opens the storage at a URL like `s3://bucket/prefix`, `gs://…` or `az://…`,
    /// with options as `object_store` names them (`aws_endpoint`, `aws_region`…;
    /// unknown ones are ignored), and finds out what the store promises.
    ///
    /// `redirect` says which blobs clients fetch themselves, if any; `nonce` makes the
    /// names of the objects it probes with.
    ///
    /// # Errors
    /// When the URL or an option is wrong, or the store does not answer.
    pub async fn open(
        url: &Url,
        options: impl IntoIterator<Item = (String, String)>,
        redirect: Option<Redirect>,
        nonce: UploadId,
    ) -> Result<Self> {
        let options: Vec<(String, String)> = options.into_iter().collect();
        let store = connect::store(url, &options)?;
        let redirects = match redirect {
            Some(redirect) => Redirects::new(&redirect, url, options)?,
            None => None,
        };
        let objects = Arc::new(Objects::probe(store, redirects, nonce).await?);
        Ok(Self { objects, open: Arc::default() })
    }

    /// Returns what the store was found to promise.
    #[must_use]
    pub fn promises(&self) -> Promises {
        self.objects.promises()
    }
}

impl Storage for Bucket {
    type Writer = BucketWriter;

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        Ok(self.objects.get(key.as_str()).await?.map(|(bytes, _)| bytes))
    }

    async fn stamp(&self, key: &Key) -> Result<Option<Stamp>> {
        self.objects.stamp(key.as_str()).await
    }

    async fn put(&self, key: &Key, value: Bytes) -> Result<()> {
        self.objects.put(key.as_str(), value, PutMode::Overwrite).await?;
        Ok(())
    }

    async fn put_new(&self, key: &Key, value: Bytes) -> Result<bool> {
        self.objects.put_new(key.as_str(), value).await
    }

    async fn mark(&self, keys: Vec<Key>) -> Result<()> {
        self.objects.mark(keys).await
    }

    async fn delete(&self, key: &Key) -> Result<bool> {
        // Stores do not say whether there was anything to delete.
        match self.objects.stamp(key.as_str()).await? {
            Some(_) => self.objects.delete(key.as_str()).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn delete_if(&self, key: &Key, expected: Bytes) -> Result<bool> {
        match self.objects.get(key.as_str()).await? {
            Some((bytes, _)) if bytes == expected => {
                self.objects.delete(key.as_str()).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>> {
        self.objects.list(prefix.as_str(), after.unwrap_or(""), limit).await
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>> {
        let key = Key::data(digest);
        let Some((record, _)) = self.objects.get(key.as_str()).await? else { return Ok(None) };
        let list = SegmentList::decode(&record).ok_or_else(|| Error::Format {
            place: key.to_string(),
            reason: "the list of its segments cannot be read".to_owned(),
        })?;
        Ok(Some(self.objects.blob(list)))
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<bool> {
        let key = Key::data(digest);
        let Some((record, _)) = self.objects.get(key.as_str()).await? else { return Ok(false) };
        // The record first: what it named is stray then, should this be cut short.
        self.objects.delete(key.as_str()).await?;
        if let Some(list) = SegmentList::decode(&record) {
            for segment in &list.segments {
                self.objects.delete(&list.key(segment)).await?;
            }
        }
        Ok(true)
    }

    async fn begin_upload(&self, id: &UploadId, record: Bytes) -> Result<()> {
        upload::begin(&self.objects, *id, &record).await
    }

    async fn peek_upload(&self, id: &UploadId) -> Result<Option<(Bytes, u64)>> {
        let read = upload::read(&self.objects, *id).await?;
        Ok(read.map(|session| (session.record, session.list.size)))
    }

    async fn open_upload(&self, id: &UploadId) -> Result<Option<Opened<BucketWriter>>> {
        upload::open(&self.objects, &self.open, *id).await
    }

    async fn uploads(&self) -> Result<Vec<UploadId>> {
        let listed = self.objects.list("up/", "", usize::MAX).await?;
        Ok(listed.iter().filter_map(|key| key.strip_suffix("/session")?.parse().ok()).collect())
    }

    /// A crash leaves nothing outside of uploads that could be told from what
    /// another replica is writing.
    async fn sweep(&self) -> Result<()> {
        Ok(())
    }

    async fn sweep_strays(&self, written_before_s: u64, dry_run: bool) -> Result<Stray> {
        strays::sweep(&self.objects, written_before_s, dry_run).await
    }
}

impl Objects {
    /// Returns a blob made of `list`.
    fn blob(self: &Arc<Self>, list: SegmentList) -> Blob {
        let size = list.size;
        Blob { content: Content::Segments(Segments::new(Arc::clone(self), list)), size }
    }
}

/// Returns the name of an object whose key we made.
fn path(key: &str) -> Result<Path> {
    Path::parse(key).map_err(|source| objects::fail("name", key, source.into()))
}
