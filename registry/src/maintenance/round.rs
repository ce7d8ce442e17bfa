//! One round of removals: announce, look again, remove.

use std::collections::BTreeSet;
use std::time::Instant;

use oci::Digest;

use crate::content::{MAX_ROUND, Registry, Result, announcement};
use crate::storage::{Key, Storage};

/// An announcement that is there until the round ends.
pub(super) struct Round<'a, S> {
    storage: &'a S,
    key: Key,
    begun: Instant,
}

impl<'a, S: Storage> Round<'a, S> {
    /// Announces that any of `digests` may go.
    pub(super) async fn begin(
        registry: &'a Registry<S>,
        digests: &BTreeSet<Digest>,
    ) -> Result<Self> {
        let key = Key::collection(&registry.new_upload_id()?);
        let begun = Instant::now();
        registry.storage().put(&key, announcement(digests)).await?;
        Ok(Self { storage: registry.storage(), key, begun })
    }

    /// Removes a record, unless the round has lasted too long: what is left then
    /// is for the next run.
    pub(super) async fn remove(&self, key: &Key) -> Result<bool> {
        match self.is_over() {
            true => Ok(false),
            false => Ok(self.storage.delete(key).await?),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.begun.elapsed() > MAX_ROUND
    }

    /// Takes the announcement back: requests that wait go on.
    pub(super) async fn end(self) -> Result<()> {
        self.storage.delete(&self.key).await?;
        Ok(())
    }
}
