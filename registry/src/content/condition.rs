//! What a client demands of a manifest's name before it pushes
//! (RFC 9110, section 13.1): two writers of a referrers tag must not overwrite
//! each other (distribution-spec, "Referrers Tag Schema").

use oci::{Digest, Repository};

use super::{Error, ManifestReference, PutManifest, Registry, Result};
use crate::storage::{Key, Storage};

/// The entity tags of an `If-Match` or `If-None-Match` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`: whatever is there.
    Any,
    /// One of these; what is no digest names nothing that we have.
    Digests(Vec<Digest>),
}

impl EntityTags {
    fn matches(&self, current: Option<&Digest>) -> bool {
        match self {
            Self::Any => current.is_some(),
            Self::Digests(digests) => current.is_some_and(|digest| digests.contains(digest)),
        }
    }
}

/// The conditions of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// What the name must stand for. Two pushes at the very same moment may both
    /// find it so.
    pub if_match: Option<EntityTags>,
    /// What it must not stand for; [`EntityTags::Any`], nothing at all, is kept
    /// even where two push at once.
    pub if_none_match: Option<EntityTags>,
}

impl Conditions {
    /// Whether the name must be new.
    pub(super) fn must_be_new(&self) -> bool {
        self.if_none_match == Some(EntityTags::Any)
    }
}

impl<S: Storage> Registry<S> {
    /// Refuses a push whose conditions do not hold.
    pub(super) async fn check_conditions(
        &self,
        repository: &Repository,
        put: &PutManifest,
    ) -> Result<()> {
        let Conditions { if_match, if_none_match } = &put.conditions;
        if if_match.is_none() && if_none_match.is_none() {
            return Ok(());
        }
        let current = match &put.reference {
            ManifestReference::Tag(tag) => {
                self.resolve(repository, tag).await?.map(|(record, _)| record.digest)
            }
            ManifestReference::Digest(digest) => {
                self.storage.stamp(&Key::manifest(repository, digest)).await?.map(|_| *digest)
            }
        };
        let holds = if_match.as_ref().is_none_or(|tags| tags.matches(current.as_ref()))
            && if_none_match.as_ref().is_none_or(|tags| !tags.matches(current.as_ref()));
        match holds {
            true => Ok(()),
            false => Err(Error::condition_failed(&put.reference, repository)),
        }
    }
}
