//! The file operations that the crash rules are made of.
//!
//! Each is a single step that either happened or did not; whoever needs several in an order gets
//! the order from here ([`replace`], [`publish`]). All of them pass a [`fault`] point, so that a
//! test can stop the world before any of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::error::{IoContext as _, Result};
use crate::fault;

/// How many files are synced at once. The threads only wait; more of them gain nothing.
const SYNCS_AT_ONCE: usize = 16;

/// Whether something must outlive a power cut once it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It must: the file is synced before it gets its name, and its directory after.
    Synced,
    /// It may be lost, because it can be made again.
    Volatile,
}

/// Creates a file that must not exist yet, for its owner only.
pub(crate) fn create(path: &Path) -> Result<File> {
    create_with(path, 0o600)
}

/// Creates a file that must not exist yet, with this mode.
pub(crate) fn create_with(path: &Path, mode: u32) -> Result<File> {
    fault::point()
        .and_then(|()| {
            OpenOptions::new().write(true).read(true).create_new(true).mode(mode).open(path)
        })
        .doing("create", path)
}

/// Writes all of `bytes` at the file's position.
pub(crate) fn write(mut file: &File, bytes: &[u8], path: &Path) -> Result<()> {
    if let Err(error) = fault::point() {
        // A process that dies while it writes leaves a part. Only tests come here.
        file.write_all(&bytes[..bytes.len() / 2]).doing("write", path)?;
        return Err(error).doing("write", path);
    }
    file.write_all(bytes).doing("write", path)
}

/// Moves a file or directory to its final name, replacing a file that has it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::rename(from, to)).doing("rename into", to)
}

/// Waits until a file's bytes are on the disk.
pub(crate) fn sync(file: &File, path: &Path) -> Result<()> {
    fault::point()
        .and_then(|()| if fault::IS_SYNCED { file.sync_data() } else { Ok(()) })
        .doing("sync", path)
}

/// Waits until the bytes of several files are on the disk: one after the other each would wait for
/// the file system's journal, together they share its writes.
pub(crate) fn sync_all(files: &[(File, PathBuf)]) -> Result<()> {
    for (_, path) in files {
        fault::point().doing("sync", path)?;
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some((file, path)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            if fault::IS_SYNCED {
                file.sync_data().doing("sync", path)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let helpers = files.len().min(SYNCS_AT_ONCE).saturating_sub(1);
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        helpers.into_iter().fold(work(), |result, helper| {
            result.and(helper.join().expect("syncing does not panic"))
        })
    })
}

/// Waits until a directory's entries are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    fault::point()
        .and_then(|()| File::open(path))
        .and_then(|dir| if fault::IS_SYNCED { dir.sync_all() } else { Ok(()) })
        .doing("sync", path)
}

/// Removes a file; one that is already gone is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    absent_is_fine(fault::point().and_then(|()| fs::remove_file(path))).doing("remove", path)
}

/// Gives a finished file its name: sync, rename, sync the directory.
pub(crate) fn publish(file: &File, from: &Path, to: &Path, durability: Durability) -> Result<()> {
    if durability == Durability::Synced {
        sync(file, from)?;
    }
    rename(from, to)?;
    if durability == Durability::Synced {
        sync_dir(to.parent().expect("a file of the store is in a directory of the store"))?;
    }
    Ok(())
}

/// Puts `bytes` in place of a file's content, all or nothing, by way of `temporary`.
pub(crate) fn replace(
    temporary: &Path,
    path: &Path,
    bytes: &[u8],
    durability: Durability,
) -> Result<()> {
    let file = create(temporary)?;
    let result =
        write(&file, bytes, temporary).and_then(|()| publish(&file, temporary, path, durability));
    if result.is_err() {
        // The first error is the one to report; what stays behind is gc's.
        let _left_for_gc = remove(temporary);
    }
    result
}

/// Turns "there is no such file" into success.
pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Turns "there is no such file" into `None`.
pub(crate) fn if_present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
