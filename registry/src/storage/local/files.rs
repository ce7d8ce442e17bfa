//! Records as files: written beside, synced, renamed into place.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::super::{Error, Key, Result, Stamp};
use super::list::Listings;

/// The content of `<root>/version`.
const VERSION: &str = "rregistry storage 1\n";

/// How many directories a process remembers as synced: enough for every shard of
/// a large registry, at most about a megabyte.
const MAX_SETTLED: usize = 8192;

/// The first read of a record, in bytes: tags and marks fit, manifests take two.
const FIRST_READ: usize = 1024;

/// How old a file in `tmp/` must be before it counts as left behind, in seconds.
/// Writing a record takes milliseconds; an hour forgives suspended machines.
const TEMPORARY_AGE_S: i64 = 3600;

/// How often something is named again whose directory was removed meanwhile:
/// each time, somebody removed the last other thing in it at that very moment.
const MAX_NAMINGS: usize = 16;

/// Makes a file as young as a new one.
pub(super) const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;

/// The root directory of a storage.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// For messages.
    path: String,
    /// Tells this process's temporary files from those of others.
    instance: u64,
    temporaries: AtomicU64,
    /// Directories whose names this process knows to be durable.
    settled: Mutex<BTreeSet<String>>,
    listings: Listings,
}

impl Root {
    /// Opens or creates the storage below `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        fs::create_dir_all(path).map_err(|source| Error::from_io("create", &name, source))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::from_io("open", &name, errno.into()))?;
        let mut seed = [0; 8];
        fs::File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut seed))
            .map_err(|source| Error::from_io("read", "/dev/urandom", source))?;
        let root = Self {
            fd,
            path: name,
            instance: u64::from_ne_bytes(seed),
            temporaries: AtomicU64::new(0),
            settled: Mutex::default(),
            listings: Listings::default(),
        };
        root.check_version(path)?;
        Ok(root)
    }

    /// Refuses what is not ours; makes an empty directory ours.
    fn check_version(&self, path: &Path) -> Result<()> {
        if self.read("version")?.is_none() {
            self.claim(path)?;
        }
        match self.read("version")? {
            Some(version) if version == VERSION => self.make_top(),
            other => {
                let version = String::from_utf8_lossy(&other.unwrap_or_default()).into_owned();
                self.refuse(format!("its version is {:?}", version.trim()))
            }
        }
    }

    /// Writes the version into an empty directory, as other processes may be doing
    /// at the same time.
    fn claim(&self, path: &Path) -> Result<()> {
        let entries = fs::read_dir(path)
            .map_err(|source| Error::from_io("list", &self.path, source))?
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
        let is_ours = |name: &std::ffi::OsString| {
            // What a start makes, and what a fresh volume has.
            ["version", "tmp", "lost+found"].iter().any(|known| name == known)
        };
        if let Some(other) = entries.into_iter().find(|name| !is_ours(name)) {
            // Somebody may have finished while we looked.
            return match self.read("version")? {
                Some(_) => Ok(()),
                None => {
                    self.refuse(format!("it has no version file but contains {}", other.display()))
                }
            };
        }
        // The records are for this user alone: they hold everybody's images.
        rustix::fs::chmod(path, DIR_MODE).or_else(|errno| match errno {
            Errno::PERM => Ok(()), // a volume owned by somebody else is as private as they made it
            errno => Err(Error::from_io("make private", &self.path, errno.into())),
        })?;
        self.settle("tmp")?;
        self.create("version", VERSION.as_bytes()).map(drop)
    }

    fn refuse(&self, reason: String) -> Result<()> {
        Err(Error::Format { place: self.path.clone(), reason })
    }

    fn make_top(&self) -> Result<()> {
        ["tmp", "up", "blob", "repo", "cat"].iter().try_for_each(|dir| self.settle(dir))
    }

    /// Returns the descriptor that paths are relative to.
    pub(super) fn listings(&self) -> &Listings {
        &self.listings
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns what a message calls `path`.
    pub(super) fn describe(&self, path: &str) -> String {
        format!("{}/{path}", self.path)
    }

    /// Turns an error code into an error that names `path`.
    pub(super) fn fail(&self, action: &'static str, path: &str, errno: Errno) -> Error {
        Error::from_io(action, self.describe(path), errno.into())
    }

    /// Opens a file for reading, or returns `None` where there is none.
    pub(super) fn open_file(&self, path: &str) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match rustix::fs::openat(&self.fd, path, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.fail("open", path, errno)),
        }
    }

    /// Reads a whole record, or returns `None` where there is none.
    pub(super) fn read(&self, path: &str) -> Result<Option<Bytes>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        read_all(&file)
            .map(|bytes| Some(bytes.into()))
            .map_err(|errno| self.fail("read", path, errno))
    }

    /// Returns a stamp of a record, or `None` where there is none.
    pub(super) fn stamp(&self, path: &str) -> Result<Option<Stamp>> {
        match rustix::fs::statat(&self.fd, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let nanoseconds =
                    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
                Ok(Some(Stamp { version: stat.st_ino, written_ns: nanoseconds }))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.fail("examine", path, errno)),
        }
    }

    /// Writes a record, replacing what was there.
    pub(super) fn replace(&self, path: &str, value: &[u8]) -> Result<()> {
        let temporary = self.write_temporary(value)?;
        self.in_parent(path, || rustix::fs::renameat(&self.fd, &temporary, &self.fd, path))
            .inspect_err(|_| self.unlink_quietly(&temporary))
    }

    /// Writes a record unless there is one; returns whether it did.
    pub(super) fn create(&self, path: &str, value: &[u8]) -> Result<bool> {
        let temporary = self.write_temporary(value)?;
        let created =
            self.rename_new(&temporary, path).inspect_err(|_| self.unlink_quietly(&temporary))?;
        if !created {
            self.unlink_quietly(&temporary);
        }
        Ok(created)
    }

    /// Renames a synced file unless the new name is taken; returns whether it did.
    ///
    /// Either way the file of that name is durable afterwards: whoever wrote it
    /// synced its bytes before naming it, and the directory is synced here.
    pub(super) fn rename_new(&self, from: &str, to: &str) -> Result<bool> {
        let mut created = true;
        self.in_parent(to, || {
            match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => created = false,
                // File systems without the flag (NFS, FUSE) have links at least.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    match rustix::fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
                        Err(Errno::EXIST) => created = false,
                        linked => {
                            linked?;
                            self.unlink_quietly(from);
                        }
                    }
                }
                renamed => renamed?,
            }
            Ok(())
        })?;
        Ok(created)
    }

    /// Creates empty files; those that exist are made as young as new ones.
    pub(super) fn mark(&self, keys: &[Key]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut dirs = BTreeSet::new();
        for key in keys {
            self.named(key.as_str(), || {
                let file = rustix::fs::openat(&self.fd, key.as_str(), flags, FILE_MODE)?;
                rustix::fs::futimens(&file, &NOW)
            })?;
            dirs.insert(parent(key.as_str()));
        }
        dirs.into_iter().try_for_each(|dir| self.sync_dir(dir))
    }

    /// Removes a record durably; returns whether there was one.
    pub(super) fn remove(&self, path: &str) -> Result<bool> {
        match rustix::fs::unlinkat(&self.fd, path, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(errno) => return Err(self.fail("remove", path, errno)),
        }
        self.sync_dir(parent(path))?;
        self.remove_empty(parent(path));
        Ok(true)
    }

    /// Removes a directory that is empty and what is empty then above it, down to
    /// the second level: what has one name for each blob and repository.
    fn remove_empty(&self, mut dir: &str) {
        while dir.matches('/').count() >= 2
            // Most are not empty, and that is the answer.
            && rustix::fs::unlinkat(&self.fd, dir, AtFlags::REMOVEDIR).is_ok()
        {
            self.lock_settled().remove(dir);
            dir = parent(dir);
        }
    }

    /// Removes a record if it is `expected`; returns whether it did.
    ///
    /// The record is taken out of the way first, so that what is compared is what
    /// is removed. Another one goes back, unless a newer has taken its place.
    pub(super) fn remove_if(&self, path: &str, expected: &[u8]) -> Result<bool> {
        let aside = self.new_temporary();
        match rustix::fs::renameat(&self.fd, path, &self.fd, &aside) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(errno) => return Err(self.fail("remove", path, errno)),
        }
        let is_expected = self.read(&aside)?.is_some_and(|value| value == expected);
        if is_expected {
            self.sync_dir(parent(path))?;
        } else {
            self.rename_new(&aside, path)?;
        }
        self.unlink_quietly(&aside);
        Ok(is_expected)
    }

    /// Removes files that crashed processes left in `tmp/`.
    pub(super) fn sweep_temporary(&self) -> Result<()> {
        let now = self.file_system_time()?;
        for name in self.names("tmp")? {
            let path = format!("tmp/{name}");
            let stat = rustix::fs::statat(&self.fd, &path, AtFlags::SYMLINK_NOFOLLOW);
            if stat.is_ok_and(|stat| now - stat.st_mtime > TEMPORARY_AGE_S) {
                self.unlink_quietly(&path);
            }
        }
        Ok(())
    }

    /// Returns the time in seconds by the clock that stamps our files, which may
    /// be another machine's.
    pub(super) fn file_system_time(&self) -> Result<i64> {
        let path = self.write_temporary(b"")?;
        let stat = rustix::fs::statat(&self.fd, &path, AtFlags::empty());
        self.unlink_quietly(&path);
        Ok(stat.map_err(|errno| self.fail("examine", &path, errno))?.st_mtime)
    }

    /// Returns the names in a directory that are valid text, in no order.
    pub(super) fn names(&self, path: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&self.fd, path, flags, Mode::empty())
            .and_then(rustix::fs::Dir::new)
            .map_err(|errno| self.fail("list", path, errno))?;
        for entry in dir {
            let entry = entry.map_err(|errno| self.fail("list", path, errno))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Makes a directory and everything above it, durably.
    pub(super) fn settle(&self, dir: &str) -> Result<()> {
        if dir.is_empty() || self.lock_settled().contains(dir) {
            return Ok(());
        }
        let mut made = Err(Errno::NOENT);
        for _ in 0..MAX_NAMINGS {
            self.settle(parent(dir))?;
            made = rustix::fs::mkdirat(&self.fd, dir, DIR_MODE);
            match made {
                // Another process has removed a directory that we remember.
                Err(Errno::NOENT) => self.lock_settled().clear(),
                _ => break,
            }
        }
        match made {
            // Another process may have made it a moment ago and not synced yet.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.fail("create", dir, errno)),
        }
        self.sync_dir(parent(dir))?;
        let mut settled = self.lock_settled();
        if settled.len() >= MAX_SETTLED {
            settled.clear();
        }
        settled.insert(dir.to_owned());
        Ok(())
    }

    /// Runs `work`, which names something in the directory of `path`, and makes
    /// the name durable.
    fn in_parent(&self, path: &str, work: impl FnMut() -> rustix::io::Result<()>) -> Result<()> {
        self.named(path, work)?;
        self.sync_dir(parent(path))
    }

    /// Runs `work`, which names something in the directory of `path`.
    fn named(&self, path: &str, mut work: impl FnMut() -> rustix::io::Result<()>) -> Result<()> {
        let mut done = Err(Errno::NOENT);
        for _ in 0..MAX_NAMINGS {
            self.settle(parent(path))?;
            done = work();
            match done {
                // Somebody removed a directory that we remember: begin from the top.
                Err(Errno::NOENT) => self.lock_settled().clear(),
                _ => break,
            }
        }
        done.map_err(|errno| self.fail("write", path, errno))
    }

    /// Syncs a directory: the names in it are durable afterwards. One that is gone
    /// was empty, so that somebody else has removed what we named.
    fn sync_dir(&self, dir: &str) -> Result<()> {
        let dir = if dir.is_empty() { "." } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, dir, flags, Mode::empty()).and_then(rustix::fs::fsync) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.fail("sync", dir, errno)),
        }
    }

    /// Returns a path in `tmp/` that nobody else uses.
    fn new_temporary(&self) -> String {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        format!("tmp/{:016x}-{number}", self.instance)
    }

    /// Writes and syncs a file in `tmp/`, and returns its path.
    fn write_temporary(&self, value: &[u8]) -> Result<String> {
        let path = self.new_temporary();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let written = rustix::fs::openat(&self.fd, &path, flags, FILE_MODE).and_then(|file| {
            write_all(&file, value)?;
            rustix::fs::fsync(&file)
        });
        match written {
            Ok(()) => Ok(path),
            Err(errno) => {
                self.unlink_quietly(&path);
                Err(self.fail("write", &path, errno))
            }
        }
    }

    /// Removes a file that nobody needs.
    pub(super) fn unlink_quietly(&self, path: &str) {
        // What cannot be removed now is swept up later.
        rustix::fs::unlinkat(&self.fd, path, AtFlags::empty()).unwrap_or_default();
    }

    fn lock_settled(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.settled.lock().expect("nothing panics while it holds the lock")
    }
}

/// Returns the directory part of a path, or the empty string.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Reads a file to its end.
pub(super) fn read_all(file: &OwnedFd) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(FIRST_READ);
    loop {
        let room = bytes.capacity() - bytes.len();
        let read = rustix::io::read(file, rustix::buffer::spare_capacity(&mut bytes))?;
        // A regular file is read short only at its end.
        if read < room {
            return Ok(bytes);
        }
        let size = rustix::fs::fstat(file)?.st_size;
        let missing = usize::try_from(size).unwrap_or(0).saturating_sub(bytes.len());
        bytes.reserve(missing + 1);
    }
}

/// Writes all of `bytes` to a file.
pub(super) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Writes all of `slices` at `offset`.
pub(super) fn write_all_at(
    file: &fs::File,
    mut slices: &mut [io::IoSlice<'_>],
    mut offset: u64,
) -> rustix::io::Result<()> {
    /// The most that one call takes (`IOV_MAX`).
    const MAX_SLICES: usize = 1024;
    io::IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, &slices[..slices.len().min(MAX_SLICES)], offset) {
            Ok(written) => {
                offset += written as u64;
                io::IoSlice::advance_slices(&mut slices, written);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
