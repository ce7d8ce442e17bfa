//! What a container keeps: `containers/<id>/pins`, one digest per line.
//!
//! The file belongs to the container's directory and not to any process, so a container that was
//! stopped, or whose machine was switched off, keeps its layers until it is removed. Garbage
//! collection reads these files and nothing else of a container: it never waits for one to end.
//!
//! The file ends in the line `end`. It is not synced, to start containers fast; where a power cut
//! tore it, gc notices by the missing end, and takes no content at all until that container is
//! removed, rather than guessing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use oci::Digest;

use crate::durable::{self, Durability, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::lease;
use crate::root::{Root, StoreLock};
use crate::store::Store;

const PINS: &str = "pins";
const END: &str = "end\n";

/// What containers keep alive.
#[derive(Debug)]
pub struct Pins;

impl Pins {
    /// Makes a container keep everything with these digests, as long as its directory exists.
    ///
    /// `directory` is `containers/<id>`, which exists. A pinned manifest keeps what it lists.
    /// Whoever calls this holds a lease that has the same pins, until this returns.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(store: &Store, directory: &Path, digests: &[Digest]) -> Result<()> {
        let text = lease::lines(digests) + END;
        let _shared = store.root().lock_shared()?;
        let temporary = directory.join("pins.new");
        // Left by a process that died here; the container's own lock keeps others out.
        durable::remove(&temporary)?;
        durable::replace(&temporary, &directory.join(PINS), text.as_bytes(), Durability::Volatile)
    }

    /// Returns what a container keeps; nothing if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] for a pins file that is not whole.
    pub fn read(directory: &Path) -> Result<BTreeSet<Digest>> {
        Ok(read(&directory.join(PINS))?.unwrap_or_default())
    }
}

/// What each container keeps, by the container's id.
///
/// # Errors
///
/// [`Error::Damaged`] for a pins file that is not whole.
pub(crate) fn survey(
    root: &Root,
    _locked: &StoreLock,
) -> Result<BTreeMap<String, BTreeSet<Digest>>> {
    let containers = root.containers();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(&containers).doing("list", &containers)? {
        let directory = entry.doing("list", &containers)?.path();
        let id = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(pins) = read(&directory.join(PINS))? {
            all.insert(id, pins);
        }
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Option<BTreeSet<Digest>>> {
    let text = match if_present(fs::read_to_string(path)) {
        // A file where a container's directory should be keeps nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => None,
        other => other.doing("read", path)?,
    };
    let Some(text) = text else { return Ok(None) };
    let damaged =
        |reason: &str| Error::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let lines = text.strip_suffix(END).ok_or_else(|| damaged("its end is missing"))?;
    let digest = |line: &str| line.parse().map_err(|_| damaged("a line is no digest"));
    lines.lines().map(digest).collect::<Result<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::{Pins, survey};
    use crate::error::Error;
    use crate::store::Store;
    use oci::Digest;
    use std::fs;

    #[test]
    fn written_pins_are_read_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let container = store.containers_dir().join("abc");
        fs::create_dir(&container).unwrap();
        fs::create_dir(store.containers_dir().join("being-made")).unwrap();
        fs::write(store.containers_dir().join("names"), "").unwrap();
        let (one, two) = (Digest::sha256(b"1"), Digest::sha512(b"2"));
        Pins::write(&store, &container, &[one]).unwrap();
        Pins::write(&store, &container, &[two, one]).unwrap();
        assert_eq!(Pins::read(&container).unwrap(), [one, two].into());
        assert_eq!(Pins::read(&dir.path().join("gone")).unwrap(), [].into());
        let locked = store.root().lock_exclusive().unwrap();
        let pins = survey(store.root(), &locked).unwrap();
        assert_eq!(pins.keys().collect::<Vec<_>>(), ["abc"]);
        assert_eq!(pins["abc"].iter().copied().collect::<Vec<_>>(), [one, two]);
    }

    #[test]
    fn torn_pins_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let container = store.containers_dir().join("abc");
        fs::create_dir(&container).unwrap();
        Pins::write(&store, &container, &[Digest::sha256(b"1")]).unwrap();
        let whole = fs::read(container.join("pins")).unwrap();
        for length in 0..whole.len() {
            fs::write(container.join("pins"), &whole[..length]).unwrap();
            let locked = store.root().lock_exclusive().unwrap();
            let error = survey(store.root(), &locked).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{length}: {error}");
        }
    }
}
