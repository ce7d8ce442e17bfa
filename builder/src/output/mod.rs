//! What becomes of a finished build.
//!
//! ```text
//! spec       --output as it is written              annotation   what is noted in manifests
//! finished   the builds of all platforms as one     form         compressed, annotated
//! rootfs     its files: as a tar, or (local) in a directory
//! file       nobody finds half of one
//! reproduce  where two builds differ
//! sharing    what the builds of one command share while they run
//! ```

mod annotation;
mod file;
mod finished;
mod form;
mod local;
mod reproduce;
mod rootfs;
mod sharing;
mod spec;

pub use annotation::{Annotations, Key, Place};
pub use file::Target;
pub use finished::Finished;
pub use local::write_local;
pub use reproduce::{Difference, difference};
pub use rootfs::{Rootfs, platform_directory, write_tar};
pub use sharing::{Executed, FinishedLayer, Sharing};
pub use spec::{Destination, Form, Kind, Output, Push};
