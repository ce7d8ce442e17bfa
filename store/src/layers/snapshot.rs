//! Snapshots: a file system as the list of directories that overlayfs stacks.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use oci::{ChainId, DiffId, Digest};

use super::{chain, view::MergedView};
use crate::{
    Lease, Store,
    error::{IoContext as _, Result},
};

/// The empty tar: two empty blocks. What `FROM scratch` stands on, since overlayfs stacks at least
/// one directory.
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// A read-only file system: layers, and the fix-ups between them.
///
/// Nothing is mounted here. The sandbox mounts the list inside its own mount namespace, so that a
/// crash leaves no mount on the host.
///
/// Clones share one list and one view.
#[derive(Clone, Debug)]
pub struct Snapshot {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lowers: Vec<PathBuf>,
    digests: Vec<Digest>,
    view: OnceLock<MergedView>,
}

impl Lease {
    /// Stacks layers, given from the bottom, and keeps them while the lease lives.
    ///
    /// # Errors
    ///
    /// [`Error::LayerMissing`](crate::Error::LayerMissing) names a layer that is not unpacked.
    pub fn snapshot(&self, diff_ids: &[DiffId]) -> Result<Snapshot> {
        let empty = [DiffId(Digest::sha256(&EMPTY_TAR))];
        let diff_ids = if diff_ids.is_empty() {
            self.unpack_stream(&EMPTY_TAR[..], empty[0])?;
            &empty
        } else {
            diff_ids
        };
        let (digests, top) = digests(diff_ids);
        self.pin_all(&digests)?;
        let stack = match chain::recorded(self.store(), top)? {
            Some(stack) => stack,
            None => chain::prepare(self, diff_ids)?,
        };
        Ok(Snapshot::new(self.store(), &stack, digests))
    }
}

impl Store {
    /// Returns a snapshot that is kept by something else than a lease, such as the pins of a
    /// container; `None` if it must be prepared with [`Lease::snapshot`] first.
    ///
    /// The caller must have pinned [`snapshot_pins`] before.
    ///
    /// # Errors
    ///
    /// Fails if the store cannot be read.
    pub fn pinned_snapshot(&self, diff_ids: &[DiffId]) -> Result<Option<Snapshot>> {
        if diff_ids.is_empty() {
            return Ok(None);
        }
        let (digests, top) = digests(diff_ids);
        let stack = chain::recorded(self, top)?;
        Ok(stack.map(|stack| Snapshot::new(self, &stack, digests)))
    }
}

/// What must be pinned to keep the snapshot of these layers, given from the bottom.
#[must_use]
pub fn snapshot_pins(diff_ids: &[DiffId]) -> Vec<Digest> {
    if diff_ids.is_empty() { Vec::new() } else { digests(diff_ids).0 }
}

/// The layers and chains of a snapshot, and the chain of its top.
fn digests(diff_ids: &[DiffId]) -> (Vec<Digest>, ChainId) {
    let mut digests: Vec<Digest> = diff_ids.iter().map(|diff_id| diff_id.0).collect();
    let mut top = ChainId::base(diff_ids[0]);
    for diff_id in &diff_ids[1..] {
        digests.push(top.digest());
        top = top.child(*diff_id);
    }
    digests.push(top.digest());
    (digests, top)
}

impl Snapshot {
    fn new(store: &Store, stack: &chain::Stack, digests: Vec<Digest>) -> Self {
        let links = store.root().links();
        let lowers = stack.whole().map(|name| links.join(name)).collect();
        Self { inner: Arc::new(Inner { lowers, digests, view: OnceLock::new() }) }
    }

    /// The directories to stack, from the top: short links in one directory of the store.
    #[must_use]
    pub fn lowers(&self) -> &[PathBuf] {
        &self.inner.lowers
    }

    /// What keeps this snapshot when it is pinned: its layers and chains.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.inner.digests
    }

    /// Returns a look at the merged tree, opened at the first call.
    ///
    /// # Errors
    ///
    /// Fails if a layer cannot be opened.
    pub fn view(&self) -> Result<&MergedView> {
        if let Some(view) = self.inner.view.get() {
            return Ok(view);
        }
        let first = self.lowers().first().map_or(Path::new(""), PathBuf::as_path);
        let view = MergedView::open(&self.inner.lowers).doing("open the layers at", first)?;
        Ok(self.inner.view.get_or_init(|| view))
    }

    /// Reads a regular file of at most `max_bytes`, links followed inside the root; `None` if there
    /// is none.
    ///
    /// # Errors
    ///
    /// Fails for anything but a regular file, for longer ones, and if a layer cannot be read.
    pub fn read_file(&self, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
        let read: io::Result<_> = self.view()?.read_file(path, max_bytes);
        read.doing("read the image's", path)
    }
}
