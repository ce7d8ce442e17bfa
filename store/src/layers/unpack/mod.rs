//! Turns a layer's tar into a directory in overlay form.
//!
//! Each layer is unpacked on its own, whatever lies below it, so that layers can be unpacked at the
//! same time and shared by every image that has them. What follows from that is in the
//! [`index`](super::index).
//!
//! How entries are read, where tools differ:
//!
//! - An absolute path counts from the root of the layer, as with docker; `..` is taken away by
//!   spelling, and a path that would climb above the root is refused.
//! - A parent that the same layer made a symbolic link is followed inside the root, as docker and
//!   containerd do. A link in a *lower* layer is not followed: a directory takes its place, as with
//!   their overlay drivers.
//! - An entry whose path exists replaces it, whatever both are, except that a directory stays and
//!   takes the new metadata.
//! - A hard link is another name and has no metadata of its own: what its header says is ignored.
//! - A whiteout hides lower layers only, wherever in the tar it stands.
//! - The device 0/0, overlayfs' own whiteout, is refused: an image says `.wh.`.

mod apply;
mod fill;
mod tree;

pub(crate) use apply::apply;
