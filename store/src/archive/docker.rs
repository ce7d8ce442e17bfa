//! `manifest.json`, docker's list of the images in an archive.

use serde::{Deserialize, Serialize};

/// One image: paths into the archive, and its names.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    /// The path of the config.
    pub(super) config: String,
    /// Names with tags, in docker's short form; docker writes `null` for none.
    #[serde(deserialize_with = "null_is_empty", default)]
    pub(super) repo_tags: Vec<String>,
    /// The paths of the layers, bottom first.
    #[serde(deserialize_with = "null_is_empty", default)]
    pub(super) layers: Vec<String>,
}

/// Returns the file.
pub(super) fn to_bytes(images: &[DockerImage]) -> Vec<u8> {
    serde_json::to_vec(images).expect("lists of texts")
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
