//! Which blob is which layer compressed.

use std::fs;
use std::path::PathBuf;

use oci::{Compression, Descriptor, DiffId};
use serde::{Deserialize, Serialize};

use super::ENCODER_VERSION;
use crate::durable::{self, Durability, if_present};
use crate::error::{IoContext as _, Result};
use crate::gc;
use crate::lease::Lease;
use crate::store::Store;

/// The place of what is remembered about one layer in one form.
///
/// Like a build record it may be lost, and what it names is checked when it is read.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    diff_id: DiffId,
}

/// What a note says.
#[derive(Serialize, Deserialize)]
struct Content {
    diff_id: DiffId,
    descriptor: Descriptor,
}

/// A note as garbage collection sees it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
}

impl Note {
    pub(super) fn new(store: &Store, diff_id: &DiffId, codec: Compression, level: u32) -> Self {
        let codec = match codec {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        };
        let (algorithm, hex) = (diff_id.0.algorithm(), diff_id.0.hex());
        let name = format!("{algorithm}-{hex}.{codec}-{level}-{ENCODER_VERSION}");
        Self { path: store.root().compressed().join(name), diff_id: *diff_id }
    }

    /// Returns the compressed blob, pinned, if it is remembered and stored.
    pub(super) fn get(&self, lease: &Lease) -> Result<Option<Descriptor>> {
        let bytes = if_present(fs::read(&self.path)).doing("read", &self.path)?;
        let Some(content) = bytes.and_then(|bytes| parse(&bytes)) else { return Ok(None) };
        if content.diff_id != self.diff_id {
            return Ok(None);
        }
        lease.pin(&content.descriptor.digest)?;
        let size = lease.store().blobs().size(&content.descriptor.digest)?;
        Ok((size == Some(content.descriptor.size)).then_some(content.descriptor))
    }

    pub(super) fn set(&self, lease: &Lease, descriptor: &Descriptor) -> Result<()> {
        let content = Content { diff_id: self.diff_id, descriptor: descriptor.clone() };
        let bytes = serde_json::to_vec(&content).expect("a note has only text for keys");
        durable::replace(&lease.temporary(), &self.path, &bytes, Durability::Volatile)
    }
}

/// Returns all notes that are whole.
pub(crate) fn notes(store: &Store) -> Result<Vec<Listed>> {
    let mut notes = Vec::new();
    for path in gc::list(&store.root().compressed())? {
        let bytes = if_present(fs::read(&path)).doing("read", &path)?;
        if let Some(Content { diff_id, descriptor }) = bytes.and_then(|bytes| parse(&bytes)) {
            notes.push(Listed { path, diff_id, descriptor });
        }
    }
    Ok(notes)
}

/// A note that was torn by a power cut is no note.
fn parse(bytes: &[u8]) -> Option<Content> {
    serde_json::from_slice(bytes).ok()
}
