//! Who holds how much, and what dedupe saves.

use std::collections::BTreeMap;

use oci::{Digest, Repository};
use serde::Serialize;

use super::KEYS_PER_LIST;
use crate::content::{Registry, Result};
use crate::storage::{self, Key, Mark, Prefix, Record, Storage};

/// What one repository holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RepositoryUsage {
    /// How many tags it has.
    pub tags: u64,
    /// How many manifests and indexes.
    pub manifests: u64,
    /// How many blobs it may read.
    pub blobs: u64,
    /// How long these are together.
    pub bytes: u64,
    /// How many of the bytes other repositories have as well.
    pub shared_bytes: u64,
}

/// What a storage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// By repository.
    pub repositories: BTreeMap<String, RepositoryUsage>,
    /// How many blobs are stored.
    pub blobs: u64,
    /// How long these are together: what the disk or the bucket holds.
    pub stored_bytes: u64,
    /// What repositories hold, were nothing shared.
    pub held_bytes: u64,
    /// How many of the stored bytes no repository has: gc frees them.
    pub unowned_bytes: u64,
}

impl Usage {
    /// Returns how many bytes are stored once and held more than once.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.held_bytes.saturating_sub(self.stored_bytes - self.unowned_bytes)
    }

    fn of(&mut self, repository: &Repository) -> &mut RepositoryUsage {
        self.repositories.entry(repository.to_string()).or_default()
    }

    /// Adds a blob and its owners.
    fn add(&mut self, bytes: u64, owners: &[Repository]) {
        self.blobs += 1;
        self.stored_bytes += bytes;
        if owners.is_empty() {
            self.unowned_bytes += bytes;
        }
        for owner in owners {
            self.held_bytes += bytes;
            let usage = self.of(owner);
            usage.blobs += 1;
            usage.bytes += bytes;
            if owners.len() > 1 {
                usage.shared_bytes += bytes;
            }
        }
    }
}

/// Accounts for what a storage holds. Memory grows with the number of
/// repositories, not with what is in them.
///
/// # Errors
/// When the storage fails.
pub async fn usage<S: Storage>(registry: &Registry<S>) -> Result<Usage> {
    let storage = registry.storage();
    let mut usage = Usage::default();
    let mut after: Option<String> = None;
    loop {
        let listed = storage.list(&Prefix::records(), after.as_deref(), KEYS_PER_LIST).await?;
        for (repository, record) in listed.iter().filter_map(|listed| Record::of(listed)) {
            match record {
                Record::Manifest(_) => usage.of(&repository).manifests += 1,
                Record::Tag(_) => usage.of(&repository).tags += 1,
                Record::Hint(..) | Record::Referrer(..) | Record::Seen(_) => {}
            }
        }
        match listed.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    blobs(storage, &mut usage).await?;
    Ok(usage)
}

async fn blobs<S: Storage>(storage: &S, usage: &mut Usage) -> Result<()> {
    let mut current: Option<(Digest, Vec<Repository>)> = None;
    let mut after: Option<String> = None;
    loop {
        let listed = storage.list(&Prefix::blobs(), after.as_deref(), KEYS_PER_LIST).await?;
        for (digest, mark) in listed.iter().filter_map(|listed| Mark::of(listed)) {
            if current.as_ref().is_none_or(|(current, _)| *current != digest)
                && let Some((digest, owners)) = current.replace((digest, Vec::new()))
                && let Some(bytes) = size(storage, &digest).await?
            {
                usage.add(bytes, &owners);
            }
            if let (Mark::Owner(owner), Some((_, owners))) = (mark, &mut current) {
                owners.push(owner);
            }
        }
        match listed.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    if let Some((digest, owners)) = current
        && let Some(bytes) = size(storage, &digest).await?
    {
        usage.add(bytes, &owners);
    }
    Ok(())
}

/// Returns how long a blob is; nothing for the pins of manifests, and for blobs
/// that are damaged.
async fn size<S: Storage>(storage: &S, digest: &Digest) -> Result<Option<u64>> {
    match storage.blob(digest).await {
        Ok(blob) => Ok(blob.map(|blob| blob.size)),
        Err(storage::Error::Format { .. }) => {
            tracing::warn!(key = %Key::data(digest), "a damaged blob is not counted");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_stored_once() {
        let repository = |text: &str| text.parse::<Repository>().unwrap();
        let mut usage = Usage::default();
        usage.add(100, &[repository("a"), repository("b")]);
        usage.add(10, &[repository("b")]);
        usage.add(1, &[]);
        assert_eq!((usage.blobs, usage.stored_bytes, usage.held_bytes), (3, 111, 210));
        assert_eq!((usage.unowned_bytes, usage.saved_bytes()), (1, 100));
        let held = |name: &str| usage.repositories[name];
        assert_eq!((held("a").blobs, held("a").bytes, held("a").shared_bytes), (1, 100, 100));
        assert_eq!((held("b").blobs, held("b").bytes, held("b").shared_bytes), (2, 110, 100));
    }
}
