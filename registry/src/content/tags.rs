//! Tags, and the pages in which names are listed.

use bytes::Bytes;
use oci::{Digest, Repository, Tag};

use super::stored::TagRecord;
use super::{Error, ManifestReference, Registry, Result};
use crate::storage::{Key, Prefix, Storage};

/// How many tag hints are looked at in one go.
const HINTS_PER_LIST: usize = 1000;

/// How many repositories are looked at in one go where not all are shown.
const NAMES_PER_LIST: usize = 1000;

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
    /// [`Error::ManifestUnknown`] where there is no such tag; [`Error::TagKept`]
    /// where it is immutable; [`Error::Forbidden`] where deletes are not allowed.
    pub async fn delete_tag(&self, repository: &Repository, tag: &Tag) -> Result<()> {
        self.allow_delete()?;
        if self.options().is_immutable(repository, tag) {
            return Err(Error::tag_kept(repository, tag));
        }
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
        let mut after = Some(String::new());
        while let Some(start) = after.take() {
            let tags = self.tags_of(repository, digest, &start, &mut after).await?;
            for (tag, stored) in tags {
                self.storage.delete_if(&Key::tag(repository, &tag), stored).await?;
            }
        }
        Ok(())
    }

    /// Refuses where a tag that must stay names `digest`.
    pub(super) async fn allow_delete_of(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<()> {
        let options = self.options();
        if options.immutable_tags.is_empty() {
            return Ok(());
        }
        let mut after = Some(String::new());
        while let Some(start) = after.take() {
            let tags = self.tags_of(repository, digest, &start, &mut after).await?;
            let kept = tags.iter().find(|(tag, _)| options.is_immutable(repository, tag));
            if let Some((tag, _)) = kept {
                return Err(Error::tag_kept(repository, tag));
            }
        }
        Ok(())
    }

    /// Returns some of the tags that name `digest`, with their records: those
    /// whose hints come after `start`. Where there are more hints, `after` is set
    /// to where to go on.
    async fn tags_of(
        &self,
        repository: &Repository,
        digest: &Digest,
        start: &str,
        after: &mut Option<String>,
    ) -> Result<Vec<(Tag, Bytes)>> {
        let hints = Prefix::tag_hints(repository, digest);
        let start = (!start.is_empty()).then_some(start);
        let listed = self.storage.list(&hints, start, HINTS_PER_LIST).await?;
        let mut tags = Vec::new();
        for name in &listed {
            let Ok(tag) = name.parse::<Tag>() else { continue };
            if let Some((record, stored)) = self.resolve(repository, &tag).await?
                && record.digest == *digest
            {
                tags.push((tag, stored));
            }
        }
        if listed.len() == HINTS_PER_LIST {
            *after = listed.into_iter().next_back();
        }
        Ok(tags)
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

    /// Lists the repositories that `is_shown`.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn repositories(
        &self,
        page: &PageRequest,
        is_shown: impl Fn(&Repository) -> bool,
    ) -> Result<Page> {
        // Keys end in `!`, which sorts below all that a longer name could add.
        let mut after = page.last.as_ref().map(|last| format!("{last}!"));
        let wanted = page.limit + 1;
        let mut names = Vec::new();
        let mut count = wanted;
        loop {
            let listed = self.storage.list(&Prefix::catalog(), after.as_deref(), count).await?;
            let is_last = listed.len() < count;
            let repositories = listed.iter().filter_map(|listed| Prefix::repository_of(listed));
            names.extend(repositories.filter(&is_shown).map(|shown| shown.to_string()));
            if is_last || names.len() >= wanted {
                return Ok(cut(names, page.limit));
            }
            after = listed.into_iter().next_back();
            // Most are hidden: look at more in one go.
            count = count.max(NAMES_PER_LIST);
        }
    }
}

fn cut(mut names: Vec<String>, limit: usize) -> Page {
    let has_more = names.len() > limit && limit > 0;
    names.truncate(limit);
    Page { names, has_more }
}
