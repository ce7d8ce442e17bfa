//! Tags, and the pages in which names are listed.

use bytes::Bytes;
use oci::{Digest, Repository, Tag};

use super::stored::TagRecord;
use super::{Error, ManifestReference, Registry, Result};
use crate::storage::{Key, Prefix, Storage};

/// How many tag hints are looked at in one go.
const HINTS_PER_LIST: usize = 1000;

/// Which part of a listing is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// How many names at most.
    pub limit: usize,
    /// The name after which to start; it need not exist.
    pub last: Option<String>,
}

/// A part of a listing, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The names.
    pub names: Vec<String>,
    /// Whether there are more.
    pub has_more: bool,
}

impl<S: Storage> Registry<S> {
    /// Returns what a tag names, and its record as it is stored.
    pub(super) async fn resolve(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<(TagRecord, Bytes)>> {
        let key = Key::tag(repository, tag);
        let Some(record) = self.storage.get(&key).await? else { return Ok(None) };
        match serde_json::from_slice(&record) {
            Ok(parsed) => Ok(Some((parsed, record))),
            Err(error) => {
                tracing::error!(%key, %error, "a stored tag cannot be read");
                Ok(None)
            }
        }
    }

    /// Removes a tag. What it named stays, and so do other tags of it.
    ///
    /// # Errors
    /// [`Error::ManifestUnknown`] where there is no such tag;
    /// [`Error::Forbidden`] where deletes are not allowed.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<()> {
        self.allow_delete()?;
        match self.storage.delete(&Key::tag(repository, tag)).await? {
            true => Ok(()),
            false => Err(Error::ManifestUnknown {
                reference: ManifestReference::Tag(tag.clone()),
                repository: repository.clone(),
            }),
        }
    }

    /// Removes the tags that name `digest`; those moved elsewhere meanwhile stay.
    pub(super) async fn delete_tags_of(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<()> {
        let hints = Prefix::tag_hints(repository, digest);
        let mut after: Option<String> = None;
        loop {
            let listed = self.storage.list(&hints, after.as_deref(), HINTS_PER_LIST).await?;
            for name in &listed {
                let Ok(tag) = name.parse::<Tag>() else { continue };
                if let Some((record, stored)) = self.resolve(repository, &tag).await?
                    && record.digest == *digest
                {
                    self.storage.delete_if(&Key::tag(repository, &tag), stored).await?;
                }
            }
            match listed.len() < HINTS_PER_LIST {
                true => return Ok(()),
                false => after = listed.into_iter().next_back(),
            }
        }
    }

    /// Returns whether a manifest was ever pushed to the repository.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn has_repository(&self, repository: &Repository) -> Result<bool> {
        Ok(self.storage.stamp(&Key::catalog(repository)).await?.is_some())
    }

    /// Lists the tags of a repository.
    ///
    /// # Errors
    /// [`Error::RepositoryUnknown`] where nothing was ever pushed to it.
    pub async fn tags(&self, repository: &Repository, page: &PageRequest) -> Result<Page> {
        if !self.has_repository(repository).await? {
            return Err(Error::RepositoryUnknown { repository: repository.clone() });
        }
        let listed = self
            .storage
            .list(&Prefix::tags(repository), page.last.as_deref(), page.limit + 1)
            .await?;
        Ok(cut(listed, page.limit))
    }

    /// Lists the repositories.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn repositories(&self, page: &PageRequest) -> Result<Page> {
        // Keys end in `!`, which sorts below all that a longer name could add.
        let after = page.last.as_ref().map(|last| format!("{last}!"));
        let listed = self
            .storage
            .list(&Prefix::catalog(), after.as_deref(), page.limit + 1)
            .await?
            .iter()
            .filter_map(|listed| Prefix::repository_of(listed))
            .map(|repository| repository.to_string())
            .collect();
        Ok(cut(listed, page.limit))
    }
}

fn cut(mut names: Vec<String>, limit: usize) -> Page {
    let has_more = names.len() > limit && limit > 0;
    names.truncate(limit);
    Page { names, has_more }
}
