//! Which manifests are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use oci::{Digest, Repository};

use super::KEYS_PER_LIST;
use crate::content::Result;
use crate::storage::{Key, Prefix, Storage};

/// How many names of manifests are kept in memory, about 40 MiB of them.
const MAX_KEPT: usize = 400_000;

/// Answers from listings, a thousand manifests to a request.
///
/// An answer may be out of date: it makes candidates, it removes nothing.
pub(super) struct Liveness<'a, S> {
    storage: &'a S,
    kept: Mutex<Kept>,
    /// What a dry run would have removed.
    gone: BTreeSet<(Repository, Digest)>,
}

#[derive(Default)]
struct Kept {
    count: usize,
    /// `None` for repositories with more manifests than are kept.
    repositories: BTreeMap<Repository, Option<BTreeSet<Digest>>>,
}

impl<'a, S: Storage> Liveness<'a, S> {
    pub(super) fn new(storage: &'a S) -> Self {
        Self { storage, kept: Mutex::default(), gone: BTreeSet::new() }
    }

    /// Takes a manifest for removed.
    pub(super) fn assume_gone(&mut self, repository: &Repository, manifest: Digest) {
        self.gone.insert((repository.clone(), manifest));
    }

    /// Returns whether a manifest seems to be there.
    pub(super) async fn seems_live(
        &self,
        repository: &Repository,
        manifest: &Digest,
    ) -> Result<bool> {
        if self.gone.contains(&(repository.clone(), *manifest)) {
            return Ok(false);
        }
        if let Some(answer) = self.kept_answer(repository, manifest) {
            return Ok(answer);
        }
        let listed = self.list(repository).await?;
        let answer = listed.as_ref().map(|listed| listed.contains(manifest));
        self.keep(repository, listed);
        match answer {
            Some(answer) => Ok(answer),
            None => self.is_live(repository, manifest).await,
        }
    }

    /// Returns whether a manifest is there now.
    pub(super) async fn is_live(&self, repository: &Repository, manifest: &Digest) -> Result<bool> {
        if self.gone.contains(&(repository.clone(), *manifest)) {
            return Ok(false);
        }
        Ok(self.storage.stamp(&Key::manifest(repository, manifest)).await?.is_some())
    }

    fn kept_answer(&self, repository: &Repository, manifest: &Digest) -> Option<bool> {
        let kept = self.kept.lock().expect("nothing panics while it holds the lock");
        Some(kept.repositories.get(repository)?.as_ref()?.contains(manifest))
    }

    fn keep(&self, repository: &Repository, listed: Option<BTreeSet<Digest>>) {
        let mut kept = self.kept.lock().expect("nothing panics while it holds the lock");
        let count = listed.as_ref().map_or(0, BTreeSet::len) + 1;
        if kept.count + count > MAX_KEPT {
            *kept = Kept::default();
        }
        kept.count += count;
        kept.repositories.insert(repository.clone(), listed);
    }

    /// Lists the manifests of a repository, or returns `None` where there are too
    /// many.
    async fn list(&self, repository: &Repository) -> Result<Option<BTreeSet<Digest>>> {
        {
            let kept = self.kept.lock().expect("nothing panics while it holds the lock");
            if matches!(kept.repositories.get(repository), Some(None)) {
                return Ok(None);
            }
        }
        let prefix = Prefix::manifests(repository);
        let mut digests = BTreeSet::new();
        let mut after: Option<String> = None;
        while digests.len() < MAX_KEPT / 2 {
            let listed = self.storage.list(&prefix, after.as_deref(), KEYS_PER_LIST).await?;
            digests.extend(listed.iter().filter_map(|listed| Prefix::manifest_of(listed)));
            match listed.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => return Ok(Some(digests)),
            }
        }
        Ok(None)
    }
}
