//! What the unpacker remembers of the tree it makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::layers::{
    entry::Metadata,
    error::{LayerError, LayerResult},
    index::LayerIndex,
    path::ancestors,
    tar::MAX_ENTRIES,
};

/// How much memory the names that must be remembered may take. A layer with 300,000 directories
/// takes about half of it, and programs stay below 100 MiB whatever a layer holds.
const MAX_REMEMBERED_BYTES: usize = 64 << 20;
/// What a name costs besides its bytes.
const COST_OF_A_NAME: usize = 128;

/// A directory that was made.
#[derive(Debug)]
pub(super) struct DirState {
    /// Given by its entry, or what an implied directory has.
    pub(super) metadata: Metadata,
    /// Whether an entry describes it.
    pub(super) is_explicit: bool,
    /// Whether it hides what lower layers have in it.
    pub(super) is_opaque: bool,
}

/// Everything that can only be finished when the whole tar was read: directories, whose times would
/// change with each entry in them, and whatever reaches into lower layers.
#[derive(Debug)]
pub(super) struct Tree {
    /// All directories by path, the root included. A path that is here is a real directory.
    pub(super) dirs: BTreeMap<Vec<u8>, DirState>,
    /// What is to be hidden of lower layers.
    pub(super) whiteouts: BTreeSet<Vec<u8>>,
    /// Names of files of lower layers.
    pub(super) links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Devices that could not be made.
    pub(super) skipped: BTreeSet<Vec<u8>>,
    remembered: usize,
    directories: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self {
            dirs: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            links: BTreeMap::new(),
            skipped: BTreeSet::new(),
            remembered: 0,
            directories: 0,
        };
        tree.dirs.insert(Vec::new(), implied());
        tree
    }

    /// Notes a directory that was just made because something is inside it.
    pub(super) fn add_implied(&mut self, path: Vec<u8>) -> LayerResult<()> {
        self.directories += 1;
        if self.directories > MAX_ENTRIES {
            let what = "the number of directories";
            return Err(LayerError::Limit { what, limit: MAX_ENTRIES });
        }
        self.remember(path.len())?;
        self.dirs.insert(path, implied());
        Ok(())
    }

    /// Notes what an entry says of a directory that exists.
    pub(super) fn describe(&mut self, path: &[u8], metadata: Metadata) -> LayerResult<()> {
        let xattrs = metadata.xattrs.iter().map(|(name, value)| name.len() + value.len());
        self.remember(xattrs.sum())?;
        let state = self.dirs.get_mut(path).expect("the directory was made before");
        state.metadata = metadata;
        state.is_explicit = true;
        Ok(())
    }

    pub(super) fn add_whiteout(&mut self, path: Vec<u8>) -> LayerResult<()> {
        self.remember(path.len())?;
        self.whiteouts.insert(path);
        Ok(())
    }

    pub(super) fn add_link(&mut self, path: Vec<u8>, target: Vec<u8>) -> LayerResult<()> {
        self.remember(path.len() + target.len())?;
        self.links.insert(path, target);
        Ok(())
    }

    pub(super) fn add_skipped(&mut self, path: Vec<u8>) -> LayerResult<()> {
        self.remember(path.len())?;
        self.skipped.insert(path);
        Ok(())
    }

    /// Whether the name belongs to something that is not on the disk.
    pub(super) fn is_name_taken(&self, path: &[u8]) -> bool {
        self.links.contains_key(path) || self.skipped.contains(path)
    }

    /// Forgets what is not on the disk under this name, because something else takes it.
    pub(super) fn forget_name(&mut self, path: &[u8]) {
        self.links.remove(path);
        self.skipped.remove(path);
    }

    /// Forgets a directory that was replaced, with everything inside it.
    pub(super) fn forget_directory(&mut self, path: &[u8]) {
        self.dirs.remove(path);
        for below in below(&self.dirs, path) {
            self.dirs.remove(&below);
        }
        for below in below(&self.links, path) {
            self.links.remove(&below);
        }
        for set in [&mut self.whiteouts, &mut self.skipped] {
            for below in below_in_set(set, path) {
                set.remove(&below);
            }
        }
    }

    /// Decides what whiteouts mean now that all entries are known; keeps those that need a device.
    ///
    /// A whiteout hides lower layers only, wherever in the tar it stands. Where the same layer has a
    /// directory of that name, the directory is opaque; where it has anything else, that hides the
    /// lower layers by itself. Below an opaque directory there is nothing left to hide.
    pub(super) fn settle_whiteouts(&mut self) {
        let mut needed = BTreeSet::new();
        for path in std::mem::take(&mut self.whiteouts) {
            match self.dirs.get_mut(&path) {
                Some(state) => {
                    state.is_opaque = true;
                    // It replaces the lower one, so it has nothing from it.
                    state.is_explicit = true;
                }
                None if self.links.contains_key(&path) => {}
                None => drop(needed.insert(path)),
            }
        }
        needed.retain(|path| !self.is_hidden_below(path));
        self.whiteouts = needed;
    }

    /// Whether an ancestor is opaque, so that no lower layer can be seen at this path.
    fn is_hidden_below(&self, path: &[u8]) -> bool {
        ancestors(path).any(|above| self.dirs.get(above).is_some_and(|state| state.is_opaque))
    }

    /// What of this depends on lower layers.
    pub(super) fn into_index(self) -> LayerIndex {
        let implied = self.dirs.iter().filter(|(path, state)| {
            // A directory that replaces a lower one, or is inside one that does, inherits nothing.
            // An opaque one whose name has no whiteout keeps the lower one's metadata.
            !state.is_explicit && !self.is_hidden_below(path)
        });
        LayerIndex {
            implied: implied.map(|(path, _)| path.clone()).collect(),
            is_root_opaque: self.dirs.get(&b""[..]).is_some_and(|root| root.is_opaque),
            whiteouts: self.whiteouts.into_iter().collect(),
            links: self.links.into_iter().collect(),
            skipped: self.skipped.into_iter().collect(),
        }
    }

    fn remember(&mut self, bytes: usize) -> LayerResult<()> {
        self.remembered += bytes + COST_OF_A_NAME;
        if self.remembered > MAX_REMEMBERED_BYTES {
            return Err(LayerError::Limit {
                what: "the memory for names of directories, whiteouts and links",
                limit: MAX_REMEMBERED_BYTES as u64,
            });
        }
        Ok(())
    }
}

fn implied() -> DirState {
    DirState { metadata: Metadata::implied_directory(), is_explicit: false, is_opaque: false }
}

/// The keys inside a directory.
fn below<V>(map: &BTreeMap<Vec<u8>, V>, path: &[u8]) -> Vec<Vec<u8>> {
    let inside = [path, b"/"].concat();
    let range = (Bound::Included(inside.clone()), Bound::Unbounded);
    let keys = map.range::<Vec<u8>, _>(range).map(|(key, _)| key);
    keys.take_while(|key| key.starts_with(&inside)).cloned().collect()
}

/// The members inside a directory.
fn below_in_set(set: &BTreeSet<Vec<u8>>, path: &[u8]) -> Vec<Vec<u8>> {
    let inside = [path, b"/"].concat();
    let range = (Bound::Included(inside.clone()), Bound::Unbounded);
    let keys = set.range::<Vec<u8>, _>(range);
    keys.take_while(|key| key.starts_with(&inside)).cloned().collect()
}
