//! How the processes of RUN are kept apart from the machine.
//!
//! Usually by namespaces. Where a container platform denies those, by `chroot(2)` alone
//! ([`Isolation::Chroot`]):
//!
//! ```text
//! layers ── copied ──► plain directory ── dressed: /dev, mounts as copies ──► chroot, process
//!                                      ◄─ undressed ──────────────────────────┘
//!                      its differences ──► upper ──► layer
//! ```

mod beneath;
mod dress;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use oci::DiffId;
use store::Lease;
use store::layers::{Plain, Snapshot};

pub(super) use dress::Dressed;

use crate::error::{Error, IoContext as _, Result};

/// How the processes of RUN are kept apart from the machine and from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// By namespaces, with a root that overlayfs makes.
    #[default]
    Namespaces,
    /// By the root directory alone: a plain directory, without any mount. They see the
    /// builder's other processes and its network, so what builds should itself be in a
    /// container.
    Chroot,
}

/// The plain directories of a build.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Those nobody works in, by the layers they have the files of.
    free: Mutex<Vec<(Vec<DiffId>, PathBuf)>>,
}

/// A plain directory to run one process in.
#[derive(Debug)]
pub(super) struct PlainRoot {
    plain: Plain,
    /// What is set aside in it, or put into it, on the same file system.
    aside: PathBuf,
}

impl Roots {
    /// Returns a directory with the files of a snapshot: the one that the step before has
    /// left, or a copy.
    pub(super) fn take(
        &self,
        lease: &Lease,
        snapshot: &Snapshot,
        layers: &[DiffId],
    ) -> Result<PlainRoot> {
        let mut stale = Vec::new();
        let mut kept = None;
        {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = free.iter().position(|(known, _)| known == layers) {
                kept = Some(free.swap_remove(at).1);
            }
            // The stage has moved on from these: a branch makes its own copy.
            free.retain(|(known, path)| {
                let is_past = layers.starts_with(known);
                if is_past {
                    stale.push(path.clone());
                }
                !is_past
            });
        }
        for path in stale {
            remove(&path)?;
        }
        let aside = lease.scratch("aside")?;
        let plain = match kept {
            Some(directory) => Plain::adopt(&directory)?,
            None => Plain::create(snapshot, &lease.scratch("root")?)?,
        };
        Ok(PlainRoot { plain, aside })
    }

    /// Keeps a directory for the step that follows; `layers` are those it now has the files
    /// of. Without layers it is removed.
    pub(super) fn give_back(&self, root: &PlainRoot, layers: Option<Vec<DiffId>>) -> Result<()> {
        remove(&root.aside)?;
        let path = root.plain.directory().to_owned();
        let Some(layers) = layers else { return remove(&path) };
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push((layers, path));
        Ok(())
    }
}

impl PlainRoot {
    pub(super) fn directory(&self) -> &Path {
        self.plain.directory()
    }

    pub(super) fn aside(&self) -> &Path {
        &self.aside
    }

    /// Writes what the process has changed as the upper directory of an overlay.
    pub(super) fn differences(&self, upper: &Path) -> Result<()> {
        Ok(self.plain.differences(upper)?)
    }
}

/// Removes a directory of ours with whatever processes have put there.
fn remove(path: &Path) -> Result<()> {
    std::fs::remove_dir_all(path).doing("remove", path)
}

/// Says that something takes namespaces.
fn refused(what: &str) -> Error {
    Error::Instruction(format!("{what} needs namespaces, and --isolation=chroot does without them"))
}
