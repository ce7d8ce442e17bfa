//! Where images live on a machine, and how they travel.
//!
//! One directory holds everything, and the file system is the database: atomic renames, and locks
//! that die with their process. Any number of programs use one store at once. `docs/store-format.md`
//! gives every file and the crash rules.
//!
//! ```text
//! <root>/
//! ├── version                 of the format
//! ├── unsettled               says that blobs may not be on the disk  settle
//! ├── lock                    held for moments: shared to pin, exclusively to collect garbage
//! ├── blobs/sha256/<hex>      committed blobs                          blobs, ingest
//! ├── ingest/                 files being written
//! ├── images/                 one file per reference → descriptor      images, image
//! ├── layers/sha256/<hex>/    unpacked layers; l/ has short links      layers
//! ├── chains/sha256/<hex>/    fix-ups between layers                   layers
//! ├── steps/sha256/<hex>      build records                            steps
//! ├── compressed/             which blob is which layer compressed     compress
//! ├── containers/<id>/pins    what a container keeps                   pins
//! ├── leases/<id>/            what a running program keeps             lease
//! └── trash/                  what is being deleted                    trash, gc
//! ```
//!
//! # Invariants
//!
//! - A file under `blobs/` hashes to its name. Bytes enter through [`Ingest`] only, which hashes
//!   while it writes and renames on a match; there is no function that adds a blob without.
//! - Garbage collection never takes what an image, a container, a build record or a live [`Lease`]
//!   uses, and holds others up for moments only.
//! - Nothing here mounts or needs privileges: a root file system is described, as a list of
//!   directories, and mounted by the sandbox.

#![forbid(unsafe_code)]

mod archive;
mod blobs;
mod compress;
#[cfg(test)]
mod crash_tests;
mod durable;
mod error;
mod fault;
mod gc;
mod image;
mod images;
mod ingest;
pub mod layers;
mod lease;
mod mark;
mod origins;
mod pins;
mod prune;
pub mod remote;
mod root;
mod settle;
mod steps;
mod store;
#[cfg(test)]
mod testing;
mod trash;
mod usage;
mod version;

pub use archive::{ArchiveFormat, Layout, Listed, Loaded};
pub use blobs::{Blob, Blobs};
pub use compress::{DEFAULT_GZIP_LEVEL, DEFAULT_ZSTD_LEVEL};
pub use error::{Error, Result};
pub use gc::GcReport;
pub use image::Image;
pub use images::{Found, ImageEntry, Images};
pub use ingest::{Committed, Ingest};
pub use layers::decoder;
pub use lease::Lease;
pub use pins::Pins;
pub use prune::{PruneImages, PruneOptions, PruneRecords, PruneReport, Removal};
pub use root::Root;
pub use steps::{StepRecord, Steps};
pub use store::Store;
pub use usage::{RecordUsage, Sum, UsageKind};
