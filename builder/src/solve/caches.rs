//! Cache mounts: directories that outlive builds, shared by all builds of a store.
//!
//! ```text
//! <root>/builds/caches/<hex>/
//! ├── id        what people know the cache by
//! ├── 0.lock    flock: held by every process that uses the instance, shared or alone
//! ├── 0.new.lock flock: held by the process that makes the instance
//! ├── 0/        the files
//! └── 1…        further instances: who shares a cache with nobody and finds it in use gets one
//! ```
//!
//! # Invariants
//!
//! - An instance exists under its number only once it is complete (owner, mode, first content).
//! - Nothing is removed without its lock held alone. A lock file may be removed with its
//!   instance: whoever got its lock looks whether it still has its name.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use oci::Digest;
use rustix::fs::{FlockOperation, flock};

use crate::dockerfile::Sharing;
use crate::error::{IoContext as _, Result};
use crate::key::Key;

/// Instances of one cache; more users than this that do not share are a mistake.
const MAX_INSTANCES: usize = 1024;
/// The longest pause between two tries to get a lock.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const ID: &str = "id";
/// What the names of caches begin with that are being removed.
const REMOVED: &str = ".removed-";

/// The cache mounts of a store.
#[derive(Clone, Debug)]
pub struct Caches {
    root: PathBuf,
}

/// One cache, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Its name in the store.
    pub name: String,
    /// The id that Dockerfiles use.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
    /// The bytes of its files on disk.
    pub bytes: u64,
    /// When a build used it last.
    pub last_used: SystemTime,
    /// Whether a build uses it now.
    pub in_use: bool,
}

/// What tells one cache from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub(super) id: &'a str,
    /// What it begins with, and whose: caches that began differently are different ones.
    pub(super) origin: &'a str,
}

/// An instance in use, until it is dropped.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Caches {
    /// Returns the caches of the builder's directory in a store ([`super::Builds::root`]).
    #[must_use]
    pub fn new(builds: &Path) -> Self {
        Self { root: builds.join("caches") }
    }

    /// Takes an instance as the sharing mode allows; `fill` makes the directory of a new one.
    ///
    /// With [`Sharing::Locked`] it waits, asking `wait` whether to go on.
    pub(super) fn take(
        &self,
        identity: Identity<'_>,
        sharing: Sharing,
        fill: &dyn Fn(&Path) -> Result<()>,
        wait: &dyn Fn() -> Result<()>,
    ) -> Result<InUse> {
        let mut key = Key::new("cache");
        key.field("id", identity.id);
        key.field("origin", identity.origin);
        let cache = self.root.join(key.finish().hex());
        let mut pause = Duration::from_millis(1);
        loop {
            // Each time: somebody may just have removed it.
            fs::create_dir_all(&cache).doing("create", &cache)?;
            let id = cache.join(ID);
            // Its time says when the cache was used last.
            fs::write(&id, identity.id).doing("write", &id)?;
            let last = if sharing == Sharing::Locked { 1 } else { MAX_INSTANCES };
            for number in 0..last {
                if !make(&cache, number, fill)? {
                    break;
                }
                let lock = cache.join(format!("{number}.lock"));
                let path = cache.join(number.to_string());
                let held = try_lock(&lock, sharing != Sharing::Shared).doing("lock", &lock)?;
                if let Some(held) = held
                    && path.is_dir()
                {
                    return Ok(InUse { path, _lock: held });
                }
            }
            wait()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns all caches, by name.
    ///
    /// # Errors
    /// Fails when the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<CacheInfo>> {
        let mut found = Vec::new();
        for path in entries(&self.root)? {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let used = fs::metadata(path.join(ID)).or_else(|_| fs::metadata(&path));
            // It was removed meanwhile.
            let Ok(last_used) = used.and_then(|metadata| metadata.modified()) else { continue };
            found.push(CacheInfo {
                name: name.to_owned(),
                id: fs::read_to_string(path.join(ID)).unwrap_or_default(),
                bytes: bytes(&path),
                last_used,
                in_use: locks(&path)?
                    .iter()
                    .any(|lock| try_lock(lock, true).is_ok_and(|l| l.is_none())),
                path,
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Removes a cache; returns the bytes freed, or `None` when a build uses it.
    ///
    /// # Errors
    /// Fails when something of it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<Option<u64>> {
        // A name of this store, never a path.
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let path = self.root.join(name);
        let mut held = Vec::new();
        for lock in locks(&path)? {
            match try_lock(&lock, true)? {
                Some(lock) => held.push(lock),
                None => return Ok(None),
            }
        }
        discard(&self.root, REMOVED);
        let freed = bytes(&path);
        // Whoever comes now makes a new cache; this one is out of its way at once.
        let aside = tempfile::Builder::new().prefix(REMOVED).tempdir_in(&self.root)?;
        match fs::rename(&path, aside.path().join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
            other => other?,
        }
        drop(held);
        let aside = aside.keep();
        fs::remove_dir_all(aside)?;
        Ok(Some(freed))
    }
}

/// Makes sure that an instance exists; returns whether it does, or another process is
/// about to make it.
fn make(cache: &Path, number: usize, fill: &dyn Fn(&Path) -> Result<()>) -> Result<bool> {
    let path = cache.join(number.to_string());
    if path.is_dir() {
        return Ok(true);
    }
    let lock = cache.join(format!("{number}.new.lock"));
    let Some(_held) = try_lock(&lock, true).doing("lock", &lock)? else { return Ok(false) };
    if !path.is_dir() {
        let prefix = format!(".new-{number}-");
        // What a killed build left half-made; nobody else makes this instance.
        discard(cache, &prefix);
        let new = tempfile::Builder::new().prefix(&prefix).tempdir_in(cache);
        let new = new.doing("create a directory in", cache)?;
        let content = new.path().join("files");
        fs::create_dir(&content).doing("create", &content)?;
        fill(&content)?;
        fs::rename(&content, &path).doing("create", &path)?;
    }
    Ok(true)
}

/// Locks a file that has to keep its name; `None` when others have it.
fn try_lock(path: &Path, alone: bool) -> io::Result<Option<File>> {
    let how = if alone {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    loop {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, how) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            other => other?,
        }
        let own = file.metadata()?;
        match fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => {
                return Ok(Some(file));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // It was removed with its cache just now.
            _ => {}
        }
    }
}

/// Removes what a killed process left under names that begin so.
fn discard(directory: &Path, prefix: &str) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "what is left of a cache is left to the next command");
        }
    }
}

fn locks(cache: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = entries(cache)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "lock"));
    Ok(paths)
}

/// Returns what is in a directory, but for hidden things: what is being made or removed.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

/// Returns the bytes below a directory; no link is followed, what vanishes does not count.
fn bytes(directory: &Path) -> u64 {
    let mut sum = 0;
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            sum += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    sum
}

/// Returns what a new cache with these files and this owner is known by.
pub(super) fn origin(content: Option<&Digest>, owner: crate::dockerfile::FileOwner) -> String {
    format!("{} {owner:?}", content.map(ToString::to_string).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const NAME: Identity<'static> = Identity { id: "go", origin: "" };

    fn take(caches: &Caches, sharing: Sharing) -> Result<InUse> {
        caches.take(NAME, sharing, &|_| Ok(()), &|| Err(Error::Cancelled))
    }

    #[test]
    fn those_who_share_have_one_and_others_one_each() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        let first = take(&caches, Sharing::Shared).unwrap();
        let second = take(&caches, Sharing::Shared).unwrap();
        assert_eq!(first.path, second.path);
        let private = take(&caches, Sharing::Private).unwrap();
        assert_ne!(private.path, first.path);
        assert_ne!(take(&caches, Sharing::Private).unwrap().path, private.path);
        assert!(take(&caches, Sharing::Locked).unwrap_err().is_cancelled(), "it waits");
        let path = first.path.clone();
        drop((first, second));
        let locked = take(&caches, Sharing::Locked).unwrap();
        assert_eq!(locked.path, path);
        let shared = take(&caches, Sharing::Shared).unwrap();
        assert_ne!(shared.path, path, "what one has alone is not shared");
        drop((locked, private, shared));
        assert_eq!(take(&caches, Sharing::Private).unwrap().path, path, "it is used again");
    }

    #[test]
    fn another_origin_is_another_cache() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        let with = |id, origin| {
            let identity = Identity { id, origin };
            caches.take(identity, Sharing::Shared, &|_| Ok(()), &|| Ok(())).unwrap().path
        };
        assert_eq!(with("a", "x"), with("a", "x"));
        assert_ne!(with("a", "x"), with("a", "y"));
        assert_ne!(with("a", "x"), with("b", "x"));
    }

    #[test]
    fn a_cache_that_could_not_be_filled_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        let fails = |path: &Path| {
            fs::write(path.join("half"), "").unwrap();
            Err(Error::Cancelled)
        };
        assert!(caches.take(NAME, Sharing::Shared, &fails, &|| Ok(())).is_err());
        let used = take(&caches, Sharing::Shared).unwrap();
        assert_eq!(fs::read_dir(&used.path).unwrap().count(), 0);
    }

    #[test]
    fn what_killed_builds_leave_goes() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        drop(take(&caches, Sharing::Shared).unwrap());
        let name = caches.list().unwrap()[0].name.clone();
        let cache = directory.path().join("caches").join(&name);
        fs::remove_dir(cache.join("0")).unwrap();
        fs::create_dir_all(cache.join(".new-0-x/files/half")).unwrap();
        fs::create_dir_all(cache.join("../.removed-x/y/0")).unwrap();
        drop(take(&caches, Sharing::Shared).unwrap());
        assert!(!cache.join(".new-0-x").exists());
        assert_eq!(caches.list().unwrap().len(), 1);
        caches.remove(&name).unwrap().unwrap();
        assert_eq!(fs::read_dir(directory.path().join("caches")).unwrap().count(), 0);
    }

    #[test]
    fn many_at_once_fill_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        let fills = AtomicUsize::new(0);
        let fill = |path: &Path| {
            fills.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            fs::write(path.join("f"), "seed").unwrap();
            Ok(())
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let used = caches.take(NAME, Sharing::Shared, &fill, &|| Ok(())).unwrap();
                    assert_eq!(fs::read_to_string(used.path.join("f")).unwrap(), "seed");
                });
            }
        });
        assert_eq!(fills.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn what_is_in_use_is_listed_so_and_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let caches = Caches::new(directory.path());
        let used = take(&caches, Sharing::Shared).unwrap();
        fs::write(used.path.join("f"), vec![1; 10_000]).unwrap();
        let list = caches.list().unwrap();
        assert_eq!((list.len(), list[0].id.as_str(), list[0].in_use), (1, "go", true));
        assert!(list[0].bytes >= 10_000);
        assert_eq!(caches.remove(&list[0].name).unwrap(), None);
        assert!(used.path.join("f").exists());
        drop(used);
        assert!(!caches.list().unwrap()[0].in_use);
        assert!(caches.remove(&list[0].name).unwrap().unwrap() >= 10_000);
        assert_eq!(caches.list().unwrap(), []);
        assert_eq!(fs::read_dir(directory.path().join("caches")).unwrap().count(), 0);
        for name in ["", "..", "../x", "a/b", "/etc"] {
            assert!(caches.remove(name).is_err(), "accepted {name:?}");
        }
    }
}
