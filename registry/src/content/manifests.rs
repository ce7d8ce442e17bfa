//! Manifests: checked, pinned, stored as the bytes that came, named by tags.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, Document, MediaType, Repository, Tag};

use super::links::{Links, MAX_LINKS};
use super::stored::{ManifestHeader, TagRecord, decode, encode, encode_entry};
use super::{Conditions, Error, Registry, Result};
use crate::storage::{Key, Storage};

/// How many tags one push by digest may set. The specification asks for ten;
/// each costs a synced write.
pub const MAX_TAGS_PER_PUT: usize = 64;

/// How many missing digests an error lists.
const MAX_MISSING_LISTED: usize = 8;

/// How often a push puts its manifest back when a delete crosses it.
const MAX_RESTORES: usize = 8;

/// What follows `/manifests/` in a URL: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestReference {
    /// A tag.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl fmt::Display for ManifestReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl FromStr for ManifestReference {
    type Err = oci::Error;

    fn from_str(text: &str) -> std::result::Result<Self, oci::Error> {
        match text.contains(':') {
            true => text.parse().map(Self::Digest),
            false => text.parse().map(Self::Tag),
        }
    }
}

/// A manifest as it was pushed.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// The media type it was pushed with, without parameters.
    pub media_type: String,
    /// Its bytes.
    pub body: Bytes,
}

/// A manifest to be pushed.
#[derive(Clone, Debug)]
pub struct PutManifest {
    /// What its URL names it.
    pub reference: ManifestReference,
    /// Tags to set beside.
    pub tags: Vec<Tag>,
    /// The request's content type, as it came.
    pub content_type: Option<String>,
    /// What must hold, or nothing is changed.
    pub conditions: Conditions,
    /// Whether tags that exist may be moved.
    pub may_move_tags: bool,
    /// Its bytes.
    pub body: Bytes,
}

/// A manifest that was pushed.
#[derive(Clone, Debug)]
pub struct PushedManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it refers to.
    pub subject: Option<Digest>,
    /// The first few of the things it names that the repository does not have,
    /// where the operator lets it miss some.
    pub missing: Vec<Digest>,
}

impl<S: Storage> Registry<S> {
    /// Returns a manifest of `repository`.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`] where the repository does not have it.
    pub async fn manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<Arc<StoredManifest>> {
        let unknown = || Error::ManifestUnknown {
            reference: reference.clone(),
            repository: repository.clone(),
        };
        let digest = match reference {
            ManifestReference::Digest(digest) => *digest,
            ManifestReference::Tag(tag) => {
                self.resolve(repository, tag).await?.ok_or_else(unknown)?.0.digest
            }
        };
        self.manifest_by_digest(repository, &digest).await?.ok_or_else(unknown)
    }

    pub(super) async fn manifest_by_digest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Arc<StoredManifest>>> {
        let key = Key::manifest(repository, digest);
        let Some(stamp) = self.storage.stamp(&key).await? else { return Ok(None) };
        if let Some(manifest) = self.cache.get(&key, stamp) {
            return Ok(Some(manifest));
        }
        let Some(record) = self.storage.get(&key).await? else { return Ok(None) };
        let Some((header, body)) = decode(&record) else {
            tracing::error!(%key, "a stored manifest cannot be read");
            return Ok(None);
        };
        let manifest =
            Arc::new(StoredManifest { digest: *digest, media_type: header.media_type, body });
        self.cache.insert(key, stamp, Arc::clone(&manifest));
        Ok(Some(manifest))
    }

    /// Stores a manifest and sets its tags.
    ///
    /// # Errors
    /// [`Error::ManifestInvalid`], [`Error::DigestMismatch`] and
    /// [`Error::ManifestBlobUnknown`] say what is wrong with it;
    /// [`Error::ConditionFailed`]; [`Error::TagKept`].
    pub async fn put_manifest(
        &self,
        repository: &Repository,
        put: PutManifest,
    ) -> Result<PushedManifest> {
        let digest = match &put.reference {
            ManifestReference::Tag(_) => Digest::sha256(&put.body),
            ManifestReference::Digest(expected) => {
                let actual = Digest::of(expected.algorithm(), &put.body);
                if actual != *expected {
                    return Err(Error::DigestMismatch { expected: *expected, actual });
                }
                actual
            }
        };
        let (document, media_type) = parse(&put)?;
        self.check_conditions(repository, &put).await?;
        let links = Links::of(document);
        let mut tags = put.tags;
        if let ManifestReference::Tag(tag) = &put.reference {
            tags.push(tag.clone());
        }
        let options = self.options();
        let is_kept = |tag: &Tag| !put.may_move_tags || options.is_immutable(repository, tag);
        // The check that counts comes with the write; this one changes nothing
        // where that one would refuse.
        for tag in tags.iter().filter(|tag| is_kept(tag)) {
            self.check_kept(repository, tag, &digest).await?;
        }
        let missing = self.secure(repository, &digest, &links, &tags).await?;
        let subject = links.subject;
        let entry = subject.map(|subject| {
            let entry = links.entry(digest, media_type.clone(), put.body.len() as u64);
            (Key::referrer(repository, &subject, &digest), encode_entry(&entry))
        });
        if let Some((key, entry)) = &entry {
            self.storage.put(key, entry.clone()).await?;
        }
        let key = Key::manifest(repository, &digest);
        let pushed_s = self.now_s();
        let media_type = media_type.to_string();
        let record =
            encode(&ManifestHeader { media_type: media_type.clone(), pushed_s }, &put.body);
        let must_be_new = put.conditions.must_be_new();
        let is_new = self.storage.put_new(&key, record.clone()).await?;
        if must_be_new && !is_new && matches!(put.reference, ManifestReference::Digest(_)) {
            return Err(Error::condition_failed(&put.reference, repository));
        }
        let tag_record =
            TagRecord { digest, size: put.body.len() as u64, media_type, pushed_s }.encode();
        for tag in &tags {
            let key = Key::tag(repository, tag);
            if must_be_new && matches!(put.reference, ManifestReference::Tag(_)) {
                if !self.storage.put_new(&key, tag_record.clone()).await? {
                    return Err(Error::condition_failed(&put.reference, repository));
                }
            } else if is_kept(tag) {
                if !self.storage.put_new(&key, tag_record.clone()).await? {
                    self.check_kept(repository, tag, &digest).await?;
                }
            } else {
                self.storage.put(&key, tag_record.clone()).await?;
            }
        }
        self.restore(&key, &record, entry.as_ref()).await?;
        Ok(PushedManifest { digest, subject, missing })
    }

    /// Puts a manifest and its entry as a referrer back, where a delete of the same
    /// manifest came between it and its tags.
    async fn restore(&self, key: &Key, record: &Bytes, entry: Option<&(Key, Bytes)>) -> Result<()> {
        for _ in 0..MAX_RESTORES {
            if self.storage.stamp(key).await?.is_some() {
                break;
            }
            if let Some((key, entry)) = entry {
                self.storage.put(key, entry.clone()).await?;
            }
            self.storage.put_new(key, record.clone()).await?;
        }
        Ok(())
    }

    /// Refuses where a tag that must stay names something else than `digest`.
    async fn check_kept(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<()> {
        match self.resolve(repository, tag).await? {
            Some((record, _)) if record.digest != *digest => Err(Error::tag_kept(repository, tag)),
            _ => Ok(()),
        }
    }

    /// Pins what a manifest needs, and makes sure that it is there; returns what
    /// may be missing and is.
    ///
    /// The check before spares the storage the pins of hopeless pushes; the one
    /// after is what counts: from then on nothing can be collected, nor the manifest
    /// itself, should it be there already.
    async fn secure(
        &self,
        repository: &Repository,
        digest: &Digest,
        links: &Links,
        tags: &[Tag],
    ) -> Result<Vec<Digest>> {
        if links.needed.len() > MAX_LINKS {
            return Err(Error::ManifestInvalid {
                reason: format!(
                    "the manifest names {} things, the limit is {MAX_LINKS}",
                    links.needed.len()
                ),
            });
        }
        self.check_links(repository, links).await?;
        let mut marks: Vec<Key> =
            links.needed.iter().map(|needed| Key::pin(needed, repository, digest)).collect();
        marks.extend(tags.iter().map(|tag| Key::tag_hint(repository, digest, tag)));
        let catalog = Key::catalog(repository);
        if self.storage.stamp(&catalog).await?.is_none() {
            marks.push(catalog);
        }
        if self.storage.stamp(&Key::manifest(repository, digest)).await?.is_some() {
            marks.push(Key::manifest_seen(repository, digest));
        }
        let mut relied_on = links.needed.clone();
        relied_on.insert(*digest);
        loop {
            self.storage.mark(marks.clone()).await?;
            if !self.give_way(&relied_on).await? {
                return self.check_links(repository, links).await;
            }
        }
    }

    async fn check_links(&self, repository: &Repository, links: &Links) -> Result<Vec<Digest>> {
        let mut missing = Vec::new();
        for digest in &links.needed {
            // Children of an index are manifests; some builders' caches are
            // indexes of plain blobs.
            let is_there = self.has_blob(repository, digest).await?
                || self.storage.stamp(&Key::manifest(repository, digest)).await?.is_some();
            if !is_there {
                missing.push(*digest);
            }
            if missing.len() == MAX_MISSING_LISTED {
                break;
            }
        }
        match missing.is_empty() || self.options().allow_missing {
            true => Ok(missing),
            false => Err(Error::ManifestBlobUnknown { missing, repository: repository.clone() }),
        }
    }

    /// Removes a manifest, the tags that name it, and its entry as a referrer.
    ///
    /// Its pins stay: a push of the same manifest may need them this very
    /// moment. Pins of manifests that are gone count for nothing.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`] where the repository does not have it;
    /// [`Error::TagKept`] where an immutable tag names it; [`Error::Forbidden`]
    /// where deletes are not allowed.
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        self.allow_delete()?;
        self.allow_delete_of(repository, digest).await?;
        let Some(manifest) = self.manifest_by_digest(repository, digest).await? else {
            return Err(Error::ManifestUnknown {
                reference: ManifestReference::Digest(*digest),
                repository: repository.clone(),
            });
        };
        self.delete_tags_of(repository, digest).await?;
        self.storage.delete(&Key::manifest(repository, digest)).await?;
        if let Some(Links { subject: Some(subject), .. }) =
            Links::of_stored(&manifest.media_type, &manifest.body)
        {
            self.storage.delete(&Key::referrer(repository, &subject, digest)).await?;
        }
        Ok(())
    }
}

/// Reads a pushed manifest and finds its media type.
fn parse(put: &PutManifest) -> Result<(Document, MediaType)> {
    let content_type = match &put.content_type {
        Some(text) => Some(MediaType::from_content_type(text)?),
        None => None,
    };
    let document = Document::parse(&put.body, content_type.as_ref())?;
    let stated = match &document {
        Document::Manifest(manifest) => &manifest.media_type,
        Document::Index(index) => &index.media_type,
    };
    match (content_type, stated) {
        (Some(outer), Some(inner)) if outer != *inner => Err(Error::ManifestInvalid {
            reason: format!("the content type is {outer}, but the manifest says {inner}"),
        }),
        (Some(outer), _) if !outer.is_manifest() && !outer.is_index() => {
            Err(Error::ManifestInvalid { reason: format!("{outer} is not a kind of manifest") })
        }
        (Some(media_type), _) => Ok((document, media_type)),
        (None, _) => {
            let media_type = document.media_type();
            Ok((document, media_type))
        }
    }
}
