//! What an operator may choose, also while the registry runs.

use std::sync::{Arc, PoisonError};

use oci::{Repository, Tag};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Error, Registry, Result};
use crate::pattern::{RepositoryPattern, TagPattern};
use crate::storage::Storage;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Options {
    /// Accept manifests whose layers, config or children are not there.
    pub allow_missing: bool,
    /// Accept deletes of tags, manifests and blobs.
    pub allow_delete: bool,
    /// Accept no change at all.
    pub read_only: bool,
    /// Tags that stay what they are, whoever asks.
    pub immutable_tags: Vec<ImmutableTags>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_missing: false,
            allow_delete: true,
            read_only: false,
            immutable_tags: Vec::new(),
        }
    }
}

/// Tags that can be made, but neither moved nor deleted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImmutableTags {
    /// In which repositories, like `library/*` or `**`.
    pub repositories: Vec<RepositoryPattern>,
    /// Which tags, like `v*`.
    pub tags: Vec<TagPattern>,
    /// Which of them are free after all.
    #[serde(default)]
    pub except: Vec<TagPattern>,
}

impl Options {
    /// Returns whether a tag stays what it is.
    pub(super) fn is_immutable(&self, repository: &Repository, tag: &Tag) -> bool {
        let is_any = |patterns: &[TagPattern]| patterns.iter().any(|pattern| pattern.matches(tag));
        self.immutable_tags.iter().any(|rule| {
            rule.repositories.iter().any(|pattern| pattern.matches(repository))
                && is_any(&rule.tags)
                && !is_any(&rule.except)
        })
    }
}

impl<S: Storage> Registry<S> {
    /// Returns what the operator chose.
    pub fn options(&self) -> Arc<Options> {
        Arc::clone(&self.options.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes requests that begin from now on heed another choice.
    pub fn set_options(&self, options: Options) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    pub(super) fn allow_delete(&self) -> Result<()> {
        match self.options().allow_delete {
            true => Ok(()),
            false => Err(Error::Forbidden { what: "deletes" }),
        }
    }

    /// Refuses all changes where the operator wants none.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn allow_change(&self) -> Result<()> {
        match self.options().read_only {
            true => Err(Error::Forbidden { what: "changes: it is read-only" }),
            false => Ok(()),
        }
    }
}
