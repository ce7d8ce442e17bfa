//! Garbage collection, while pushes go on.
//!
//! ```text
//! untagged manifests (if asked for) ─► records of manifests that are gone
//!   ─► shares and blobs that no manifest needs ─► stray bytes
//! ```
//!
//! Each step lists what is there, takes whatever looks unneeded for a candidate,
//! and decides on up to 128 candidates in a [`Round`]: announce, look again,
//! remove. `content/collection.rs` says why no push can lose anything by that.
//! What is younger than the grace stays: a push of many layers takes its time.
//!
//! Nothing is remembered from one run to the next, and a run may end anywhere:
//! a name goes before what it names.

mod blobs;
mod liveness;
mod manifests;
mod records;

use std::time::Duration;

use oci::{Digest, Repository};

use crate::content::{ANNOUNCEMENT_AGE, Registry, Result};
use crate::storage::{Key, Prefix, Storage};

use super::KEYS_PER_LIST;
use super::round::Round;
use liveness::Liveness;

/// How many candidates are looked at at the same time.
const PARALLEL: usize = 16;

/// How a collection goes about it.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// How old a thing must be before it can go. Clients that were told that
    /// something is there push a manifest that needs it within this time.
    pub grace: Duration,
    /// Remove manifests that no tag names, no index lists and that refer to nothing.
    pub untagged: bool,
    /// Only say what would go.
    pub dry_run: bool,
}

/// Something that goes, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// A manifest that no tag names, no index lists and that refers to nothing
    /// that is there.
    Manifest {
        /// Whose.
        repository: Repository,
        /// Its name.
        digest: Digest,
        /// How long its record is.
        bytes: u64,
    },
    /// The right of a repository to a blob that none of its manifests needs.
    Share {
        /// Whose.
        repository: Repository,
        /// The blob.
        digest: Digest,
    },
    /// A blob that no repository has.
    Blob {
        /// Its name.
        digest: Digest,
        /// How long it is.
        bytes: u64,
    },
}

/// How many things, and how long they are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

impl Tally {
    pub(in crate::maintenance) fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// What went, or would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Uploads that nobody has touched for a day.
    pub uploads: u64,
    /// Manifests.
    pub manifests: Tally,
    /// Rights of repositories to blobs.
    pub shares: u64,
    /// Blobs.
    pub blobs: Tally,
    /// Bytes in a bucket that belong to no blob and no upload.
    pub strays: Tally,
    /// Small records about manifests that are gone.
    pub records: u64,
}

impl GcReport {
    /// Returns how many bytes were freed, or would be.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.manifests.bytes + self.blobs.bytes + self.strays.bytes
    }

    fn count(&mut self, removal: &Removal) {
        match removal {
            Removal::Manifest { bytes, .. } => self.manifests.add(*bytes),
            Removal::Share { .. } => self.shares += 1,
            Removal::Blob { bytes, .. } => self.blobs.add(*bytes),
        }
    }
}

/// Removes what nobody needs, and tells `tell` what goes.
///
/// A dry run takes what it would remove for gone; it holds the names of manifests
/// that would go in memory.
///
/// # Errors
/// When the storage fails. What was removed until then nobody needed.
pub async fn collect<S: Storage>(
    registry: &Registry<S>,
    options: &GcOptions,
    tell: &mut (dyn FnMut(&Removal) + Send + Sync),
) -> Result<GcReport> {
    let mut run = Run {
        registry,
        options,
        old_s: registry.now_s().saturating_sub(options.grace.as_secs()),
        liveness: Liveness::new(registry.storage()),
        report: GcReport::default(),
        tell,
    };
    if options.dry_run {
        run.report.uploads = registry.abandoned_uploads().await?.len() as u64;
    } else {
        run.clear_announcements().await?;
        run.report.uploads = registry.expire_uploads().await? as u64;
    }
    if options.untagged {
        run.manifests().await?;
    }
    run.records().await?;
    run.blobs().await?;
    let first_young_s = run.old_s.saturating_add(1);
    let strays = registry.storage().sweep_strays(first_young_s, options.dry_run).await?;
    run.report.strays = Tally { count: strays.count, bytes: strays.bytes };
    Ok(run.report)
}

/// One collection under way.
struct Run<'a, S> {
    registry: &'a Registry<S>,
    options: &'a GcOptions,
    /// What was written before this moment is old.
    old_s: u64,
    liveness: Liveness<'a, S>,
    report: GcReport,
    tell: &'a mut (dyn FnMut(&Removal) + Send + Sync),
}

impl<S: Storage> Run<'_, S> {
    fn note(&mut self, removal: &Removal) {
        self.report.count(removal);
        (self.tell)(removal);
    }

    /// Returns whether a record is there and old; `None` where there is none.
    async fn is_old(&self, key: &Key) -> Result<Option<bool>> {
        let stamp = self.registry.storage().stamp(key).await?;
        Ok(stamp.map(|stamp| stamp.written_s() <= self.old_s))
    }

    /// Removes what collectors have left behind that died.
    async fn clear_announcements(&self) -> Result<()> {
        let storage = self.registry.storage();
        for listed in storage.list(&Prefix::collections(), None, KEYS_PER_LIST).await? {
            let Some(id) = Prefix::collector_of(&listed) else { continue };
            let key = Key::collection(&id);
            let dead_s = self.registry.now_s().saturating_sub(ANNOUNCEMENT_AGE.as_secs());
            if storage.stamp(&key).await?.is_some_and(|stamp| stamp.written_s() < dead_s) {
                storage.delete(&key).await?;
            }
        }
        Ok(())
    }
}
