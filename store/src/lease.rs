//! Leases: what a running program has in use.
//!
//! ```text
//! leases/<id>/
//! ├── lock        locked (flock) by the process as long as it lives
//! ├── pins        digests that must stay, one per line
//! └── scratch/    directories for work in progress
//! ```
//!
//! A lease dies with its process: the system drops the lock, and the next garbage collection
//! finds it. The lock's descriptor is close-on-exec, so no container keeps a dead build alive.
//!
//! # Invariants
//!
//! - *Pin, then check.* A pin is written under the store's shared lock, and gc decides and acts
//!   under its exclusive lock: what is found after it was pinned stays.
//! - A live directory under `leases/` always has a locked lock file, since it is made under the
//!   shared lock too.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use oci::{Algorithm, Digest};

use crate::durable::{self, if_present};
use crate::error::{IoContext as _, Result};
use crate::fault;
use crate::ingest::Ingest;
use crate::root::{Root, StoreLock};
use crate::settle;
use crate::store::Store;
use crate::trash;

const LOCK: &str = "lock";
const PINS: &str = "pins";
const SCRATCH: &str = "scratch";
/// How many files may wait to be written to the disk meanwhile; each holds a descriptor.
const SYNCS_WAITING: usize = 8;

/// Digests and working directories that stay as long as this process, or until it is dropped.
///
/// Clones share one lease; the last one to be dropped ends it.
#[derive(Clone, Debug)]
pub struct Lease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    id: String,
    directory: PathBuf,
    pins: Mutex<Pinned>,
    names: AtomicU64,
    /// Whether blobs wait for the disk together, when an image gets its name.
    defers_syncs: AtomicBool,
    is_announced: AtomicBool,
    /// Large blobs on their way to the disk.
    syncing: Mutex<Option<Syncing>>,
    /// Unpacked layers that were found whole. They stay so, since they are pinned.
    unpacked: Mutex<BTreeSet<Digest>>,
    /// Started for the first thing that is discarded.
    cleaner: Mutex<Option<Cleaner>>,
    _lock: File,
}

/// A thread that writes files to the disk.
#[derive(Debug)]
struct Syncing {
    files: SyncSender<(File, PathBuf)>,
    thread: JoinHandle<Result<()>>,
}

/// A thread that deletes what is out of sight.
#[derive(Debug)]
struct Cleaner {
    hidden: Sender<PathBuf>,
    thread: JoinHandle<()>,
}

/// The pins file, and what it already holds.
#[derive(Debug)]
struct Pinned {
    file: File,
    known: BTreeSet<Digest>,
}

impl Lease {
    pub(crate) fn new(store: Store) -> Result<Self> {
        let leases = store.root().leases();
        let shared = store.root().lock_shared()?;
        let directory = fault::point()
            .and_then(|()| {
                tempfile::Builder::new()
                    .prefix("")
                    .rand_bytes(12)
                    .permissions(Permissions::from_mode(0o700))
                    .tempdir_in(&leases)
            })
            .doing("create a lease in", &leases)?
            .keep();
        let lock = locked_file(&directory.join(LOCK))?;
        let pins = directory.join(PINS);
        let file = fs::OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(&pins)
            .doing("create", &pins)?;
        drop(shared);
        let id = file_name(&directory);
        let pins = Mutex::new(Pinned { file, known: BTreeSet::new() });
        let names = AtomicU64::new(0);
        let inner = Inner {
            store,
            id,
            directory,
            pins,
            names,
            defers_syncs: AtomicBool::new(false),
            is_announced: AtomicBool::new(false),
            syncing: Mutex::default(),
            unpacked: Mutex::default(),
            cleaner: Mutex::default(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the store this lease is on.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Keeps everything with this digest — blob, layer, fix-up — from now on.
    ///
    /// A pinned manifest keeps what it lists. It is fine to pin what is not there yet. Whether
    /// something is there must be asked *after* it was pinned.
    ///
    /// # Errors
    ///
    /// If the lease's directory cannot be written.
    pub fn pin(&self, digest: &Digest) -> Result<()> {
        self.pin_all(std::slice::from_ref(digest))
    }

    /// Keeps everything with these digests, like [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// If the lease's directory cannot be written.
    pub fn pin_all(&self, digests: &[Digest]) -> Result<()> {
        let mut pins = self.inner.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let new: BTreeSet<Digest> =
            digests.iter().copied().filter(|digest| !pins.known.contains(digest)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let _shared = self.store().root().lock_shared()?;
        fault::point()
            // The line feed in front ends what a failed pin may have left.
            .and_then(|()| pins.file.write_all(format!("\n{}", lines(&new)).as_bytes()))
            .doing("write", self.inner.directory.join(PINS))?;
        pins.known.extend(new);
        Ok(())
    }

    /// Lets the blobs that are made from now on wait for the disk together: when a name in
    /// [`images`](Store::images) is about to lead to them, instead of each when it is committed.
    ///
    /// For who makes many and acknowledges only the last, such as a build. If the machine goes down
    /// before, those that reached the disk are kept and the others are gone; if only the process
    /// dies, all are kept.
    pub fn defer_syncs(&self) {
        self.inner.defers_syncs.store(true, Ordering::Relaxed);
    }

    /// Tells whether blobs wait for the disk together.
    pub(crate) fn defers_syncs(&self) -> bool {
        self.inner.defers_syncs.load(Ordering::Relaxed)
    }

    /// Says once, on the disk, that there are blobs that may not be on it.
    pub(crate) fn announce_unsettled(&self) -> Result<()> {
        if !self.inner.is_announced.load(Ordering::Acquire) {
            settle::announce(self)?;
            self.inner.is_announced.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Writes what a large blob has so far to the disk while the program goes on.
    pub(crate) fn sync_meanwhile(&self, file: &File, path: &Path) -> Result<()> {
        let job = (file.try_clone().doing("open", path)?, path.to_owned());
        let mut syncing = self.inner.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if syncing.is_none() {
            *syncing = Some(Syncing::start().doing("start a thread for", "syncing")?);
        }
        if let Some(Syncing { files, .. }) = &*syncing {
            // Where enough waits, this waits for the end. A thread that has failed ended: what it
            // says is said when all is to be on the disk.
            let _left_for_the_end = files.try_send(job);
        }
        Ok(())
    }

    /// Waits for what is written meanwhile.
    pub(crate) fn finish_syncs(&self) -> Result<()> {
        let mut syncing = self.inner.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Syncing { files, thread }) = syncing.take() else { return Ok(()) };
        drop(files);
        thread.join().expect("syncing does not panic")
    }

    /// Starts a blob named by SHA-256.
    ///
    /// # Errors
    ///
    /// If its file cannot be created.
    pub fn ingest(&self) -> Result<Ingest> {
        self.ingest_with(Algorithm::Sha256)
    }

    /// Starts a blob named by the given algorithm.
    ///
    /// # Errors
    ///
    /// If its file cannot be created.
    pub fn ingest_with(&self, algorithm: Algorithm) -> Result<Ingest> {
        Ingest::new(self.clone(), algorithm)
    }

    /// Creates an empty directory for work in progress, removed with the lease at the latest.
    ///
    /// It lies on the same file system as the layers, so its content can be renamed into place.
    /// `name` is for people who look at the disk; it need not be unique.
    ///
    /// # Errors
    ///
    /// If the directory cannot be created.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let parent = self.inner.directory.join(SCRATCH);
        let path = parent.join(format!("{name}-{}", self.next_number()));
        DirBuilder::new().recursive(true).mode(0o700).create(&path).doing("create", &path)?;
        Ok(path)
    }

    /// Returns an unused path for a file that will be renamed into place.
    pub(crate) fn temporary(&self) -> PathBuf {
        let name = format!("{}.{}", self.inner.id, self.next_number());
        self.store().root().ingest().join(name)
    }

    /// Returns whether a layer was found unpacked before, or else what `look` finds.
    pub(crate) fn remember_unpacked(
        &self,
        layer: &Digest,
        look: impl FnOnce() -> Result<bool>,
    ) -> Result<bool> {
        let lock = || self.inner.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains(layer) {
            return Ok(true);
        }
        let is_there = look()?;
        if is_there {
            lock().insert(*layer);
        }
        Ok(is_there)
    }

    /// Takes a directory out of sight and deletes it while the program goes on. What cannot be
    /// deleted is left for gc.
    pub(crate) fn discard(&self, path: &Path) {
        let root = self.store().root();
        if cfg!(test) {
            // Tests look at what is left at once.
            let _left_for_gc = trash::discard(root, path);
            return;
        }
        let Ok(Some(hidden)) = trash::hide(root, path) else { return };
        let mut cleaner = self.inner.cleaner.lock().unwrap_or_else(PoisonError::into_inner);
        if cleaner.is_none() {
            *cleaner = Cleaner::start(self.store()).ok();
        }
        match &*cleaner {
            Some(cleaner) => {
                cleaner.hidden.send(hidden).expect("the thread ends only after its channel");
            }
            None => {
                let _left_for_gc = trash::delete(root, hidden);
            }
        }
    }

    fn next_number(&self) -> u64 {
        self.inner.names.fetch_add(1, Ordering::Relaxed)
    }
}

impl Syncing {
    fn start() -> io::Result<Self> {
        let (files, jobs) = sync_channel::<(File, PathBuf)>(SYNCS_WAITING);
        let sync = move || jobs.iter().try_for_each(|(file, path)| durable::sync(&file, &path));
        let thread = thread::Builder::new().name("sync".into()).spawn(sync)?;
        Ok(Self { files, thread })
    }
}

impl Cleaner {
    fn start(store: &Store) -> io::Result<Self> {
        let (hidden, paths) = channel();
        let store = store.clone();
        let clean = move || {
            for path in paths {
                let _left_for_gc = trash::delete(store.root(), path);
            }
        };
        let thread = thread::Builder::new().name("clean".into()).spawn(clean)?;
        Ok(Self { hidden, thread })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let cleaner = self.cleaner.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Cleaner { hidden, thread }) = cleaner {
            drop(hidden);
            thread.join().expect("deleting does not panic");
        }
        // A lease that cannot be removed is found dead by the next gc.
        let _left_for_gc = trash::discard(self.store.root(), &self.directory);
    }
}

/// Returns the pins of every live lease, and the directories of the dead.
pub(crate) fn survey(root: &Root, _locked: &StoreLock) -> Result<Survey> {
    let leases = root.leases();
    let mut survey = Survey::default();
    for entry in fs::read_dir(&leases).doing("list", &leases)? {
        let directory = entry.doing("list", &leases)?.path();
        if is_alive(&directory)? {
            survey.live.insert(file_name(&directory));
            survey.pins.extend(read_pins(&directory.join(PINS))?);
        } else {
            survey.dead.push(directory);
        }
    }
    Ok(survey)
}

/// Who is alive, and what they need.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The ids of live leases.
    pub(crate) live: BTreeSet<String>,
    /// What live leases have pinned.
    pub(crate) pins: BTreeSet<Digest>,
    /// Directories that dead leases left.
    pub(crate) dead: Vec<PathBuf>,
}

/// Tells whether any process holds a lease.
pub(crate) fn any_alive(root: &Root, locked: &StoreLock) -> Result<bool> {
    Ok(root.leases().exists() && !survey(root, locked)?.live.is_empty())
}

fn is_alive(directory: &Path) -> Result<bool> {
    let path = directory.join(LOCK);
    let Some(file) = if_present(File::open(&path)).doing("open", &path)? else {
        return Ok(false);
    };
    match file.try_lock() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error).doing("lock", &path),
    }
}

fn locked_file(path: &Path) -> Result<File> {
    let file = File::create_new(path).doing("create", path)?;
    file.try_lock().map_err(io::Error::from).doing("lock", path)?;
    Ok(file)
}

/// Reads the digests of a pins file, one per line; a missing file has none.
///
/// What is no digest is the beginning of a pin that failed on a full disk, and whose caller was told.
fn read_pins(path: &Path) -> Result<Vec<Digest>> {
    let bytes = if_present(fs::read(path)).doing("read", path)?;
    let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default());
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Writes digests one per line.
pub(crate) fn lines<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> String {
    digests.into_iter().map(|digest| format!("{digest}\n")).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::survey;
    use crate::store::Store;
    use oci::Digest;
    use std::fs;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn live_lease_counts_and_dropped_lease_is_gone() {
        let (_dir, store) = store();
        let (one, two) = (Digest::sha256(b"1"), Digest::sha512(b"2"));
        let lease = store.lease().unwrap();
        lease.pin(&one).unwrap();
        lease.clone().pin_all(&[one, two]).unwrap();
        let seen = survey(store.root(), &store.root().lock_exclusive().unwrap()).unwrap();
        assert_eq!(seen.pins.into_iter().collect::<Vec<_>>(), [one, two]);
        assert_eq!((seen.live.len(), seen.dead.len()), (1, 0));
        drop(lease);
        assert_eq!(fs::read_dir(store.root().leases()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(store.root().trash()).unwrap().count(), 0);
    }

    /// A disk that is full takes the beginning of a line, and the next pin must not be lost by it.
    #[test]
    fn pin_after_a_failed_one_counts() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        lease.pin(&one).unwrap();
        let file = lease.inner.directory.join("pins");
        let torn = [&fs::read(&file).unwrap()[..], b"sha256:0123"].concat();
        fs::write(&file, torn).unwrap();
        lease.pin(&two).unwrap();
        let seen = survey(store.root(), &store.root().lock_exclusive().unwrap()).unwrap();
        assert_eq!(seen.pins, [one, two].into());
    }

    #[test]
    fn lease_without_its_process_is_dead() {
        let (_dir, store) = store();
        let left = store.root().leases().join("left");
        fs::create_dir(&left).unwrap();
        for file in ["lock", "pins"] {
            fs::write(left.join(file), Digest::sha256(b"1").to_string()).unwrap();
        }
        let seen = survey(store.root(), &store.root().lock_exclusive().unwrap()).unwrap();
        assert_eq!((seen.pins.len(), seen.live.len(), seen.dead), (0, 0, vec![left]));
    }

    #[test]
    fn scratch_directories_are_apart_and_go_with_the_lease() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (a, b) = (lease.scratch("run").unwrap(), lease.scratch("run").unwrap());
        assert_ne!(a, b);
        fs::create_dir_all(a.join("deep/er")).unwrap();
        fs::write(a.join("deep/er/file"), "x").unwrap();
        drop(lease);
        assert!(!a.exists() && !b.exists());
    }
}
