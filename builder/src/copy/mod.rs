//! COPY and ADD: which files, and where they go. No snapshot is made and nothing mounted.
//!
//! ```text
//! select   source words → files of a tree (context, stage, image)
//! digest   those files → content digest, the part of the step's key
//! place    files → paths in the image, in the view of the layers below
//! archive  an archive for ADD → the files in it
//! members  a tar → its members, and where their contents are
//! write    placed files → the layer's tar
//! ```

mod ahead;
mod archive;
mod digest;
mod members;
mod mode;
mod owner;
mod place;
mod select;
mod write;

pub use archive::Unpacked;
pub use digest::{Content, digest};
pub use members::members;
pub use mode::Chmod;
pub use owner::Owner;
pub use place::{Body, Destination, Placed, Placement};
pub use select::{Selected, Selector, select};
pub use write::{LayerWriting, Written, write_layer};
