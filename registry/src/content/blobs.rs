//! Blobs: stored once, readable where they were pushed or mounted.

use std::collections::BTreeSet;

use oci::{Digest, Repository};

use super::{Error, Registry, Result};
use crate::storage::{Blob, Key, Prefix, Storage};

/// How many owners of a blob a mount without a source looks at. One readable
/// owner is enough; a blob that everybody has is found at the first.
const MAX_MOUNT_CANDIDATES: usize = 32;

impl<S: Storage> Registry<S> {
    /// Opens a blob of `repository`.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`] where the repository does not have it, whoever
    /// else does.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Blob> {
        let unknown = || Error::BlobUnknown { digest: *digest, repository: repository.clone() };
        if !self.owns(repository, digest).await? {
            return Err(unknown());
        }
        self.storage.blob(digest).await?.ok_or_else(unknown)
    }

    /// Returns whether `repository` may read `digest`.
    pub(super) async fn owns(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        Ok(self.storage.stamp(&Key::owner(digest, repository)).await?.is_some())
    }

    /// Returns whether `repository` may read `digest` and the bytes are there. A
    /// mark without bytes is what is left of a mount that a collector crossed.
    pub(super) async fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool> {
        Ok(self.owns(repository, digest).await?
            && self.storage.stamp(&Key::data(digest)).await?.is_some())
    }

    /// Lets `repository` read `digest`, which the storage has.
    pub(super) async fn own(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        Ok(self.storage.mark(vec![Key::owner(digest, repository)]).await?)
    }

    /// Takes a blob from `repository`. Other repositories keep it.
    ///
    /// # Errors
    /// [`Error::BlobUnknown`] where the repository does not have it;
    /// [`Error::Forbidden`] where deletes are not allowed.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        self.allow_delete()?;
        match self.storage.delete(&Key::owner(digest, repository)).await? {
            true => Ok(()),
            false => Err(Error::BlobUnknown { digest: *digest, repository: repository.clone() }),
        }
    }

    /// Lets `repository` have a blob that another one has, and returns whether
    /// that was possible.
    ///
    /// Without `from`, any repository will do that `may_read` names. A blob that
    /// nobody owns any more cannot be mounted, even while its bytes are still
    /// stored.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: Option<&Repository>,
        may_read: impl Fn(&Repository) -> bool,
    ) -> Result<bool> {
        let is_readable = match from {
            Some(from) => may_read(from) && self.owns(from, digest).await?,
            None => self
                .storage
                .list(&Prefix::owners(digest), None, MAX_MOUNT_CANDIDATES)
                .await?
                .iter()
                .filter_map(|listed| Prefix::owner_of(listed))
                .any(|owner| may_read(&owner)),
        };
        if !is_readable || self.storage.blob(digest).await?.is_none() {
            return Ok(false);
        }
        self.own(repository, digest).await?;
        while self.give_way(&BTreeSet::from([*digest])).await? {
            self.own(repository, digest).await?;
        }
        // A collector may have taken it before it was ours.
        Ok(self.storage.blob(digest).await?.is_some())
    }
}
