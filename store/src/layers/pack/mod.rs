//! Turns a directory into a layer's tar: only what changed, always in the same order.
//!
//! The order is containerd's: parents before children, names sorted by their bytes. Directories in
//! which something changed are written with it, so that the layer is self-contained.
//!
//! Where tools differ:
//!
//! - A directory that was removed and made again is written as such, with `.wh..wh..opq`, which every
//!   tool reads. containerd lists what was in it as single whiteouts instead.
//! - `user.` attributes are kept; BuildKit loses them.
//! - A changed root is written as `./`, which docker applies and containerd ignores.

mod adjust;
mod same;
mod walk;

pub use walk::tar_dir;
pub(crate) use walk::{Mode, pack};
