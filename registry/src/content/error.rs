//! Why the registry refuses.

use oci::{Digest, Repository, Tag};

use super::manifests::ManifestReference;
use crate::storage::{self, UploadId};

/// The result of an operation on content.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on content was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository has no such blob.
    #[error("blob {digest} is not in {repository}")]
    BlobUnknown {
        /// The blob.
        digest: Digest,
        /// Where it was looked for.
        repository: Repository,
    },
    /// The repository has no such upload.
    #[error("upload {id} is not in progress in {repository}")]
    UploadUnknown {
        /// The upload.
        id: String,
        /// Where it was looked for.
        repository: Repository,
    },
    /// A chunk does not begin where the one before it ended.
    #[error("the chunk begins at {start}, but the upload has {size} bytes")]
    OutOfOrder {
        /// Where the chunk begins.
        start: u64,
        /// How many bytes have been received.
        size: u64,
    },
    /// The bytes received are not what was announced.
    #[error("{received} bytes were received, {announced} were announced")]
    SizeMismatch {
        /// How many bytes were announced.
        announced: u64,
        /// How many came.
        received: u64,
    },
    /// The content is not what its digest promises.
    #[error("the content is {actual}, not {expected}")]
    DigestMismatch {
        /// What was promised.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The client stopped in the middle; what came before is kept.
    #[error("the request ended after {received} bytes")]
    Interrupted {
        /// How many bytes of the upload are kept.
        received: u64,
        /// What happened to the connection.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The repository has no such manifest or tag.
    #[error("manifest {reference} is not in {repository}")]
    ManifestUnknown {
        /// The tag or digest.
        reference: ManifestReference,
        /// Where it was looked for.
        repository: Repository,
    },
    /// A document is not a manifest this registry accepts.
    #[error("{reason}")]
    ManifestInvalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The name stands for something else than the client demands.
    #[error("{reference} of {repository} is not what the request expects")]
    ConditionFailed {
        /// The tag or digest.
        reference: ManifestReference,
        /// Where it was looked for.
        repository: Repository,
    },
    /// The tag exists, and may not become something else.
    #[error("tag {tag} of {repository} exists and cannot be changed")]
    TagKept {
        /// The tag.
        tag: Tag,
        /// Where it is.
        repository: Repository,
    },
    /// A manifest names content that the repository does not have.
    #[error("the manifest names {} that {repository} does not have", list(missing))]
    ManifestBlobUnknown {
        /// The first few digests.
        missing: Vec<Digest>,
        /// Where they were looked for.
        repository: Repository,
    },
    /// The repository does not exist.
    #[error("repository {repository} does not exist")]
    RepositoryUnknown {
        /// Its name.
        repository: Repository,
    },
    /// A collector is about to decide on what the request needs, and takes long.
    #[error("what the request needs is being looked at by a collector")]
    Collecting,
    /// As many uploads as there may be are receiving already.
    #[error("too many uploads are in progress")]
    TooManyUploads,
    /// The operator does not allow it.
    #[error("this registry does not allow {what}")]
    Forbidden {
        /// What is not allowed.
        what: &'static str,
    },
    /// The storage refused.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl Error {
    /// The upload is not there for this repository, whatever it may be for others.
    pub(crate) fn upload_unknown(id: UploadId, repository: &Repository) -> Self {
        Self::UploadUnknown { id: id.to_string(), repository: repository.clone() }
    }

    pub(super) fn tag_kept(repository: &Repository, tag: &Tag) -> Self {
        Self::TagKept { tag: tag.clone(), repository: repository.clone() }
    }

    pub(super) fn condition_failed(reference: &ManifestReference, repository: &Repository) -> Self {
        Self::ConditionFailed { reference: reference.clone(), repository: repository.clone() }
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Self {
        Self::ManifestInvalid { reason: error.to_string() }
    }
}
