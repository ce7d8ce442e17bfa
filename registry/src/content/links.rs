//! What a manifest names.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Descriptor, Digest, Document, MediaType};

/// How many things one manifest may name. Each is pinned by a synced write;
/// images stay below a hundred layers, large indexes below a thousand children.
pub(super) const MAX_LINKS: usize = 4096;

/// What a manifest says that matters to a registry.
pub(crate) struct Links {
    /// What must be there: config, layers, children.
    pub(crate) needed: BTreeSet<Digest>,
    pub(crate) subject: Option<Digest>,
    /// What a listing of the subject's referrers says about this manifest.
    artifact_type: Option<MediaType>,
    annotations: BTreeMap<String, String>,
}

impl Links {
    /// Reads what a document says.
    pub(crate) fn of(document: Document) -> Self {
        let needed = |descriptors: &[&Descriptor]| {
            descriptors
                .iter()
                .filter(|descriptor| descriptor.media_type.is_distributable())
                .map(|descriptor| descriptor.digest)
                .collect()
        };
        match document {
            Document::Manifest(manifest) => Self {
                needed: needed(
                    &manifest.layers.iter().chain([&manifest.config]).collect::<Vec<_>>(),
                ),
                subject: manifest.subject.map(|subject| subject.digest),
                artifact_type: manifest.artifact_type.or(Some(manifest.config.media_type)),
                annotations: manifest.annotations,
            },
            Document::Index(index) => Self {
                needed: needed(&index.manifests.iter().collect::<Vec<_>>()),
                subject: index.subject.map(|subject| subject.digest),
                artifact_type: index.artifact_type,
                annotations: index.annotations,
            },
        }
    }

    /// Reads what a stored manifest says, or returns `None` where it is none.
    pub(crate) fn of_stored(media_type: &str, body: &[u8]) -> Option<Self> {
        Document::parse(body, media_type.parse().ok().as_ref()).map(Self::of).ok()
    }

    /// Returns what a listing of the subject's referrers says about the manifest
    /// that these links are of.
    pub(crate) fn entry(&self, digest: Digest, media_type: MediaType, size: u64) -> Descriptor {
        let mut entry = Descriptor::new(media_type, digest, size);
        entry.artifact_type.clone_from(&self.artifact_type);
        entry.annotations.clone_from(&self.annotations);
        entry
    }
}
