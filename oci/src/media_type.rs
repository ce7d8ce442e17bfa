//! Media types: what a blob is.
//!
//! image-spec, `media-types.md`, and moby's image spec v1.2 for those that
//! start with `application/vnd.docker`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result, excerpt};

/// How the tar of a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), which every client reads.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// What a blob is: `type/subtype`, without parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MediaType(Cow<'static, str>);

/// Declares the media types this crate has names for.
macro_rules! media_types {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl MediaType {
            $($(#[$doc])* pub const $name: Self = Self(Cow::Borrowed($text));)*
        }
    };
}

media_types! {
    /// An OCI image manifest.
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
    /// An OCI image index.
    OCI_INDEX = "application/vnd.oci.image.index.v1+json";
    /// An OCI image config.
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json";
    /// A layer as a plain tar.
    OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar";
    /// A layer as a tar compressed by gzip.
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// A layer as a tar compressed by zstd.
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// A layer that must not be pushed to other registries, as a plain tar.
    OCI_NONDISTRIBUTABLE_TAR = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    /// A layer that must not be pushed to other registries, compressed by gzip.
    OCI_NONDISTRIBUTABLE_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    /// A layer that must not be pushed to other registries, compressed by zstd.
    OCI_NONDISTRIBUTABLE_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd";
    /// The two bytes `{}`, where an artifact has no config.
    OCI_EMPTY = "application/vnd.oci.empty.v1+json";
    /// A docker manifest, version 2, schema 2.
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json";
    /// A docker manifest list, which is docker's index.
    DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// A docker image config.
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json";
    /// A docker layer as a plain tar.
    DOCKER_LAYER_TAR = "application/vnd.docker.image.rootfs.diff.tar";
    /// A docker layer as a tar compressed by gzip.
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// A docker layer as a tar compressed by zstd.
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd";
    /// A docker layer that must not be pushed to other registries, compressed by gzip.
    DOCKER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Bytes of which nothing more is known.
    OCTET_STREAM = "application/octet-stream";
}

impl MediaType {
    /// Every kind of manifest and index that is understood, the preferred ones first.
    ///
    /// This is what a client asks a registry for.
    pub const MANIFESTS: [Self; 4] =
        [Self::OCI_INDEX, Self::OCI_MANIFEST, Self::DOCKER_MANIFEST_LIST, Self::DOCKER_MANIFEST];

    /// Returns the media type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the value of a `Content-Type` header, leaving its parameters out.
    ///
    /// # Errors
    ///
    /// Refuses what is not `type/subtype`.
    pub fn from_content_type(value: &str) -> Result<Self> {
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().parse()
    }

    /// Whether this is one image's manifest.
    #[must_use]
    pub fn is_manifest(&self) -> bool {
        [Self::OCI_MANIFEST, Self::DOCKER_MANIFEST].contains(self)
    }

    /// Whether this is a list of manifests.
    #[must_use]
    pub fn is_index(&self) -> bool {
        [Self::OCI_INDEX, Self::DOCKER_MANIFEST_LIST].contains(self)
    }

    /// Whether this is an image config.
    #[must_use]
    pub fn is_config(&self) -> bool {
        [Self::OCI_CONFIG, Self::DOCKER_CONFIG].contains(self)
    }

    /// Whether this is a tar with a change of a file system.
    #[must_use]
    pub fn is_layer(&self) -> bool {
        self.layer_compression().is_some()
    }

    /// Returns how a layer is compressed, or `None` for what is no layer.
    #[must_use]
    pub fn layer_compression(&self) -> Option<Compression> {
        let any = |types: &[Self]| types.contains(self);
        if any(&[Self::OCI_LAYER_TAR, Self::OCI_NONDISTRIBUTABLE_TAR, Self::DOCKER_LAYER_TAR]) {
            Some(Compression::None)
        } else if any(&[
            Self::OCI_LAYER_GZIP,
            Self::OCI_NONDISTRIBUTABLE_GZIP,
            Self::DOCKER_LAYER_GZIP,
            Self::DOCKER_FOREIGN_GZIP,
        ]) {
            Some(Compression::Gzip)
        } else if any(&[
            Self::OCI_LAYER_ZSTD,
            Self::OCI_NONDISTRIBUTABLE_ZSTD,
            Self::DOCKER_LAYER_ZSTD,
        ]) {
            Some(Compression::Zstd)
        } else {
            None
        }
    }

    /// Whether the blob may be pushed to any registry.
    #[must_use]
    pub fn is_distributable(&self) -> bool {
        ![
            Self::OCI_NONDISTRIBUTABLE_TAR,
            Self::OCI_NONDISTRIBUTABLE_GZIP,
            Self::OCI_NONDISTRIBUTABLE_ZSTD,
            Self::DOCKER_FOREIGN_GZIP,
        ]
        .contains(self)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MediaType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        /// RFC 6838, section 4.2, allows 127 bytes on each side of the slash.
        const MAX_LENGTH: usize = 255;
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        match text.split_once('/') {
            Some((kind, subtype))
                if text.len() <= MAX_LENGTH && is_name(kind) && is_name(subtype) =>
            {
                Ok(Self(Cow::Owned(text.to_owned())))
            }
            _ => Err(Error::MediaType { text: excerpt(text) }),
        }
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_kind() {
        assert!(MediaType::OCI_MANIFEST.is_manifest() && !MediaType::OCI_MANIFEST.is_index());
        assert!(MediaType::DOCKER_MANIFEST_LIST.is_index());
        assert!(MediaType::DOCKER_CONFIG.is_config());
        for (media_type, compression) in [
            (MediaType::OCI_LAYER_TAR, Some(Compression::None)),
            (MediaType::DOCKER_LAYER_GZIP, Some(Compression::Gzip)),
            (MediaType::OCI_LAYER_ZSTD, Some(Compression::Zstd)),
            (MediaType::DOCKER_FOREIGN_GZIP, Some(Compression::Gzip)),
            (MediaType::OCI_CONFIG, None),
            (MediaType::OCTET_STREAM, None),
        ] {
            assert_eq!(media_type.layer_compression(), compression, "{media_type}");
        }
        assert!(!MediaType::DOCKER_FOREIGN_GZIP.is_distributable());
        assert!(MediaType::OCI_LAYER_GZIP.is_distributable());
    }

    #[test]
    fn content_types_lose_their_parameters() {
        let parsed = MediaType::from_content_type("Application/JSON; charset=utf-8").unwrap();
        assert_eq!(parsed.as_str(), "application/json");
    }

    #[test]
    fn refuses_what_is_not_a_media_type() {
        for text in ["", "/", "a/", "/a", "text", "a/b/c", "a/b; c=d", "a b/c", "a/b\n", "é/a"] {
            assert!(text.parse::<MediaType>().is_err(), "accepted {text:?}");
        }
    }
}
