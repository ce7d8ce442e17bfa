//! What the builds of one command have to do with each other and with what comes after them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use oci::{Descriptor, DiffId, Digest};

/// What a build shares with others, and passes on before it is over.
#[derive(Clone, Copy, Default)]
pub struct Sharing<'a> {
    /// The steps that were executed for this command. With `--no-cache`, their results are good
    /// for the other platforms too: a stage for the building machine runs once.
    pub executed: Option<&'a Executed>,
    /// Told of every layer of the image as soon as it is there, so that it can leave while
    /// later steps run. Called from several threads, and not in the order of the layers.
    pub layer: Option<&'a (dyn Fn(&FinishedLayer) + Sync)>,
}

impl std::fmt::Debug for Sharing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sharing").field("executed", &self.executed).finish_non_exhaustive()
    }
}

/// A layer of the image to be.
#[derive(Clone, Debug)]
pub struct FinishedLayer {
    /// What it is when uncompressed.
    pub diff_id: DiffId,
    /// The blob in the store.
    pub blob: Descriptor,
}

/// The keys of steps that were executed, by any build of this command.
#[derive(Debug, Default)]
pub struct Executed {
    keys: Mutex<BTreeSet<Digest>>,
}

impl Executed {
    /// Returns whether a step with this key was executed.
    #[must_use]
    pub fn contains(&self, key: &Digest) -> bool {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).contains(key)
    }

    /// Notes that a step was executed, after its result was recorded.
    pub fn add(&self, key: &Digest) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(*key);
    }
}
