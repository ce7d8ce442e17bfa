//! Manifests: one image's config and layers.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::descriptor::Descriptor;
use crate::document::{self, Document, Kind};
use crate::error::{Error, Result};
use crate::json::{Extra, Fields, FromFields, deserialize_object};
use crate::media_type::MediaType;

/// One image: its config, and its layers from bottom to top.
///
/// image-spec, `manifest.md`; docker's version 2, schema 2 has the same shape.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Manifest {
    /// What the document says it is; OCI manifests may leave it out.
    pub media_type: Option<MediaType>,
    /// The kind of artifact, where it is no image.
    pub artifact_type: Option<MediaType>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about, such as the image of a signature.
    pub subject: Option<Descriptor>,
    /// Remarks.
    pub annotations: BTreeMap<String, String>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl Manifest {
    /// Returns an OCI manifest of an image.
    #[must_use]
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            media_type: Some(MediaType::OCI_MANIFEST),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Extra::default(),
        }
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// Refuses an index, and everything [`Document::parse`] refuses.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Document::parse(bytes, None)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::Unsupported {
                reason: "it is an index of several images, not one image's manifest".to_owned(),
            }),
        }
    }

    /// Returns the layers, bottom first, and the config.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().chain([&self.config])
    }

    /// Returns the document as compact JSON, known fields first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        document::to_bytes(self)
    }
}

impl FromFields for Manifest {
    const WHAT: &'static str = "manifest";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        document::check_shape(&fields, Kind::Manifest)?;
        document::check_schema_version(&mut fields)?;
        Ok(Self {
            media_type: fields.take("mediaType")?,
            artifact_type: fields.take("artifactType")?,
            config: fields.require("config")?,
            layers: fields.take_or_default("layers")?,
            subject: fields.take("subject")?,
            annotations: fields.take_or_default("annotations")?,
            extra: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for Manifest {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schemaVersion", &document::SCHEMA_VERSION)?;
        if let Some(media_type) = &self.media_type {
            map.serialize_entry("mediaType", media_type)?;
        }
        if let Some(artifact_type) = &self.artifact_type {
            map.serialize_entry("artifactType", artifact_type)?;
        }
        map.serialize_entry("config", &self.config)?;
        map.serialize_entry("layers", &self.layers)?;
        if let Some(subject) = &self.subject {
            map.serialize_entry("subject", subject)?;
        }
        if !self.annotations.is_empty() {
            map.serialize_entry("annotations", &self.annotations)?;
        }
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}
