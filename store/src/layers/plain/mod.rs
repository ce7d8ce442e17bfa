//! A snapshot as one plain directory, for where overlayfs cannot be mounted.
//!
//! ```text
//! snapshot ── copy ──► directory ── listing ──► a process changes it
//!                                      └──────── differences ──► upper, in overlay form
//! ```
//!
//! The copy shares no file with the layers: what the process writes stays in the directory. What it
//! changed is found by comparing the directory with a listing from before, by the inode and the time
//! of its last change, which no process can set.

mod copy;
mod differences;
mod listing;

use std::path::{Path, PathBuf};

use super::{
    active::invalid,
    dir::Dir,
    error::{EntryContext as _, LayerError, LayerResult},
    snapshot::Snapshot,
    view::MergedView,
};
use crate::error::{IoContext as _, Result};
use listing::Listing;

pub use copy::copy_tree;

/// A plain directory with the files of a snapshot, which a process may change.
#[derive(Debug)]
pub struct Plain {
    directory: PathBuf,
    before: Listing,
}

impl Plain {
    /// Copies the files of a snapshot into `directory`, which exists and is empty.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be read, or made by this user.
    pub fn create(snapshot: &Snapshot, directory: &Path) -> Result<Self> {
        copy_tree(snapshot.view()?, Path::new(""), directory).map_err(invalid)?;
        Self::adopt(directory)
    }

    /// Takes a directory that has the files of a snapshot already.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read.
    pub fn adopt(directory: &Path) -> Result<Self> {
        let before = Listing::of(directory).map_err(invalid)?;
        listing::wait_for_the_clock(directory, &before).doing("write to", directory)?;
        Ok(Self { directory: directory.to_owned(), before })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes what has changed since into `upper` in overlay form: the same directory that overlayfs
    /// would have left there. `upper` exists and has the metadata of the root below.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be read or copied.
    pub fn differences(&self, upper: &Path) -> Result<()> {
        differences::write(&self.directory, &self.before, upper).map_err(invalid)
    }
}

/// Opens one directory as a stack.
fn view(directory: &Path) -> LayerResult<MergedView> {
    MergedView::open(&[directory.to_owned()]).map_err(LayerError::Read)
}

fn open(directory: &Path) -> LayerResult<Dir> {
    Dir::open(directory).entry("open", b"")
}
