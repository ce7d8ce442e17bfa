//! Indexes: lists of images, one for each platform.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::descriptor::Descriptor;
use crate::document::{self, Document, Kind};
use crate::error::{Error, Result};
use crate::json::{Extra, Fields, FromFields, deserialize_object};
use crate::media_type::MediaType;
use crate::platform::Platform;

/// The annotation that buildkit puts on entries that are no images but say
/// something about one.
const ATTESTATION_ANNOTATION: &str = "vnd.docker.reference.type";

/// A list of images, or of further indexes.
///
/// image-spec, `image-index.md`; docker's manifest list has the same shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index {
    /// What the document says it is; OCI indexes may leave it out.
    pub media_type: Option<MediaType>,
    /// The kind of artifact, where it is no image.
    pub artifact_type: Option<MediaType>,
    /// What is listed, the preferred first.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Remarks.
    pub annotations: BTreeMap<String, String>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl Index {
    /// Returns an OCI index.
    #[must_use]
    pub fn new(manifests: Vec<Descriptor>) -> Self {
        Self { media_type: Some(MediaType::OCI_INDEX), manifests, ..Self::default() }
    }

    /// Reads an index.
    ///
    /// # Errors
    ///
    /// Refuses one image's manifest, and everything [`Document::parse`] refuses.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Document::parse(bytes, None)? {
            Document::Index(index) => Ok(index),
            Document::Manifest(_) => Err(Error::Unsupported {
                reason: "it is one image's manifest, not an index".to_owned(),
            }),
        }
    }

    /// Returns the document as compact JSON, known fields first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        document::to_bytes(self)
    }

    /// Returns the entry to use where `wanted` is asked for.
    ///
    /// That is the best match by platform, and the first of equals. An index
    /// without any platforms, as tools write them for a single image, stands
    /// for its only image.
    #[must_use]
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let (images, platforms): (Vec<_>, Vec<_>) = self
            .images()
            .filter_map(|entry| entry.platform.as_ref().map(|platform| (entry, platform)))
            .unzip();
        if let Some(position) = Platform::best_match(platforms, wanted) {
            return Some(images[position]);
        }
        let mut all = self.images();
        match (all.next(), all.next()) {
            (Some(only), None) if only.platform.is_none() => Some(only),
            _ => None,
        }
    }

    /// Returns the platforms there are images for, for people to choose from.
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        self.images().filter_map(|entry| entry.platform.clone()).collect()
    }

    /// Returns the entries that are images or indexes, without buildkit's attestations.
    fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| {
            (entry.media_type.is_manifest() || entry.media_type.is_index())
                && !entry.annotations.contains_key(ATTESTATION_ANNOTATION)
        })
    }
}

impl FromFields for Index {
    const WHAT: &'static str = "index";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        document::check_shape(&fields, Kind::Index)?;
        document::check_schema_version(&mut fields)?;
        Ok(Self {
            media_type: fields.take("mediaType")?,
            artifact_type: fields.take("artifactType")?,
            manifests: fields.take_or_default("manifests")?,
            subject: fields.take("subject")?,
            annotations: fields.take_or_default("annotations")?,
            extra: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for Index {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for Index {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("schemaVersion", &document::SCHEMA_VERSION)?;
        if let Some(media_type) = &self.media_type {
            map.serialize_entry("mediaType", media_type)?;
        }
        if let Some(artifact_type) = &self.artifact_type {
            map.serialize_entry("artifactType", artifact_type)?;
        }
        map.serialize_entry("manifests", &self.manifests)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn entry(name: &str, platform: Option<&str>) -> Descriptor {
        let mut entry =
            Descriptor::new(MediaType::OCI_MANIFEST, Digest::sha256(name.as_bytes()), 1);
        entry.platform = platform.map(|text| text.parse().unwrap());
        entry
    }

    fn wanted(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn the_best_platform_is_selected() {
        let mut attestation = entry("attestation", Some("linux/amd64"));
        attestation
            .annotations
            .insert(ATTESTATION_ANNOTATION.to_owned(), "attestation-manifest".to_owned());
        let index = Index::new(vec![
            attestation,
            entry("none", None),
            entry("v6", Some("linux/arm/v6")),
            entry("amd64", Some("linux/amd64")),
            entry("second", Some("linux/amd64")),
        ]);
        let selected = |text: &str| index.select(&wanted(text)).map(|entry| entry.digest);
        assert_eq!(selected("linux/amd64"), Some(Digest::sha256(b"amd64")));
        assert_eq!(selected("linux/arm/v7"), Some(Digest::sha256(b"v6")));
        assert_eq!(selected("linux/s390x"), None);
        assert_eq!(index.platforms().len(), 3);
    }

    #[test]
    fn a_single_image_needs_no_platform() {
        let single = Index::new(vec![entry("only", None)]);
        assert!(single.select(&wanted("linux/amd64")).is_some());
        let two = Index::new(vec![entry("a", None), entry("b", None)]);
        assert!(two.select(&wanted("linux/amd64")).is_none());
        let other = Index::new(vec![entry("a", Some("linux/arm64"))]);
        assert!(other.select(&wanted("linux/amd64")).is_none());
    }
}
