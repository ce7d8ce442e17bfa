//! Checking a storage, byte by byte and record by record.
//!
//! What is derived (pins, hints of tags, entries of referrers, the catalog) is
//! written again. What is damaged is removed, so that the next push of it brings
//! it back: a registry answers a client's question with "not there" only then.
//! What is missing cannot be made up.
//!
//! Everything is in order at each moment of a push or a delete, so a storage can
//! be checked while it is served; what looks wrong is looked at twice.

mod blobs;
mod records;

use std::collections::BTreeSet;
use std::fmt;

use oci::{Digest, Repository, Tag};

use super::Tally;
use crate::content::{Registry, Result};
use crate::storage::{Key, Storage};

/// How many damaged blobs are remembered, to say which manifests need them.
const MAX_DAMAGED: usize = 100_000;

/// What is checked, and what is done about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Remove what is damaged, and write again what can be derived.
    pub repair: bool,
    /// Manifests may lack what they name, as under `serve --allow-missing`.
    pub allow_missing: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The bytes of a blob are not what its name says.
    BlobDamaged {
        /// Its name.
        digest: Digest,
        /// What they are instead.
        reason: String,
    },
    /// A blob cannot be read at the moment.
    BlobUnreadable {
        /// Its name.
        digest: Digest,
        /// What the store says.
        reason: String,
    },
    /// A record is not what its name says.
    RecordDamaged {
        /// Its key.
        key: Key,
        /// What it is instead.
        reason: String,
    },
    /// A manifest needs something that its repository does not have.
    Missing {
        /// Whose.
        repository: Repository,
        /// The manifest.
        manifest: Digest,
        /// What it needs.
        needed: Digest,
    },
    /// A tag names a manifest that is not there.
    TagDangling {
        /// Whose.
        repository: Repository,
        /// The tag.
        tag: Tag,
        /// What it names.
        digest: Digest,
    },
    /// A record is not there that can be derived from others.
    Underived {
        /// Its key.
        key: Key,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlobDamaged { digest, reason } => write!(f, "blob {digest} is damaged: {reason}"),
            Self::BlobUnreadable { digest, reason } => {
                write!(f, "blob {digest} cannot be read: {reason}")
            }
            Self::RecordDamaged { key, reason } => write!(f, "record {key} is damaged: {reason}"),
            Self::Missing { repository, manifest, needed } => {
                write!(
                    f,
                    "{repository}@{manifest} needs {needed}, which {repository} does not have"
                )
            }
            Self::TagDangling { repository, tag, digest } => {
                write!(f, "{repository}:{tag} names {digest}, which is not there")
            }
            Self::Underived { key } => write!(f, "record {key} is not there"),
        }
    }
}

/// A problem, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub problem: Problem,
    /// What was done, if anything.
    pub repair: Option<&'static str>,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Blobs that were read.
    pub blobs: Tally,
    /// Manifests that were read.
    pub manifests: u64,
    /// Tags that were read.
    pub tags: u64,
    /// What was found wrong.
    pub problems: u64,
    /// How many of these are in order now: what was derived, and tags of nothing.
    pub solved: u64,
}

/// Checks everything, and tells `tell` what is wrong.
///
/// # Errors
/// When the storage fails in a way that says nothing about what it holds.
pub async fn verify<S: Storage>(
    registry: &Registry<S>,
    options: VerifyOptions,
    tell: &mut (dyn FnMut(&Finding) + Send + Sync),
) -> Result<VerifyReport> {
    let mut check = Check {
        registry,
        options,
        report: VerifyReport::default(),
        damaged: BTreeSet::new(),
        tell,
    };
    check.blobs().await?;
    check.records().await?;
    Ok(check.report)
}

/// One check under way.
struct Check<'a, S> {
    registry: &'a Registry<S>,
    options: VerifyOptions,
    report: VerifyReport,
    damaged: BTreeSet<Digest>,
    tell: &'a mut (dyn FnMut(&Finding) + Send + Sync),
}

impl<S: Storage> Check<'_, S> {
    /// Reports what can only be removed: what it was is still missing.
    fn lost(&mut self, problem: Problem, repair: Option<&'static str>) {
        self.report.problems += 1;
        (self.tell)(&Finding { problem, repair });
    }

    /// Reports what is in order once it has been repaired.
    fn solved(&mut self, problem: Problem, repair: Option<&'static str>) {
        self.report.solved += u64::from(repair.is_some());
        self.lost(problem, repair);
    }

    /// Writes a mark that is not there.
    async fn derive(&mut self, key: Key) -> Result<()> {
        if self.registry.storage().stamp(&key).await?.is_some() {
            return Ok(());
        }
        let repair = if self.options.repair {
            self.registry.storage().mark(vec![key.clone()]).await?;
            Some("written")
        } else {
            None
        };
        self.solved(Problem::Underived { key }, repair);
        Ok(())
    }
}
