//! Records as they are stored.

use bytes::Bytes;
use oci::{Descriptor, Digest};
use serde::{Deserialize, Serialize};

/// What stands before a stored manifest's body, on a line of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ManifestHeader {
    pub(crate) media_type: String,
    pub(crate) pushed_s: u64,
}

/// What is stored for a tag.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TagRecord {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: String,
    pub(crate) pushed_s: u64,
}

impl TagRecord {
    pub(crate) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("text and numbers always serialize").into()
    }
}

/// Writes the record of a manifest.
pub(super) fn encode(header: &ManifestHeader, body: &Bytes) -> Bytes {
    let mut record = serde_json::to_vec(header).expect("text and numbers always serialize");
    record.push(b'\n');
    record.extend_from_slice(body);
    record.into()
}

/// Reads the record of a manifest: its header and its body.
pub(crate) fn decode(record: &Bytes) -> Option<(ManifestHeader, Bytes)> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    let header = serde_json::from_slice(&record[..end]).ok()?;
    Some((header, record.slice(end + 1..)))
}

/// Writes the record of a referrer.
pub(crate) fn encode_entry(entry: &Descriptor) -> Bytes {
    serde_json::to_vec(entry).expect("descriptors have string keys and always serialize").into()
}
