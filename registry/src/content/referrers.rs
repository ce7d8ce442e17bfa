//! Referrers: the manifests whose `subject` is a given manifest.

use std::collections::BTreeSet;

use oci::{Descriptor, Digest, Document, Index, MediaType, Repository, Tag};

use super::{Registry, Result};
use crate::storage::{Key, Prefix, Storage};

/// How many referrers one answer looks at.
const MAX_ENTRIES: usize = 1000;

/// How large an answer may grow, in bytes: annotations are copied into it, and
/// clients refuse indexes larger than a manifest may be (4 MiB in most).
const MAX_PAGE_BYTES: usize = 3 << 20;

/// How much of a digest the fallback tag keeps (distribution-spec, "Referrers
/// Tag Schema").
const MAX_FALLBACK_HEX: usize = 64;

/// A part of the list of referrers.
#[derive(Clone, Debug)]
pub struct ReferrersPage {
    /// The answer's body.
    pub index: Index,
    /// Where the next part starts, if there is one.
    pub next: Option<Digest>,
}

impl<S: Storage> Registry<S> {
    /// Lists what refers to `subject`, by digest, beginning after `last`; with
    /// `artifact_type`, only what is of that type.
    ///
    /// Entries that clients keep under the fallback tag are part of the answer.
    /// A subject that does not exist has no referrers.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        last: Option<&Digest>,
    ) -> Result<ReferrersPage> {
        let is_wanted = |entry: &Descriptor| {
            let actual = entry.artifact_type.as_ref().map(MediaType::as_str);
            artifact_type.is_none_or(|wanted| actual == Some(wanted))
        };
        let after = last.map(|last| format!("{}-{}", last.algorithm(), last.hex()));
        let prefix = Prefix::referrers(repository, subject);
        let listed = self.storage.list(&prefix, after.as_deref(), MAX_ENTRIES + 1).await?;
        let mut entries = Vec::new();
        let mut seen = BTreeSet::new();
        let mut bytes = 0;
        let mut next = None;
        let mut previous = None;
        for (position, digest) in
            listed.iter().filter_map(|listed| Prefix::digest_of(listed)).enumerate()
        {
            if position == MAX_ENTRIES || bytes >= MAX_PAGE_BYTES {
                next = previous;
                break;
            }
            previous = Some(digest);
            // An entry may outlive its manifest by a moment, or by a crash.
            let is_there = self.storage.stamp(&Key::manifest(repository, &digest)).await?.is_some();
            let record = self.storage.get(&Key::referrer(repository, subject, &digest)).await?;
            if let Some(record) = record.filter(|_| is_there)
                && let Ok(entry) = serde_json::from_slice::<Descriptor>(&record)
            {
                seen.insert(digest);
                if is_wanted(&entry) {
                    bytes += record.len();
                    entries.push(entry);
                }
            }
        }
        if last.is_none() {
            for entry in self.fallback_entries(repository, subject).await? {
                // Clients leave the entries of what they delete to the registry.
                let key = Key::manifest(repository, &entry.digest);
                if is_wanted(&entry)
                    && seen.insert(entry.digest)
                    && self.storage.stamp(&key).await?.is_some()
                {
                    entries.push(entry);
                }
            }
        }
        Ok(ReferrersPage { index: Index::new(entries), next })
    }

    /// Returns what clients have recorded under the fallback tag.
    async fn fallback_entries(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>> {
        let hex = subject.hex();
        let kept = &hex[..hex.len().min(MAX_FALLBACK_HEX)];
        let tag: Tag = format!("{}-{kept}", subject.algorithm())
            .parse()
            .expect("letters, digits and a dash, shorter than a tag may be");
        let Some((record, _)) = self.resolve(repository, &tag).await? else {
            return Ok(Vec::new());
        };
        let Some(manifest) = self.manifest_by_digest(repository, &record.digest).await? else {
            return Ok(Vec::new());
        };
        match Document::parse(&manifest.body, manifest.media_type.parse().ok().as_ref()) {
            Ok(Document::Index(index)) => Ok(index.manifests),
            // Somebody uses the name for something else.
            Ok(Document::Manifest(_)) | Err(_) => Ok(Vec::new()),
        }
    }
}
