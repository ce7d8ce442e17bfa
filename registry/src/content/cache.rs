//! Manifests kept in memory, within a fixed number of bytes.
//!
//! An entry is only ever used after the storage has confirmed, for this request
//! and this repository, that the very same record is still there; so what was
//! deleted, here or by another replica, is gone at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::manifests::StoredManifest;
use crate::storage::{Key, Stamp};

/// How many bytes of manifests each of the two generations may hold.
///
/// Together 16 MiB: thousands of ordinary manifests (2 KiB each).
const GENERATION_BYTES: usize = 8 << 20;

/// What an entry costs beside its body: key, tree node, allocations.
const ENTRY_BYTES: usize = 512;

/// A cache in two generations: whatever was not asked for while the young one
/// filled up is dropped with the old one.
#[derive(Debug, Default)]
pub(super) struct ManifestCache {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: BTreeMap<Key, Entry>,
    young_bytes: usize,
    old: BTreeMap<Key, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    stamp: Stamp,
    manifest: Arc<StoredManifest>,
}

impl ManifestCache {
    /// Returns the manifest that the storage holds under `key` with `stamp`.
    pub(super) fn get(&self, key: &Key, stamp: Stamp) -> Option<Arc<StoredManifest>> {
        let mut generations = self.lock();
        if let Some(entry) = generations.young.get(key) {
            return (entry.stamp == stamp).then(|| Arc::clone(&entry.manifest));
        }
        let entry = generations.old.remove(key).filter(|entry| entry.stamp == stamp)?;
        let manifest = Arc::clone(&entry.manifest);
        generations.insert(key.clone(), entry);
        Some(manifest)
    }

    /// Keeps a manifest that was read under `key` when its stamp was `stamp`.
    pub(super) fn insert(&self, key: Key, stamp: Stamp, manifest: Arc<StoredManifest>) {
        self.lock().insert(key, Entry { stamp, manifest });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.generations.lock().expect("nothing panics while it holds the lock")
    }
}

impl Generations {
    fn insert(&mut self, key: Key, entry: Entry) {
        let bytes = entry.manifest.body.len() + ENTRY_BYTES;
        if self.young_bytes + bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        // A replaced entry stays counted until the generation turns: too many
        // bytes counted are a smaller cache, never a larger one.
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use oci::Digest;

    use super::*;

    fn manifest(size: usize) -> Arc<StoredManifest> {
        Arc::new(StoredManifest {
            digest: Digest::sha256(b""),
            media_type: "a/b".to_owned(),
            body: vec![0; size].into(),
        })
    }

    const fn stamp(written_ns: i128) -> Stamp {
        Stamp { version: 1, written_ns }
    }

    fn key(number: usize) -> Key {
        Key::manifest(&"a".parse().unwrap(), &Digest::sha256(&number.to_le_bytes()))
    }

    #[test]
    fn memory_is_bounded_and_the_used_survive() {
        let cache = ManifestCache::default();
        let stamp = stamp(1);
        cache.insert(key(0), stamp, manifest(1 << 20));
        for number in 1..100 {
            assert!(cache.get(&key(0), stamp).is_some(), "lost before {number}");
            cache.insert(key(number), stamp, manifest(1 << 20));
        }
        let generations = cache.lock();
        let held: usize = [&generations.young, &generations.old]
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|entry| entry.manifest.body.len())
            .sum();
        assert!(held <= 2 * GENERATION_BYTES, "holds {held} bytes");
        drop(generations);
        assert!(cache.get(&key(1), stamp).is_none());
    }

    #[test]
    fn another_stamp_is_another_manifest() {
        let cache = ManifestCache::default();
        cache.insert(key(0), stamp(1), manifest(1));
        assert!(cache.get(&key(0), stamp(2)).is_none());
        assert!(cache.get(&key(0), stamp(1)).is_some());
    }
}
