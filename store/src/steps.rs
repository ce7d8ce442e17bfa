//! Build records: what a step with a certain key produced last time.
//!
//! A record is a cache entry. It may be lost in a power cut (it is not synced), but it never names
//! what is missing or partial: layers are synced before a record names them, a torn record does
//! not parse and counts as none, and [`Steps::get`] pins what a record names before it looks
//! whether it is there.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use oci::{Descriptor, DiffId, Digest};
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Durability, if_present};
use crate::error::{IoContext as _, Result};
use crate::lease::Lease;
use crate::store::Store;

/// What most records have room in.
const USUAL_BYTES: usize = 512;
/// How exact the time of a record's last use is: builds follow each other, prunes think in hours.
const TIME_IS_EXACT_TO: Duration = Duration::from_secs(60);

/// The build records of a store.
#[derive(Clone, Copy, Debug)]
pub struct Steps<'a> {
    store: &'a Store,
}

/// What a step produced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The layer, and the blob that holds it; `None` for a step that changes no file.
    pub layer: Option<(DiffId, Descriptor)>,
    /// Further blobs that it names: found with the record or not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
    /// Whatever else the builder wants to know again.
    #[serde(default)]
    pub extra: serde_json::Value,
}

impl StepRecord {
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only text for keys")
    }

    /// Returns the record of something that is no layer.
    #[must_use]
    pub fn note(extra: serde_json::Value) -> Self {
        Self { layer: None, blobs: Vec::new(), extra }
    }

    /// Returns the record of a layer.
    #[must_use]
    pub fn of_layer(diff_id: DiffId, blob: Descriptor, extra: serde_json::Value) -> Self {
        Self { layer: Some((diff_id, blob)), blobs: Vec::new(), extra }
    }

    /// Tells whether everything it names is stored.
    pub(crate) fn is_backed(&self, store: &Store) -> Result<bool> {
        for blob in &self.blobs {
            if !store.blobs().contains(blob)? {
                return Ok(false);
            }
        }
        match &self.layer {
            Some((_, blob)) => Ok(store.blobs().size(&blob.digest)? == Some(blob.size)),
            None => Ok(true),
        }
    }

    /// Returns everything the record keeps alive.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let layer = self.layer.iter().flat_map(|(diff_id, blob)| [diff_id.0, blob.digest]);
        layer.chain(self.blobs.iter().copied()).collect()
    }
}

impl<'a> Steps<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Returns the record of a step, its layer's blob being there and pinned by the lease.
    ///
    /// The record counts as used, for a prune that takes the oldest.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or the lease not written.
    pub fn get(&self, lease: &Lease, key: &Digest) -> Result<Option<StepRecord>> {
        let path = self.store.root().step(key);
        let file = if_present(File::open(&path)).doing("read", &path)?;
        let Some(mut file) = file else { return Ok(None) };
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        file.read_to_end(&mut bytes).doing("read", &path)?;
        let Some(record) = parse(&bytes) else { return Ok(None) };
        lease.pin_all(&record.digests())?;
        if !record.is_backed(self.store)? {
            return Ok(None);
        }
        touch(&file);
        Ok(Some(record))
    }

    /// Remembers what a step produced.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn put(&self, lease: &Lease, key: &Digest, record: &StepRecord) -> Result<()> {
        let path = self.store.root().step(key);
        durable::replace(&lease.temporary(), &path, &record.to_bytes(), Durability::Volatile)
    }

    /// Forgets a step.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn remove(&self, key: &Digest) -> Result<()> {
        durable::remove(&self.store.root().step(key))
    }
}

/// Reads a record; what is torn is no record.
pub(crate) fn read(path: &Path) -> Result<Option<StepRecord>> {
    let bytes = if_present(fs::read(path)).doing("read", path)?;
    Ok(bytes.and_then(|bytes| parse(&bytes)))
}

fn parse(bytes: &[u8]) -> Option<StepRecord> {
    serde_json::from_slice(bytes).ok()
}

/// Sets a record's time to now, where it is not almost that. It only guides a later prune, so
/// failing is no error.
fn touch(file: &File) {
    let age = file.metadata().and_then(|found| found.modified()).map(|time| time.elapsed());
    if matches!(age, Ok(Ok(age)) if age < TIME_IS_EXACT_TO) {
        return;
    }
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: unchanged, last_modification: now };
    let _only_a_hint = rustix::fs::futimens(file, &times);
}

#[cfg(test)]
mod tests {
    use super::StepRecord;
    use crate::testing::{blob, store};
    use oci::{Descriptor, DiffId, Digest, MediaType};
    use std::fs;

    fn record(layer: &Digest, size: u64) -> StepRecord {
        let blob = Descriptor::new(MediaType::OCI_LAYER_TAR, *layer, size);
        let extra = serde_json::json!({ "command": "make", "times": [1, 2] });
        StepRecord::of_layer(DiffId(*layer), blob, extra)
    }

    #[test]
    fn record_is_found_with_its_layer_pinned() {
        let (_dir, store) = store();
        let key = Digest::sha256(b"key");
        let lease = store.lease().unwrap();
        let layer = blob(&lease, b"layer").unwrap();
        assert_eq!(store.steps().get(&lease, &key).unwrap(), None);
        store.steps().put(&lease, &key, &record(&layer, 5)).unwrap();
        drop(lease);
        let lease = store.lease().unwrap();
        assert_eq!(store.steps().get(&lease, &key).unwrap(), Some(record(&layer, 5)));
        store.steps().remove(&key).unwrap();
        store.gc().unwrap();
        assert!(store.blobs().contains(&layer).unwrap());
        drop(lease);
        store.gc().unwrap();
        assert!(!store.blobs().contains(&layer).unwrap());
    }

    #[test]
    fn record_of_a_layer_that_is_gone_is_none() {
        let (_dir, store) = store();
        let key = Digest::sha256(b"key");
        let lease = store.lease().unwrap();
        let layer = blob(&lease, b"layer").unwrap();
        store.steps().put(&lease, &key, &record(&layer, 6)).unwrap();
        assert_eq!(store.steps().get(&lease, &key).unwrap(), None, "not of this size");
        store.steps().put(&lease, &key, &record(&layer, 5)).unwrap();
        fs::remove_file(store.root().blob(&layer)).unwrap();
        assert_eq!(store.steps().get(&lease, &key).unwrap(), None);
    }

    /// A power cut can leave any prefix, or zeros in place of what was not written.
    #[test]
    fn torn_record_is_none() {
        let (_dir, store) = store();
        let key = Digest::sha256(b"key");
        let lease = store.lease().unwrap();
        let layer = blob(&lease, b"layer").unwrap();
        store.steps().put(&lease, &key, &record(&layer, 5)).unwrap();
        let path = store.root().step(&key);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.steps().get(&lease, &key).unwrap(), None, "{length}");
            let mut zeros = whole.clone();
            zeros[length..].fill(0);
            fs::write(&path, &zeros).unwrap();
            assert_eq!(store.steps().get(&lease, &key).unwrap(), None, "{length}");
        }
    }
}
