//! Layers: a tar, and the directory it means.
//!
//! ```text
//! layers/sha256/<diff id>/     one layer, unpacked on its own                unpack, place
//! ├── fs/                      its entries in overlay form
//! ├── index                    what about it depends on the layers below    index
//! └── stamp                    whether to trust it after a crash            stamp
//! chains/sha256/<chain id>/    what a layer needs on top of those below it  chain, fixup
//! l/<short>                    links to both, for mount options             place
//! ```
//!
//! # Invariants
//!
//! - A directory under `layers/` was made from a tar whose digest is its name, or is what unpacking
//!   that tar would make. It appears by one rename and never changes.
//! - It is derived data: losing it costs time. Nothing of it is synced file by file.
//! - Bytes from an image never name a place outside of the layer's own directory.

mod active;
mod chain;
mod decode;
mod dir;
mod entry;
mod error;
mod fixup;
mod index;
mod pack;
mod path;
mod place;
mod plain;
mod snapshot;
mod stamp;
pub mod tar;
mod unpack;
mod view;
mod writer;

pub use active::{Active, Layer, LayerOptions, prepare_upper};
pub use decode::{decoder, detect, detecting_decoder};
pub use entry::{Entry, Kind, Metadata, Timestamp, Xattrs, is_image_xattr};
pub use error::LayerError;
pub use index::LayerIndex;
pub use pack::tar_dir;
pub use plain::{Plain, copy_tree};
pub use snapshot::{Snapshot, snapshot_pins};
pub(crate) use stamp::of_this_boot as this_boot;
pub use view::{MergedView, Node};
pub use writer::LayerWriter;

#[cfg(test)]
mod tests;
