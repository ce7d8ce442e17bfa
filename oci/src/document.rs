//! Reading what a registry calls a manifest: one image, or an index.
//!
//! The two are told apart by their media type, and a document that has the
//! fields of both is refused: GHSA-77vh-xpmg-72qh is about two clients that
//! read one digest as two different things.

use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::json::{Fields, FromFields as _};
use crate::manifest::Manifest;
use crate::media_type::MediaType;

/// The largest manifest or index that is accepted, in bytes.
///
/// distribution-spec, "Pushing manifests", asks registries for at least 4 MiB;
/// this is double, and small enough to hold in memory.
pub const MAX_MANIFEST_BYTES: usize = 8 * 1024 * 1024;

/// The only schema version there has been since 2015.
pub(crate) const SCHEMA_VERSION: u64 = 2;

/// What a registry stores under a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "short-lived; matched and moved out of at once")]
pub enum Document {
    /// One image, or one artifact.
    Manifest(Manifest),
    /// A list of images.
    Index(Index),
}

/// Which of the two a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Index,
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// `content_type` is what the registry, or the descriptor that led here,
    /// calls the document. Where it is absent or says nothing, the document's
    /// own `mediaType` decides, and without one its fields do.
    ///
    /// # Errors
    ///
    /// Refuses what is larger than [`MAX_MANIFEST_BYTES`], nests too deep, is
    /// not JSON, lacks fields or has wrong ones, is a schema 1 manifest, says
    /// it is one kind where `content_type` says the other, or has the fields
    /// of both kinds.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<Self> {
        let mut fields = Fields::parse_document("manifest", bytes, MAX_MANIFEST_BYTES)?;
        match kind(&mut fields, content_type)? {
            Kind::Manifest => Manifest::from_fields(fields).map(Self::Manifest),
            Kind::Index => Index::from_fields(fields).map(Self::Index),
        }
    }

    /// Returns the media type to store and serve the document under.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        match self {
            Self::Manifest(manifest) => {
                manifest.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST)
            }
            Self::Index(index) => index.media_type.clone().unwrap_or(MediaType::OCI_INDEX),
        }
    }

    /// Returns the manifest that this one is about, such as the image of a signature.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Self::Manifest(manifest) => manifest.subject.as_ref(),
            Self::Index(index) => index.subject.as_ref(),
        }
    }

    /// Returns the blobs that are listed: a manifest's layers, bottom first, and its config. An
    /// index lists none.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let manifest = match self {
            Self::Manifest(manifest) => Some(manifest),
            Self::Index(_) => None,
        };
        manifest.into_iter().flat_map(Manifest::blobs)
    }

    /// Returns the manifests and indexes that are listed; one image's manifest lists none.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        match self {
            Self::Manifest(_) => &[],
            Self::Index(index) => &index.manifests,
        }
    }

    /// Returns the document as compact JSON, known fields first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Manifest(manifest) => manifest.to_bytes(),
            Self::Index(index) => index.to_bytes(),
        }
    }
}

/// Decides what a document is.
fn kind(fields: &mut Fields<'_>, content_type: Option<&MediaType>) -> Result<Kind> {
    let outer = content_type.and_then(kind_of);
    let stated: Option<MediaType> = fields.peek("mediaType")?;
    let inner =
        match &stated {
            Some(stated) => Some(kind_of(stated).ok_or_else(|| Error::Unsupported {
                reason: format!("its media type is {stated}"),
            })?),
            None => None,
        };
    match (outer, inner) {
        (Some(outer), Some(inner)) if outer != inner => Err(Error::Ambiguous {
            reason: "its media type and the registry's content type disagree".to_owned(),
        }),
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) if fields.has("manifests") => Ok(Kind::Index),
        (None, None) if fields.has("config") => Ok(Kind::Manifest),
        (None, None) if fields.has("fsLayers") => Err(schema_1()),
        (None, None) => {
            Err(Error::Unsupported { reason: "it is neither a manifest nor an index".to_owned() })
        }
    }
}

fn kind_of(media_type: &MediaType) -> Option<Kind> {
    if media_type.is_manifest() {
        Some(Kind::Manifest)
    } else if media_type.is_index() {
        Some(Kind::Index)
    } else {
        None
    }
}

/// Refuses a document that has fields of the other kind.
///
/// Names are compared without case, because Go's programs read them so.
pub(crate) fn check_shape(fields: &Fields<'_>, kind: Kind) -> Result<()> {
    let foreign: &[&str] = match kind {
        Kind::Manifest => &["manifests", "fsLayers"],
        Kind::Index => &["layers", "config", "fsLayers"],
    };
    match foreign.iter().find(|name| fields.has_ignoring_case(name)) {
        Some(name) => Err(Error::Ambiguous {
            reason: match kind {
                Kind::Manifest => format!("it is a manifest with `{name}`"),
                Kind::Index => format!("it is an index with `{name}`"),
            },
        }),
        None => Ok(()),
    }
}

/// Takes the schema version out, which must be 2.
pub(crate) fn check_schema_version(fields: &mut Fields<'_>) -> Result<()> {
    match fields.require::<u64>("schemaVersion")? {
        SCHEMA_VERSION => Ok(()),
        1 => Err(schema_1()),
        version => Err(Error::Unsupported { reason: format!("its schema version is {version}") }),
    }
}

fn schema_1() -> Error {
    Error::Unsupported { reason: "it has docker's schema 1, which was retired in 2019".to_owned() }
}

/// Writes a document as compact JSON.
pub(crate) fn to_bytes<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have string keys and serialize without failing")
}
