//! Which processes are in the user's namespace.
//!
//! `<runtime directory>/rbuild-<uid>/` has an empty file for each, named
//! `<pid>.<start time>`. Files of processes that are gone are removed by
//! whoever finds them; the directory itself is the lock.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::refused;
use crate::error::{Context as _, Result};
use crate::spawn::Running;

/// The locked directory.
pub(super) struct Holders {
    path: PathBuf,
    /// The file of the process that was found last.
    found: PathBuf,
    _lock: OwnedFd,
}

impl Holders {
    /// Opens the directory of a user, and waits for the lock. None where there
    /// is no runtime directory to put it in.
    pub(super) fn open(uid: u32) -> Result<Option<Self>> {
        let runtime =
            std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let parent = runtime.unwrap_or_else(|| {
            let run = PathBuf::from(format!("/run/user/{uid}"));
            if run.is_dir() { run } else { PathBuf::from("/tmp") }
        });
        let path = parent.join(format!("rbuild-{uid}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Ok(None),
            _ => {}
        }
        Self::lock(&path).map(Some)
    }

    fn lock(path: &Path) -> Result<Self> {
        let what = || format!("open {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::open(path, flags, Mode::empty()).cannot(what)?;
        let metadata = fs::symlink_metadata(path).cannot(what)?;
        // In /tmp somebody else could have been first.
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own || metadata.mode() & 0o077 != 0 {
            return Err(refused(
                format!("{} is not a private directory of this user", path.display()),
                "remove it, or set XDG_RUNTIME_DIR to a directory of your own",
            ));
        }
        flock(&lock, FlockOperation::LockExclusive).cannot(what)?;
        Ok(Self { path: path.to_owned(), found: PathBuf::new(), _lock: lock })
    }

    /// Returns a process that is in the namespace.
    pub(super) fn find(&mut self) -> Option<OwnedFd> {
        for entry in fs::read_dir(&self.path).ok()?.flatten() {
            let found = entry.file_name().to_str().and_then(parse).and_then(|running| {
                // A process that is ending has no namespaces to join.
                running.is_alive().then(|| running.open().ok()).flatten()
            });
            match found {
                Some(pidfd) => {
                    self.found = entry.path();
                    return Some(pidfd);
                }
                // It is gone; a file that cannot be removed does no harm.
                None => drop(fs::remove_file(entry.path())),
            }
        }
        None
    }

    /// Forgets the process that was found last, because it is about to end: it
    /// still exists, but has left its namespaces.
    pub(super) fn forget_found(&self) {
        fs::remove_file(&self.found).ok();
    }

    /// Writes a process down. Without that, it is just not found.
    pub(super) fn add(&self, pid: u32, start_time: u64) {
        fs::write(self.path.join(format!("{pid}.{start_time}")), "").ok();
    }
}

fn parse(name: &str) -> Option<Running> {
    let (pid, start_time) = name.split_once('.')?;
    Some(Running { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::spawn::find_start_time_of;

    #[test]
    fn the_living_are_found_and_the_dead_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mut holders = Holders::lock(directory.path()).unwrap();
        holders.add(4_000_000, 1);
        fs::write(directory.path().join("nonsense"), "").unwrap();
        assert!(holders.find().is_none());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let own = std::process::id();
        holders.add(own, find_start_time_of(own).unwrap());
        assert!(holders.find().is_some());
        holders.forget_found();
        assert!(holders.find().is_none());
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Holders::lock(directory.path()).is_err());
    }
}
