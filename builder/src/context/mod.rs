//! The build context: a directory of the user's, seen through its ignore file.
//!
//! Only what a COPY or ADD names is walked, from directory descriptors, and nothing is
//! read that an earlier build has read and that has not changed since ([`Index`]).
//!
//! # Invariants
//!
//! - No path leaves the directory: every lookup is beneath its descriptor and follows no
//!   symbolic link.
//! - Everything belongs to 0:0, whoever owns it on this machine.

mod contexts;
mod directory;
mod held;
mod index;
mod layout;
mod tar;
#[cfg(test)]
mod tests;
mod walk;

pub use contexts::{Contexts, IndexPath, SharedTree, Source, ignore_file};
pub use directory::{Context, MAX_ENTRIES};
pub(crate) use directory::{capability, hash_file, stamp_of};
pub use held::Content as HeldContent;
pub use index::Index;
pub use layout::{Layout, SCHEME as LAYOUT_SCHEME};
pub use tar::TarTree;

use std::path::Path;

use crate::ignore::Ignore;

/// Returns whether patterns match a path or a directory above it.
///
/// Patterns are text: bytes of a name that are none match as the replacement character.
pub(crate) fn is_ignored(patterns: &Ignore, path: &Path) -> bool {
    !patterns.is_empty() && patterns.matches(&path.to_string_lossy())
}
