//! Deleting in two moments: out of sight at once, off the disk when there is time.
//!
//! Something is discarded by renaming it into `trash/`, which is atomic; nothing there has a
//! meaning any more, and whoever comes by may delete it. Trees are deleted without recursion: each
//! directory is moved up into `trash/` before it is emptied, so the depth of a hostile tree costs
//! neither stack nor descriptors nor long paths.

use std::fs::{self, DirEntry, Permissions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::durable::{absent_is_fine, if_present};
use crate::error::{IoContext as _, Result};
use crate::fault;
use crate::root::Root;

/// The unit of `st_blocks`, whatever the file system's own block size.
const STAT_BLOCK_BYTES: u64 = 512;

/// Removes a file or a tree, returning the bytes it occupied; what is absent is fine.
///
/// # Errors
///
/// If something cannot be removed. It is out of sight nevertheless, unless the very first rename
/// failed.
pub(crate) fn discard(root: &Root, path: &Path) -> Result<u64> {
    match hide(root, path)? {
        Some(hidden) => delete(root, hidden),
        None => Ok(0),
    }
}

/// Moves something into the trash, returning its place there, or `None` if it was not there.
pub(crate) fn hide(root: &Root, path: &Path) -> Result<Option<PathBuf>> {
    let hidden = root.trash().join(unique_name());
    match fault::point().and_then(|()| rename_writable(path, &hidden)) {
        Ok(()) => Ok(Some(hidden)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing("remove", path),
    }
}

/// Deletes everything in the trash, whoever left it, returning the bytes it occupied.
pub(crate) fn empty(root: &Root) -> Result<u64> {
    let trash = root.trash();
    let mut bytes = 0;
    for entry in fs::read_dir(&trash).doing("list", &trash)? {
        bytes += delete(root, entry.doing("list", &trash)?.path())?;
    }
    Ok(bytes)
}

/// Deletes one thing in the trash. Several processes may be at the same one.
pub(crate) fn delete(root: &Root, hidden: PathBuf) -> Result<u64> {
    let mut bytes = 0;
    let mut queue = vec![hidden];
    while let Some(path) = queue.pop() {
        let Some(metadata) = if_present(fs::symlink_metadata(&path)).doing("read", &path)? else {
            continue;
        };
        if metadata.is_dir() {
            empty_directory(root, &path, &mut bytes, &mut queue)?;
            fault::point().doing("remove", &path)?;
            if absent_is_fine(fs::remove_dir(&path)).doing("remove", &path).is_ok() {
                bytes += metadata.blocks() * STAT_BLOCK_BYTES;
            }
        } else {
            bytes += unlink(&path, &metadata)?;
        }
    }
    Ok(bytes)
}

/// Unlinks a directory's files and moves its directories up into the trash and the queue.
fn empty_directory(
    root: &Root,
    path: &Path,
    bytes: &mut u64,
    queue: &mut Vec<PathBuf>,
) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(path).doing("open", path)?;
            fs::read_dir(path)
        }
        other => other,
    };
    let Some(entries) = if_present(entries).doing("list", path)? else { return Ok(()) };
    // Collected first: a directory that changes while it is read may skip entries.
    let entries: Vec<DirEntry> = entries.collect::<io::Result<_>>().doing("list", path)?;
    for entry in entries {
        let entry_path = entry.path();
        let Some(metadata) = if_present(entry.metadata()).doing("read", &entry_path)? else {
            continue;
        };
        if metadata.is_dir() {
            queue.extend(hide(root, &entry_path)?);
        } else {
            *bytes += unlink(&entry_path, &metadata)?;
        }
    }
    Ok(())
}

/// Removes a file, returning the bytes it occupied if this was its last name.
fn unlink(path: &Path, metadata: &fs::Metadata) -> Result<u64> {
    let parent = path.parent().expect("a file in the trash has a parent");
    let result = fault::point().and_then(|()| match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(parent)?;
            fs::remove_file(path)
        }
        other => other,
    });
    absent_is_fine(result).doing("remove", path)?;
    Ok(if metadata.nlink() == 1 { metadata.blocks() * STAT_BLOCK_BYTES } else { 0 })
}

/// Renames; an image's read-only directories are no obstacle to an unprivileged owner.
fn rename_writable(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Moving a directory changes its `..`, so it must be writable itself.
            make_writable(from)?;
            make_writable(from.parent().unwrap_or(from))?;
            fs::rename(from, to)
        }
        other => other,
    }
}

fn make_writable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// Returns a name that no other process gives to anything in the trash.
fn unique_name() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    // The standard library seeds its hashers from the system's random numbers.
    let process = PROCESS.get_or_init(|| RandomState::new().build_hasher().finish());
    format!("{process:016x}-{}", COUNTER.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::{discard, empty};
    use crate::store::Store;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn deep_read_only_tree_with_links_is_removed_and_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let tree = dir.path().join("volumes/tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a"), vec![1; 10_000]).unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), tree.join("out")).unwrap();
        // Deeper than a process has descriptors; made by moving, since a path cannot be so long.
        for _ in 0..1100 {
            let next = dir.path().join("volumes/next");
            fs::create_dir(&next).unwrap();
            fs::rename(&tree, next.join("d")).unwrap();
            fs::rename(&next, &tree).unwrap();
        }
        fs::set_permissions(tree.join("d/d"), Permissions::from_mode(0o000)).unwrap();
        let bytes = discard(store.root(), &tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_dir(store.root().trash()).unwrap().count(), 0);
        assert!((10_000..10_000 + 1102 * 4096 + 4096).contains(&bytes), "{bytes}");
        assert!(store.root().blobs(oci::Algorithm::Sha256).exists(), "links are not followed");
    }

    #[test]
    fn trash_of_a_process_that_died_is_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::create_dir_all(store.root().trash().join("left/behind")).unwrap();
        fs::write(store.root().trash().join("left/behind/file"), "x").unwrap();
        fs::write(store.root().trash().join("blob"), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| empty(store.root()).unwrap());
            }
        });
        assert_eq!(fs::read_dir(store.root().trash()).unwrap().count(), 0);
    }

    #[test]
    fn absent_things_are_already_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(discard(store.root(), &dir.path().join("volumes/none")).unwrap(), 0);
    }
}
