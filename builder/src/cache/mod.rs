//! What a build takes over from earlier ones, its own or other people's, and what it leaves.
//!
//! ```text
//! options   what the user asks for: pull policy, steps to run anyway, caches to import and export
//! spec      --cache-from and --cache-to as they are written
//! records   the format of an exported cache: which step came to which layer
//! import    records of other builds, read when the first step is not recorded here
//! export    records and layers, after the build
//! layout    a cache in a directory: an OCI image layout
//! ```
//!
//! `docs/cache.md` gives the format.

mod export;
mod import;
pub(crate) mod layout;
mod options;
mod records;
mod spec;

pub use export::Trail;
pub(crate) use export::{Made, Surroundings as Exporting, export};
pub(crate) use import::{Imports, Surroundings as Importing};
pub use options::{Caching, Policy, Refresh};
pub(crate) use records::INLINE_FIELD;
pub use spec::{Export, Import, Mode, Target};
