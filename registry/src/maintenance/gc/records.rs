//! Small records about manifests that are gone: hints of tags, entries of
//! referrers, marks of having been seen.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Digest, Repository};

use super::{KEYS_PER_LIST, Round, Run};
use crate::content::{MAX_ANNOUNCED, Result};
use crate::storage::{Key, Prefix, Record, Storage};

/// How many records are looked at in one round; many may be about one manifest.
const MAX_RECORDS: usize = 1024;

/// A record, and the manifest that it is about.
type Candidates = BTreeMap<Key, (Repository, Digest)>;

impl<S: Storage> Run<'_, S> {
    /// Collects records.
    pub(super) async fn records(&mut self) -> Result<()> {
        let mut candidates = Candidates::new();
        let mut announced = BTreeSet::new();
        let mut after: Option<String> = None;
        loop {
            let storage = self.registry.storage();
            let listed = storage.list(&Prefix::records(), after.as_deref(), KEYS_PER_LIST).await?;
            for (repository, record) in listed.iter().filter_map(|listed| Record::of(listed)) {
                let (key, manifest) = match &record {
                    Record::Manifest(_) | Record::Tag(_) => continue,
                    Record::Hint(manifest, tag) => {
                        (Key::tag_hint(&repository, manifest, tag), *manifest)
                    }
                    Record::Referrer(subject, referrer) => {
                        (Key::referrer(&repository, subject, referrer), *referrer)
                    }
                    Record::Seen(manifest) => {
                        (Key::manifest_seen(&repository, manifest), *manifest)
                    }
                };
                if self.liveness.seems_live(&repository, &manifest).await? {
                    continue;
                }
                announced.insert(manifest);
                candidates.insert(key, (repository, manifest));
                if announced.len() >= MAX_ANNOUNCED || candidates.len() >= MAX_RECORDS {
                    let candidates = std::mem::take(&mut candidates);
                    self.remove_records(candidates, &std::mem::take(&mut announced)).await?;
                }
            }
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return self.remove_records(candidates, &announced).await,
            }
        }
    }

    async fn remove_records(
        &mut self,
        candidates: Candidates,
        announced: &BTreeSet<Digest>,
    ) -> Result<()> {
        let mut unneeded = Candidates::new();
        for (key, about) in candidates {
            if self.is_about_nothing(&key, &about).await? {
                unneeded.insert(key, about);
            }
        }
        if self.options.dry_run || unneeded.is_empty() {
            self.report.records += unneeded.len() as u64;
            return Ok(());
        }
        let round = Round::begin(self.registry, announced).await?;
        for (key, about) in &unneeded {
            if self.is_about_nothing(key, about).await? {
                self.report.records += u64::from(round.remove(key).await?);
            }
        }
        round.end().await
    }

    async fn is_about_nothing(&self, key: &Key, about: &(Repository, Digest)) -> Result<bool> {
        Ok(self.is_old(key).await? == Some(true)
            && !self.liveness.is_live(&about.0, &about.1).await?)
    }
}
