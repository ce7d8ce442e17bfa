//! The format of a store, and the way from each older one to the present.
//!
//! `version` holds the format as a decimal number and a line feed. It is written last, so a store
//! whose creation was interrupted has none and is created again. An upgrade is a row in
//! [`FORMAT`]: it runs alone (no lease is alive), must bear being run twice, and the file is
//! advanced after each row.

use std::fs;
use std::path::Path;

use crate::durable::{self, Durability, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::lease;
use crate::root::{Root, StoreLock};

/// A version file holds one number: anything longer than this is something else.
const MAX_VERSION_BYTES: usize = 16;

/// The present format, and how older ones become it.
#[derive(Debug)]
pub(crate) struct Format {
    /// The format this program reads and writes.
    pub(crate) current: u32,
    /// One row for every step between formats.
    pub(crate) upgrades: &'static [Upgrade],
}

/// One step from a format to the next.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// The format it starts from; it ends at the next.
    pub(crate) from: u32,
    /// Rearranges the store; may run a second time after a crash.
    pub(crate) run: fn(&Root) -> Result<()>,
}

/// The format of this program: the first, so there is nothing to upgrade from yet.
pub(crate) const FORMAT: Format = Format { current: 1, upgrades: &[] };

/// Returns the format of the store, or `None` where there is no version file.
pub(crate) fn read(root: &Root) -> Result<Option<u32>> {
    let path = root.version();
    let Some(bytes) = if_present(fs::read(&path)).doing("read", &path)? else {
        return Ok(None);
    };
    let shown = &bytes[..bytes.len().min(MAX_VERSION_BYTES)];
    let text = String::from_utf8_lossy(shown).into_owned();
    match text.trim_end().parse() {
        Ok(version) if bytes.len() <= MAX_VERSION_BYTES => Ok(Some(version)),
        _ => Err(Error::VersionUnreadable { path, text }),
    }
}

/// Creates or upgrades the store to `format`, or says why that cannot be.
pub(crate) fn ensure(root: &Root, format: &Format, locked: &StoreLock) -> Result<()> {
    let Some(mut version) = read(root)? else {
        root.create_directories()?;
        return write(root, format.current);
    };
    if version > format.current {
        let (path, supported) = (root.path().to_owned(), format.current);
        return Err(Error::VersionTooNew { path, found: version, supported });
    }
    if version < format.current && lease::any_alive(root, locked)? {
        return Err(Error::UpgradeBlocked { path: root.path().to_owned() });
    }
    while version < format.current {
        let Some(upgrade) = format.upgrades.iter().find(|upgrade| upgrade.from == version) else {
            return Err(Error::VersionTooOld { path: root.path().to_owned(), found: version });
        };
        tracing::info!(from = version, "upgrading the store");
        (upgrade.run)(root)?;
        version += 1;
        write(root, version)?;
    }
    Ok(())
}

fn write(root: &Root, version: u32) -> Result<()> {
    let temporary: &Path = &root.path().join("version.new");
    // Left by a process that was killed here; the exclusive lock says nobody else is at it.
    durable::remove(temporary)?;
    let text = format!("{version}\n");
    durable::replace(temporary, &root.version(), text.as_bytes(), Durability::Synced)
}

#[cfg(test)]
mod tests {
    use super::{FORMAT, Format, Upgrade, read};
    use crate::error::{Error, Result};
    use crate::root::Root;
    use crate::store::Store;
    use std::fs;

    fn rename_old_pictures(root: &Root) -> Result<()> {
        let old = root.path().join("pictures");
        if old.exists() {
            fs::remove_dir(root.images()).unwrap();
            fs::rename(old, root.images()).unwrap();
        }
        Ok(())
    }

    fn touch(root: &Root) -> Result<()> {
        fs::write(root.path().join("builds"), "second upgrade").unwrap();
        Ok(())
    }

    /// A future in which format 1 called `images/` something else.
    const LATER: Format = Format {
        current: 3,
        upgrades: &[Upgrade { from: 2, run: touch }, Upgrade { from: 1, run: rename_old_pictures }],
    };

    fn old_store() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path(), &FORMAT).unwrap();
        fs::create_dir(dir.path().join("pictures")).unwrap();
        fs::write(dir.path().join("pictures/busybox"), "{}").unwrap();
        (dir, root)
    }

    #[test]
    fn older_store_is_upgraded_step_by_step() {
        let (dir, _) = old_store();
        let root = Root::open(dir.path(), &LATER).unwrap();
        assert_eq!(read(&root).unwrap(), Some(3));
        assert_eq!(fs::read_to_string(root.images().join("busybox")).unwrap(), "{}");
        assert_eq!(fs::read_to_string(dir.path().join("builds")).unwrap(), "second upgrade");
    }

    #[test]
    fn interrupted_upgrade_is_finished_by_the_next_program() {
        let (dir, root) = old_store();
        // The first row ran, and the process died before the version was advanced.
        rename_old_pictures(&root).unwrap();
        fs::write(dir.path().join("version.new"), "2").unwrap();
        let root = Root::open(dir.path(), &LATER).unwrap();
        assert_eq!(read(&root).unwrap(), Some(3));
        assert!(root.images().join("busybox").exists());
    }

    #[test]
    fn upgrade_waits_for_nobody_and_disturbs_nobody() {
        let (dir, _) = old_store();
        let lease = Store::open(dir.path()).unwrap().lease().unwrap();
        let error = Root::open(dir.path(), &LATER).unwrap_err();
        assert!(matches!(error, Error::UpgradeBlocked { .. }), "{error}");
        drop(lease);
        Root::open(dir.path(), &LATER).unwrap();
    }

    #[test]
    fn newer_store_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("version"), "7\n").unwrap();
        let error = Root::open(dir.path(), &FORMAT).unwrap_err().to_string();
        insta::assert_snapshot!(error.replace(dir.path().to_str().unwrap(), "ROOT"), @"the store at ROOT has format 7, and this program knows formats up to 1: use the newer program, or another --root");
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "only the version and the lock: {names:?}");
    }

    #[test]
    fn version_that_is_no_number_is_refused() {
        for text in ["", "\n", "one", "-1", "1 2", "00000000000000000000000001"] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("version"), text).unwrap();
            let error = Root::open(dir.path(), &FORMAT).unwrap_err();
            assert!(matches!(error, Error::VersionUnreadable { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn formats_without_a_way_to_the_present_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("version"), "0\n").unwrap();
        let error = Root::open(dir.path(), &LATER).unwrap_err();
        assert!(matches!(error, Error::VersionTooOld { found: 0, .. }), "{error}");
    }

    #[test]
    fn foreign_directory_is_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = Root::open(dir.path(), &FORMAT).unwrap_err();
        assert!(matches!(&error, Error::NotAStore { name, .. } if name == "thesis.tex"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn interrupted_creation_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("lock"), "").unwrap();
        let root = Root::open(dir.path(), &FORMAT).unwrap();
        assert_eq!(read(&root).unwrap(), Some(1));
        assert!(root.leases().is_dir());
    }
}
