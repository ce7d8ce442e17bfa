//! Manifests and tags, and what is derived from them.

use std::collections::BTreeSet;

use bytes::Bytes;
use oci::{Digest, Repository, Tag};

use super::super::KEYS_PER_LIST;
use super::super::round::Round;
use super::{Check, Problem};
use crate::content::{Links, Result, TagRecord, decode_manifest, encode_entry};
use crate::storage::{Key, Prefix, Record, Storage};

impl<S: Storage> Check<'_, S> {
    /// Reads every manifest and tag.
    pub(super) async fn records(&mut self) -> Result<()> {
        let mut current: Option<Repository> = None;
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&Prefix::records(), after.as_deref(), KEYS_PER_LIST).await?;
            for (repository, record) in listed.iter().filter_map(|listed| Record::of(listed)) {
                match record {
                    Record::Manifest(digest) => {
                        if current.as_ref() != Some(&repository) {
                            self.derive(Key::catalog(&repository)).await?;
                            current = Some(repository.clone());
                        }
                        self.manifest(&repository, &digest).await?;
                    }
                    Record::Tag(tag) => self.tag(&repository, &tag).await?,
                    Record::Hint(..) | Record::Referrer(..) | Record::Seen(_) => {}
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    async fn manifest(&mut self, repository: &Repository, digest: &Digest) -> Result<()> {
        let key = Key::manifest(repository, digest);
        let Some(record) = self.registry.storage().get(&key).await? else { return Ok(()) };
        self.report.manifests += 1;
        let Some((header, body)) = decode_manifest(&record) else {
            return self.damaged(digest, key, "its first line cannot be read".to_owned()).await;
        };
        let actual = Digest::of(digest.algorithm(), &body);
        if actual != *digest {
            return self.damaged(digest, key, format!("its content is {actual}")).await;
        }
        let Some(links) = Links::of_stored(&header.media_type, &body) else {
            return self.damaged(digest, key, "it is no manifest".to_owned()).await;
        };
        for needed in &links.needed {
            self.derive(Key::pin(needed, repository, digest)).await?;
            if !self.options.allow_missing && !self.has(repository, needed).await? {
                // It may have been deleted, and then what it needed.
                if self.registry.storage().stamp(&key).await?.is_none() {
                    return Ok(());
                }
                let (repository, manifest, needed) = (repository.clone(), *digest, *needed);
                self.lost(Problem::Missing { repository, manifest, needed }, None);
            }
        }
        if let (Some(subject), Ok(media_type)) = (links.subject, header.media_type.parse()) {
            let entry = encode_entry(&links.entry(*digest, media_type, body.len() as u64));
            let entry_key = Key::referrer(repository, &subject, digest);
            self.entry(&key, entry_key, entry).await?;
        }
        Ok(())
    }

    /// Whether a repository has a blob or a manifest.
    async fn has(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let storage = self.registry.storage();
        let has_blob = !self.damaged.contains(digest)
            && storage.stamp(&Key::owner(digest, repository)).await?.is_some()
            && storage.stamp(&Key::data(digest)).await?.is_some();
        Ok(has_blob || storage.stamp(&Key::manifest(repository, digest)).await?.is_some())
    }

    /// Compares the entry of a referrer with what it is derived from.
    async fn entry(&mut self, manifest: &Key, key: Key, entry: Bytes) -> Result<()> {
        let storage = self.registry.storage();
        if storage.get(&key).await?.is_some_and(|stored| stored == entry)
            || storage.stamp(manifest).await?.is_none()
        {
            return Ok(());
        }
        let repair = if self.options.repair {
            storage.put(&key, entry).await?;
            Some("written")
        } else {
            None
        };
        self.solved(Problem::Underived { key }, repair);
        Ok(())
    }

    async fn damaged(&mut self, digest: &Digest, key: Key, reason: String) -> Result<()> {
        let repair = if self.options.repair {
            let round = Round::begin(self.registry, &BTreeSet::from([*digest])).await?;
            let removed = round.remove(&key).await?;
            round.end().await?;
            removed.then_some("removed: push it again")
        } else {
            None
        };
        self.lost(Problem::RecordDamaged { key, reason }, repair);
        Ok(())
    }

    async fn tag(&mut self, repository: &Repository, tag: &Tag) -> Result<()> {
        let key = Key::tag(repository, tag);
        let storage = self.registry.storage();
        let Some(text) = storage.get(&key).await? else { return Ok(()) };
        self.report.tags += 1;
        let Ok(TagRecord { digest, .. }) = serde_json::from_slice(&text) else {
            let repair = match self.options.repair && storage.delete_if(&key, text).await? {
                true => Some("removed: push it again"),
                false => None,
            };
            let reason = "it cannot be read".to_owned();
            self.lost(Problem::RecordDamaged { key, reason }, repair);
            return Ok(());
        };
        if storage.stamp(&Key::manifest(repository, &digest)).await?.is_some() {
            return self.derive(Key::tag_hint(repository, &digest, tag)).await;
        }
        // It may have been moved or deleted, and then what it named.
        if storage.get(&key).await?.is_none_or(|now| now != text)
            || storage.stamp(&Key::manifest(repository, &digest)).await?.is_some()
        {
            return Ok(());
        }
        let repair = match self.options.repair && storage.delete_if(&key, text).await? {
            true => Some("removed: push it again"),
            false => None,
        };
        let (repository, tag) = (repository.clone(), tag.clone());
        self.solved(Problem::TagDangling { repository, tag, digest }, repair);
        Ok(())
    }
}
