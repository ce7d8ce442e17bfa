//! What images are: the OCI specifications as types.
//!
//! Everything here is pure: no input or output, no clock, no environment. Text
//! and bytes from outside become types that cannot be wrong, once, at the
//! border; the other crates pass those types around.
//!
//! ```text
//! Reference  docker.io/library/busybox:latest@sha256:…      a name for …
//!   └─ Descriptor (media type, digest, size)                … some content:
//!        ├─ Index     one descriptor per platform
//!        └─ Manifest  one image
//!             ├─ config: Descriptor → ImageConfig            (DiffId per layer)
//!             └─ layers: Descriptor → tar, gzip or zstd      (ChainId per stack)
//! ```
//!
//! # Invariants
//!
//! - A [`Digest`] holds exactly as many bytes as its algorithm makes.
//! - A [`Reference`] that exists can be printed, parsed again, and is the same.
//! - Fields a specification does not know are kept as the text their author
//!   wrote ([`Extra`]), so that reading and writing a document loses nothing.
//! - What is too large, too deep, ambiguous or names a key twice is refused
//!   before anything is built from it.

#![forbid(unsafe_code)]

mod config;
mod descriptor;
mod digest;
mod document;
mod error;
mod index;
mod json;
mod manifest;
mod media_type;
mod platform;
mod reference;
mod repository;

pub use config::{History, ImageConfig, MAX_CONFIG_BYTES, RuntimeConfig};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, ChainId, DiffId, Digest, Hasher};
pub use document::{Document, MAX_MANIFEST_BYTES};
pub use error::{Error, Result};
pub use index::Index;
pub use json::{Extra, Json, MAX_NESTING};
pub use manifest::Manifest;
pub use media_type::{Compression, MediaType};
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference};
pub use repository::{MAX_REPOSITORY_LENGTH, MAX_TAG_LENGTH, Repository, Tag};
