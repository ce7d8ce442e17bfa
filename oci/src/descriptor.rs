//! Descriptors: media type, digest and size of some content.

use std::collections::BTreeMap;

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::{Extra, Fields, FromFields, deserialize_object};
use crate::media_type::MediaType;
use crate::platform::Platform;

/// What some content is, how it is named and how long it is.
///
/// image-spec, `descriptor.md`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// The name of the content.
    pub digest: Digest,
    /// The length of the content in bytes; fits into an `i64`, as Go's programs expect.
    pub size: u64,
    /// Other places to download the content from. We do not follow them.
    pub urls: Vec<String>,
    /// Remarks.
    pub annotations: BTreeMap<String, String>,
    /// The content itself in base64, kept as it is written.
    pub data: Option<String>,
    /// The kind of artifact, in an index that lists one.
    pub artifact_type: Option<MediaType>,
    /// What the image runs on, in an index.
    pub platform: Option<Platform>,
    /// The fields we do not know.
    pub extra: Extra,
}

impl Descriptor {
    /// Returns a descriptor with nothing but what every descriptor has.
    #[must_use]
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Self {
        Self {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            artifact_type: None,
            platform: None,
            extra: Extra::default(),
        }
    }
}

impl FromFields for Descriptor {
    const WHAT: &'static str = "descriptor";

    fn from_fields(mut fields: Fields<'_>) -> Result<Self> {
        let size = fields.require("size")?;
        if i64::try_from(size).is_err() {
            return Err(Error::Json {
                what: Self::WHAT,
                reason: format!("field `size`: {size} is out of range"),
            });
        }
        Ok(Self {
            media_type: fields.require("mediaType")?,
            digest: fields.require("digest")?,
            size,
            urls: fields.take_or_default("urls")?,
            annotations: fields.take_or_default("annotations")?,
            data: fields.take("data")?,
            artifact_type: fields.take("artifactType")?,
            platform: fields.take("platform")?,
            extra: fields.rest(),
        })
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    /// Reads from JSON text or a JSON value; other formats cannot carry unknown fields.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserialize_object(deserializer)
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("mediaType", &self.media_type)?;
        map.serialize_entry("digest", &self.digest)?;
        map.serialize_entry("size", &self.size)?;
        if !self.urls.is_empty() {
            map.serialize_entry("urls", &self.urls)?;
        }
        if !self.annotations.is_empty() {
            map.serialize_entry("annotations", &self.annotations)?;
        }
        if let Some(data) = &self.data {
            map.serialize_entry("data", data)?;
        }
        if let Some(platform) = &self.platform {
            map.serialize_entry("platform", platform)?;
        }
        if let Some(artifact_type) = &self.artifact_type {
            map.serialize_entry("artifactType", artifact_type)?;
        }
        self.extra.serialize_into(&mut map)?;
        map.end()
    }
}
