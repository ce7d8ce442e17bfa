//! The lock file of a container: who makes or watches it, and what becomes of it.
//!
//! It holds the container's name and, on a second line, whether the container goes
//! away when it ends. That is all there may be of a container that was cut short.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::containers::Container;
use super::error::{IoContext as _, Result};
use super::name::Name;

/// The line in the lock file of a container that goes away when it ends.
const REMOVE: &str = "remove\n";

/// The proof that this process is making or watching a container: until it is
/// dropped, nobody else takes the container for garbage.
#[derive(Debug)]
pub struct Ownership(pub(super) File);

impl Ownership {
    /// Says that the container goes away when it ends: for whoever cleans up
    /// after a crash, there may soon be no more than this.
    ///
    /// # Errors
    ///
    /// When the lock file cannot be written.
    pub fn note_removal(&self, container: &Container) -> Result<()> {
        Note { name: Some(container.config.name.clone()), remove: true }.write(container.dir())
    }

    /// Returns a copy for a process that takes over: the container is owned
    /// until both are closed.
    ///
    /// # Errors
    ///
    /// When no more descriptors are to be had.
    pub fn share(&self) -> Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from).trying("share the container's lock")
    }
}

/// Takes a container that nobody makes or watches in the foreground; `None`
/// if somebody does.
pub(super) fn own(dir: &Path) -> Result<Option<Ownership>> {
    let path = dir.join("lock");
    let file = match File::open(&path) {
        // Cut short before it had a lock, or while it was removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => {
            OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file,
    };
    let file = match file {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.doing("open", &path)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Ownership(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).doing("lock", &path),
    }
}

/// What a container's lock file says.
#[derive(Debug, Default)]
pub(super) struct Note {
    /// Its name.
    pub(super) name: Option<Name>,
    /// Whether it goes away when it ends.
    pub(super) remove: bool,
}

impl Note {
    /// Makes the file of a new container, locked: for whoever cleans up, there may be
    /// no more than this.
    pub(super) fn create(&self, dir: &Path) -> Result<File> {
        let path = dir.join("lock");
        File::create_new(&path)
            .and_then(|mut file| {
                flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                file.write_all(self.text().as_bytes())?;
                Ok(file)
            })
            .doing("lock", &path)
    }

    /// Reads it; a container that was cut short very early has none.
    pub(super) fn read(dir: &Path) -> Self {
        let Ok(text) = fs::read_to_string(dir.join("lock")) else { return Self::default() };
        let (name, rest) = text.split_once('\n').unwrap_or((&text, ""));
        Self { name: name.parse().ok(), remove: rest == REMOVE }
    }

    /// Writes it in place, for the file is locked by others. It is emptied
    /// first: what a crash leaves must not say that the container goes.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join("lock");
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut file| file.write_all(self.text().as_bytes()))
            .doing("write", &path)
    }

    fn text(&self) -> String {
        let name = self.name.as_ref().map_or("", Name::as_str);
        format!("{name}\n{}", if self.remove { REMOVE } else { "" })
    }
}
