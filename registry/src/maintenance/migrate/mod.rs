//! Bringing in what other registries have: the storage folder of distribution
//! (`docker/registry/v2`, the same for its versions 2 and 3), and OCI layouts.
//!
//! ```text
//! folder ─► source: repositories, their manifests, tags and blobs ─► importer ─► Registry
//! ```
//!
//! Everything goes in as a push would: blobs are hashed while they are copied,
//! manifests parsed and checked, and nothing becomes visible before all it needs
//! is there. What is there already is passed over, so that a run may be cut short
//! and started again; a registry may serve the storage meanwhile.
//!
//! A folder grants no rights: a repository gets a blob only if the folder has the
//! bytes, and lists them for that repository.

mod distribution;
mod folder;
mod importer;
mod layout;
mod source;

use std::io;
use std::path::Path;

use oci::Repository;

use super::Tally;
use crate::content::{self, Registry};
use crate::storage::Storage;

use folder::Folder;
use importer::Importer;

/// The result of a step.
type Result<T> = std::result::Result<T, Error>;

/// Why an import ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder is neither of the two kinds.
    #[error("{folder} is neither the storage of a distribution registry nor an OCI layout")]
    Unknown {
        /// Its path.
        folder: String,
    },
    /// An OCI layout does not say what its images are called.
    #[error("{folder} is an OCI layout, which names no repository")]
    NoRepository {
        /// Its path.
        folder: String,
    },
    /// The folder cannot be read.
    #[error("cannot {action} {path}")]
    Source {
        /// A verb phrase that completes "cannot …".
        action: &'static str,
        /// What.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The registry refused.
    #[error(transparent)]
    Content(#[from] content::Error),
}

impl Error {
    fn source(action: &'static str, path: String, source: io::Error) -> Self {
        Self::Source { action, path, source }
    }
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrateReport {
    /// Repositories that were gone through.
    pub repositories: u64,
    /// Manifests that were brought in.
    pub manifests: u64,
    /// Tags that were set.
    pub tags: u64,
    /// Blobs that were read, and brought in where they were new.
    pub blobs: Tally,
    /// Blobs that were read before for another repository.
    pub shared: u64,
    /// Manifests, tags and blobs that were there already.
    pub present: u64,
    /// Tags that name something else by now, and were left alone.
    pub kept_tags: u64,
    /// What could not be brought in.
    pub problems: u64,
}

/// Imports `from` into a registry, and tells `tell` what could not be brought in
/// and which tags were left alone.
///
/// `repository` is where the images of an OCI layout go, and is otherwise ignored.
///
/// # Errors
/// When `from` is no known kind of folder or cannot be read, or the storage
/// fails. What was imported until then is complete.
pub async fn migrate<S: Storage>(
    registry: &Registry<S>,
    from: &Path,
    repository: Option<&Repository>,
    tell: &mut (dyn FnMut(String) + Send + Sync),
) -> Result<MigrateReport> {
    let folder = Folder::open(from)?;
    let place = || from.display().to_string();
    if let Some(root) = distribution::find(&folder)? {
        let mut importer = Importer::new(registry, tell);
        distribution::import(&folder, root, &mut importer).await?;
        return Ok(importer.report());
    }
    if !layout::is_one(&folder)? {
        return Err(Error::Unknown { folder: place() });
    }
    let repository = repository.ok_or_else(|| Error::NoRepository { folder: place() })?;
    let mut importer = Importer::new(registry, tell);
    layout::import(&folder, repository, &mut importer).await?;
    Ok(importer.report())
}
