//! Keeping out of each other's way: requests that rely on what is there, and
//! collectors that remove what nobody needs.
//!
//! ```text
//! request                                  collector
//! 1. write marks, all as young as new      1. announce what may go (gc/<uuid>)
//! 2. announced? wait, and begin again      2. look again: still old, still unneeded?
//! 3. look whether all is there             3. remove it
//! 4. write what relies on it               4. take the announcement back
//! ```
//!
//! Of the two first steps one comes before the other. Where the marks come first,
//! the collector sees them, and leaves what they protect alone until they have
//! grown old, long after the request has ended. Where the announcement comes
//! first, the request waits until the collector is done, and then finds out what
//! is left. No clock decides between them; clocks only say what is old.
//!
//! A collector that dies leaves its announcement behind. It removes nothing later
//! than [`MAX_ROUND`] after it began, and requests wait for no announcement older
//! than [`ANNOUNCEMENT_AGE`].

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use oci::{Digest, Repository};

use super::{Error, ManifestReference, Registry, Result, StoredManifest};
use crate::storage::{Blob, Key, Prefix, Storage};

/// How many digests one announcement has: ten kilobytes, and a second's work on a
/// slow bucket, for which pushes that need one of them wait.
pub(crate) const MAX_ANNOUNCED: usize = 128;

/// How long after its announcement a collector may begin to remove something.
pub(crate) const MAX_ROUND: Duration = Duration::from_secs(60);

/// When an announcement counts as left behind by a collector that died. Clocks of
/// machines and of the store may differ by minutes, and a delete that a store is
/// asked for may be tried again for three.
pub(crate) const ANNOUNCEMENT_AGE: Duration = Duration::from_secs(15 * 60);

/// How long a request waits for a collector before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it looks.
const POLL: Duration = Duration::from_millis(50);

/// How many collectors are looked at: one for each replica.
const MAX_COLLECTORS: usize = 1000;

/// After this time, being asked for something makes it young again. Collectors
/// must let things grow older than this, or what a client was just told is there
/// may be gone when it pushes the manifest.
const REFRESH_AGE: Duration = Duration::from_secs(3600);

/// Writes an announcement.
pub(crate) fn announcement(digests: &BTreeSet<Digest>) -> Bytes {
    serde_json::to_vec(digests).expect("text always serializes").into()
}

impl<S: Storage> Registry<S> {
    /// Waits until no collector looks at any of `digests`, and returns whether it
    /// had to. The caller has written its marks; if this returns true, it must
    /// write them again.
    pub(super) async fn give_way(&self, digests: &BTreeSet<Digest>) -> Result<bool> {
        let mut patience = PATIENCE;
        let mut has_waited = false;
        while self.is_announced(digests).await? {
            if patience.is_zero() {
                return Err(Error::Collecting);
            }
            tokio::time::sleep(POLL).await;
            patience = patience.saturating_sub(POLL);
            has_waited = true;
        }
        Ok(has_waited)
    }

    async fn is_announced(&self, digests: &BTreeSet<Digest>) -> Result<bool> {
        let prefix = Prefix::collections();
        for listed in self.storage.list(&prefix, None, MAX_COLLECTORS).await? {
            let Some(id) = Prefix::collector_of(&listed) else { continue };
            let key = Key::collection(&id);
            let Some(stamp) = self.storage.stamp(&key).await? else { continue };
            if self.now_s().saturating_sub(stamp.written_s()) > ANNOUNCEMENT_AGE.as_secs() {
                continue;
            }
            let Some(text) = self.storage.get(&key).await? else { continue };
            // What we cannot read may be about anything.
            let announced = serde_json::from_slice::<BTreeSet<Digest>>(&text);
            if announced.is_ok_and(|announced| announced.is_disjoint(digests)) {
                continue;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Opens a blob as [`Registry::blob`] does, for a client that may rely on it
    /// later: no collector takes it soon.
    ///
    /// # Errors
    /// As [`Registry::blob`].
    pub async fn assure_blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob> {
        let (owner, seen) = (Key::owner(digest, repository), Key::seen(digest, repository));
        self.refresh(&owner, seen, digest).await?;
        self.blob(repository, digest).await
    }

    /// Returns a manifest as [`Registry::manifest`] does, for a client that may
    /// rely on it later: no collector takes it soon.
    ///
    /// # Errors
    /// As [`Registry::manifest`].
    pub async fn assure_manifest(
        &self,
        repository: &Repository,
        reference: &ManifestReference,
    ) -> Result<std::sync::Arc<StoredManifest>> {
        if let ManifestReference::Digest(digest) = reference {
            let manifest = Key::manifest(repository, digest);
            self.refresh(&manifest, Key::manifest_seen(repository, digest), digest).await?;
        }
        self.manifest(repository, reference).await
    }

    /// Writes the mark `seen` if `key` is there, and both are old.
    async fn refresh(&self, key: &Key, seen: Key, digest: &Digest) -> Result<()> {
        let is_old = async |key: &Key| -> Result<Option<bool>> {
            let stamp = self.storage.stamp(key).await?;
            Ok(stamp.map(|stamp| {
                self.now_s().saturating_sub(stamp.written_s()) > REFRESH_AGE.as_secs()
            }))
        };
        // Where nothing can be pushed, nothing is relied on.
        if self.options().read_only
            || is_old(key).await? != Some(true)
            || is_old(&seen).await? == Some(false)
        {
            return Ok(());
        }
        loop {
            // Whoever only reads must not fail where nothing can be written.
            if let Err(error) = self.storage.mark(vec![seen.clone()]).await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "cannot protect what a client was told of");
                return Ok(());
            }
            if !self.give_way(&BTreeSet::from([*digest])).await? {
                return Ok(());
            }
        }
    }
}
