//! What is in a directory, and when each of it last changed.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use rustix::fs::{FileType, Stat};

use crate::layers::{
    dir::{Dir, is, names},
    error::{EntryContext as _, LayerError, LayerResult},
    path::{MAX_PATH_BYTES, display, join},
};

/// How deep directories may lie, as in layers.
pub(super) const MAX_DEPTH: usize = 1024;
/// How many entries one listing has at most; each takes some hundred bytes.
const MAX_ENTRIES: usize = 10_000_000;

/// What tells one state of a file from another: no process can set the time of the last change, and
/// every change of content or metadata sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    kind: u32,
    size: i64,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            changed: changed(stat),
            kind: stat.st_mode,
            size: if is(stat, FileType::Directory) { 0 } else { stat.st_size },
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.kind) == FileType::Directory
    }
}

fn changed(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0))
}

/// Everything in a directory by its path; the directory itself is the empty path.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: BTreeMap<Vec<u8>, Stamp>,
}

impl Listing {
    pub(super) fn of(directory: &Path) -> LayerResult<Self> {
        let root = super::open(directory)?;
        let mut listing = Self::default();
        let stat = root.stat(b".").entry("read", b"")?;
        let stat = stat.ok_or(LayerError::Read(io::ErrorKind::NotFound.into()))?;
        listing.entries.insert(Vec::new(), Stamp::of(&stat));
        listing.add(&root, b"", 0)?;
        Ok(listing)
    }

    fn add(&mut self, root: &Dir, path: &[u8], depth: usize) -> LayerResult<()> {
        for (child, stat) in children(root, path, depth)? {
            let is_directory = is(&stat, FileType::Directory);
            if self.entries.len() >= MAX_ENTRIES {
                let (what, limit) = ("the number of files", MAX_ENTRIES as u64);
                return Err(LayerError::Limit { what, limit });
            }
            self.entries.insert(child.clone(), Stamp::of(&stat));
            if is_directory {
                self.add(root, &child, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// Returns the paths in a directory beneath `root`, with what they are.
pub(super) fn children(root: &Dir, path: &[u8], depth: usize) -> LayerResult<Vec<(Vec<u8>, Stat)>> {
    if depth > MAX_DEPTH {
        let reason = "directories are nested too deeply";
        return Err(LayerError::Path { path: display(path), reason });
    }
    let dir = root.readable_beneath(path).entry("open", path)?;
    let mut children = Vec::new();
    for name in names(&dir).entry("list", path)? {
        let child = join(path, name.as_bytes());
        if child.len() > MAX_PATH_BYTES {
            let reason = "the path is longer than 4095 bytes";
            return Err(LayerError::Path { path: display(path), reason });
        }
        // Removed meanwhile by somebody who should not be there: then it is not listed.
        if let Some(stat) = dir.stat(name.as_bytes()).entry("read", &child)? {
            children.push((child, stat));
        }
    }
    Ok(children)
}

/// Waits until a change gets a time after all that are in the listing: clocks of file systems tick
/// every few milliseconds, and a change within a tick could not be seen.
pub(super) fn wait_for_the_clock(directory: &Path, listing: &Listing) -> io::Result<()> {
    let last = listing.entries.values().map(|stamp| stamp.changed).max().unwrap_or_default();
    let beside = directory.parent().unwrap_or(directory);
    loop {
        let probe = tempfile::tempfile_in(beside)?;
        if changed(&rustix::fs::fstat(&probe)?) > last {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
