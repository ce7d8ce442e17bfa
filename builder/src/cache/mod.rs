//! What a build takes over from earlier ones, its own or other people's.
//!
//! ```text
//! options   what the user asks for: pull policy, steps to run anyway, caches to import and export
//! layout    a cache in a directory: an OCI image layout
//! ```

pub(crate) mod layout;
mod options;

pub use options::{Caching, Policy, Refresh};
