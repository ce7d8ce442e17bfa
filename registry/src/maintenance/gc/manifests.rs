//! Manifests that nothing names.

use std::collections::BTreeSet;

use oci::{Digest, Repository, Tag};

use super::{KEYS_PER_LIST, Removal, Round, Run};
use crate::content::{Links, MAX_ANNOUNCED, Result, TagRecord, decode_manifest};
use crate::storage::{Key, Prefix, Storage};

/// How often a repository is gone through: an index goes before its children,
/// and a subject before what refers to it. Images have two levels; what is
/// nested deeper goes in the next run.
const MAX_PASSES: usize = 4;

/// A manifest that goes.
struct Unneeded {
    digest: Digest,
    subject: Option<Digest>,
    bytes: u64,
}

impl<S: Storage> Run<'_, S> {
    /// Collects manifests, repository by repository.
    pub(super) async fn manifests(&mut self) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&Prefix::catalog(), after.as_deref(), KEYS_PER_LIST).await?;
            for repository in listed.iter().filter_map(|listed| Prefix::repository_of(listed)) {
                let mut passes = 0;
                while passes < MAX_PASSES && self.manifests_of(&repository).await? {
                    passes += 1;
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Goes through the manifests of a repository once, and returns whether any
    /// went.
    async fn manifests_of(&mut self, repository: &Repository) -> Result<bool> {
        let prefix = Prefix::manifests(repository);
        let before = self.report.manifests.count;
        let mut candidates = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&prefix, after.as_deref(), KEYS_PER_LIST).await?;
            for digest in listed.iter().filter_map(|listed| Prefix::manifest_of(listed)) {
                let Some(unneeded) = self.unneeded(repository, &digest).await? else { continue };
                if self.options.dry_run {
                    self.liveness.assume_gone(repository, digest);
                    self.note_manifest(repository, &unneeded);
                    continue;
                }
                candidates.insert(digest);
                if candidates.len() >= MAX_ANNOUNCED {
                    self.remove_manifests(repository, &std::mem::take(&mut candidates)).await?;
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        self.remove_manifests(repository, &candidates).await?;
        Ok(self.report.manifests.count > before)
    }

    fn note_manifest(&mut self, repository: &Repository, unneeded: &Unneeded) {
        let Unneeded { digest, bytes, .. } = *unneeded;
        self.note(&Removal::Manifest { repository: repository.clone(), digest, bytes });
    }

    async fn remove_manifests(
        &mut self,
        repository: &Repository,
        candidates: &BTreeSet<Digest>,
    ) -> Result<()> {
        if candidates.is_empty() {
            return Ok(());
        }
        let round = Round::begin(self.registry, candidates).await?;
        for digest in candidates {
            let Some(unneeded) = self.unneeded(repository, digest).await? else { continue };
            if !round.remove(&Key::manifest(repository, digest)).await? {
                continue;
            }
            // What a crash leaves of these is for `records`.
            if let Some(subject) = &unneeded.subject {
                round.remove(&Key::referrer(repository, subject, digest)).await?;
            }
            round.remove(&Key::manifest_seen(repository, digest)).await?;
            self.note_manifest(repository, &unneeded);
        }
        round.end().await
    }

    /// Returns what a manifest is if it may go: it is old, no tag names it, no
    /// index lists it, and its subject is not there.
    async fn unneeded(&self, repository: &Repository, digest: &Digest) -> Result<Option<Unneeded>> {
        let key = Key::manifest(repository, digest);
        let is_young = self.is_old(&key).await? != Some(true)
            || self.is_old(&Key::manifest_seen(repository, digest)).await? == Some(false);
        if is_young
            || !self.liveness.is_live(repository, digest).await?
            || self.is_tagged(repository, digest).await?
            || self.is_listed(repository, digest).await?
        {
            return Ok(None);
        }
        let Some(record) = self.registry.storage().get(&key).await? else { return Ok(None) };
        // What cannot be read is for `verify` to judge.
        let Some((header, body)) = decode_manifest(&record) else { return Ok(None) };
        let Some(links) = Links::of_stored(&header.media_type, &body) else { return Ok(None) };
        if let Some(subject) = &links.subject
            && self.liveness.is_live(repository, subject).await?
        {
            return Ok(None);
        }
        Ok(Some(Unneeded { digest: *digest, subject: links.subject, bytes: record.len() as u64 }))
    }

    /// Whether a tag names the manifest, or is about to.
    async fn is_tagged(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let storage = self.registry.storage();
        let prefix = Prefix::tag_hints(repository, digest);
        let mut after: Option<String> = None;
        loop {
            let listed = storage.list(&prefix, after.as_deref(), KEYS_PER_LIST).await?;
            for tag in listed.iter().filter_map(|listed| listed.parse::<Tag>().ok()) {
                if self.is_old(&Key::tag_hint(repository, digest, &tag)).await? == Some(false) {
                    return Ok(true);
                }
                let Some(text) = storage.get(&Key::tag(repository, &tag)).await? else { continue };
                // A tag that cannot be read may name anything.
                if serde_json::from_slice::<TagRecord>(&text)
                    .map_or(true, |record| record.digest == *digest)
                {
                    return Ok(true);
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(false),
            }
        }
    }

    /// Whether an index that is there lists the manifest, or one that is being
    /// pushed.
    async fn is_listed(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        let storage = self.registry.storage();
        let prefix = Prefix::pins(digest, repository);
        let mut after: Option<String> = None;
        loop {
            let listed = storage.list(&prefix, after.as_deref(), KEYS_PER_LIST).await?;
            for index in listed.iter().filter_map(|listed| Prefix::pin_of(listed)) {
                if self.liveness.is_live(repository, &index).await?
                    || self.is_old(&Key::pin(digest, repository, &index)).await? == Some(false)
                {
                    return Ok(true);
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(false),
            }
        }
    }
}
