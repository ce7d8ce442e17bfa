//! The handle on a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blobs::Blobs;
use crate::error::Result;
use crate::images::Images;
use crate::lease::Lease;
use crate::root::Root;
use crate::steps::Steps;
use crate::version::FORMAT;

/// A store on this machine: blobs, images, layers and build records beneath one directory.
///
/// Cheap to clone and safe to share. Any number of processes may have the same store open;
/// opening holds nothing. Whatever writes, or needs something to stay, takes a [`Lease`].
#[derive(Clone, Debug)]
pub struct Store {
    root: Arc<Root>,
}

impl Store {
    /// Opens the store in a directory, creating or upgrading it where needed.
    ///
    /// # Errors
    ///
    /// If the directory is used for something else, was written by a newer program, or cannot be
    /// written.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(Self { root: Arc::new(Root::open(root, &FORMAT)?) })
    }

    /// Returns the paths of the store.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Takes a lease: what is written or pinned through it stays until it is dropped.
    ///
    /// # Errors
    ///
    /// If its directory cannot be written.
    pub fn lease(&self) -> Result<Lease> {
        Lease::new(self.clone())
    }

    /// Returns the blobs.
    #[must_use]
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(self)
    }

    /// Returns the image names.
    #[must_use]
    pub fn images(&self) -> Images<'_> {
        Images::new(self)
    }

    /// Returns the build records.
    #[must_use]
    pub fn steps(&self) -> Steps<'_> {
        Steps::new(self)
    }

    /// Returns the directory of containers, one directory each; see [`Pins`](crate::Pins).
    #[must_use]
    pub fn containers_dir(&self) -> PathBuf {
        self.root.containers()
    }
}
