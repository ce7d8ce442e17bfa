//! Walks a part of the context: what is there, and what the kernel says of it.
//!
//! Looking at files is most of what a build does that finds nothing changed, and the kernel looks
//! at several directories at once.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, OFlags, RawDir};
use rustix::io::Errno;

use super::directory::{Context, MAX_ENTRIES, node};
use crate::error::{Error, IoContext as _, Result};
use crate::ignore::Matched;
use crate::walked::{Below, Listing, Walked};

/// How much of a directory is read at once.
pub(super) const LISTING_BYTES: usize = 32 * 1024;
/// From how many waiting directories on help is worth a thread.
const HELP_FROM: usize = 4;
/// More threads than this wait for each other.
const MAX_THREADS: usize = 8;

/// Returns everything below `top` that is not ignored: paths relative to it, parents before
/// children, names in byte order.
pub(super) fn walk(context: &Context, top: &Path) -> Result<Walked> {
    let walk = Walk {
        context,
        top,
        queue: Mutex::default(),
        changed: Condvar::new(),
        numbers: AtomicUsize::new(1),
        entries: AtomicUsize::new(0),
    };
    let first = Directory { number: 0, relative: PathBuf::new(), matched: context.matched(top) };
    walk.lock().waiting.push(first);
    let mut listings = Vec::new();
    walk.alone(&mut listings)?;
    if !walk.lock().waiting.is_empty() {
        let threads = threads();
        std::thread::scope(|scope| {
            let helper = || {
                let mut listings = Vec::new();
                walk.together(&mut listings);
                listings
            };
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(helper)).collect();
            walk.together(&mut listings);
            for helper in helpers {
                listings.extend(helper.join().expect("walking returns its errors"));
            }
        });
    }
    let failure = walk.lock().failure.take();
    match failure {
        Some(failure) => Err(failure),
        None => {
            listings.sort_unstable_by_key(|(number, _)| *number);
            Ok(Walked::in_order(listings.into_iter().map(|(_, listing)| listing).collect()))
        }
    }
}

/// How many threads the kernel lets run at once.
fn threads() -> usize {
    let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    usize::try_from(cores).unwrap_or(1).clamp(1, MAX_THREADS)
}

struct Walk<'a> {
    context: &'a Context,
    top: &'a Path,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The number of the next directory.
    numbers: AtomicUsize,
    entries: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Directory>,
    /// How many are being read, which may add to those that wait.
    reading: usize,
    idle: usize,
    failure: Option<Error>,
}

/// A directory to be read.
struct Directory {
    number: usize,
    relative: PathBuf,
    matched: Matched,
}

/// A directory that was read, with its number.
type Numbered = (usize, Listing);

impl Walk<'_> {
    /// Reads until nothing waits, or enough for others to help.
    fn alone(&self, listings: &mut Vec<Numbered>) -> Result<()> {
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        loop {
            let directory = {
                let mut queue = self.lock();
                if queue.waiting.len() >= HELP_FROM {
                    return Ok(());
                }
                queue.waiting.pop()
            };
            let Some(directory) = directory else { return Ok(()) };
            let mut found = Vec::new();
            listings.push(self.read(&directory, &mut buffer, &mut found)?);
            self.lock().waiting.extend(found);
        }
    }

    /// Reads beside other threads until all of them are done.
    fn together(&self, listings: &mut Vec<Numbered>) {
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut found = Vec::new();
        let mut queue = self.lock();
        loop {
            if queue.failure.is_some() {
                break;
            }
            let Some(directory) = queue.waiting.pop() else {
                if queue.reading == 0 {
                    break;
                }
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
                continue;
            };
            queue.reading += 1;
            drop(queue);
            let result = self.read(&directory, &mut buffer, &mut found);
            queue = self.lock();
            queue.reading -= 1;
            queue.waiting.append(&mut found);
            match result {
                Ok(listing) => listings.push(listing),
                Err(error) => drop(queue.failure.get_or_insert(error)),
            }
            if queue.idle > 0 {
                self.changed.notify_all();
            }
        }
        self.changed.notify_all();
    }

    /// Reads one directory; adds those in it to `found`.
    fn read(
        &self,
        directory: &Directory,
        buffer: &mut Vec<u8>,
        found: &mut Vec<Directory>,
    ) -> Result<Numbered> {
        let Self { context, top, .. } = self;
        let path = top.join(&directory.relative);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let absolute = || context.absolute(&path);
        let dir = context.open_beneath(&path, flags).doing("open directory", &absolute())?;
        let names = Names::read(dir.as_fd(), buffer).doing("read directory", &absolute())?;
        let count = self.entries.fetch_add(names.list.len(), Ordering::Relaxed);
        if count + names.list.len() > MAX_ENTRIES {
            let path = context.absolute(Path::new(""));
            return Err(Error::TooManyEntries { path, limit: MAX_ENTRIES });
        }
        let mut listing = Listing::default();
        listing.entries.reserve_exact(names.list.len());
        for (name, kind) in names.iter() {
            let (is_ignored, matched) = self.check(&path, name, &directory.matched);
            let may_be_dir = matches!(kind, FileType::Directory | FileType::Unknown);
            if is_ignored && !(may_be_dir && self.may_reinclude_below(&path, name)) {
                continue;
            }
            let text = OsStr::from_bytes(name.to_bytes());
            let looked = || context.absolute(&path).join(text);
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                // It vanished between the listing and the look.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error).doing("look at", &looked()),
                Ok(stat) => stat,
            };
            let node = match node(dir.as_fd(), name, &stat) {
                Err(error) => return Err(error).doing("read link", &looked()),
                Ok(node) => node,
            };
            let relative = join(&directory.relative, text);
            if node.is_dir() {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed);
                found.push(Directory { number, relative: relative.clone(), matched });
                let place = listing.entries.len();
                listing.directories.push(Below { place, listing: number, is_ignored });
            } else if is_ignored {
                continue;
            }
            listing.entries.push((relative, node));
        }
        Ok((directory.number, listing))
    }

    /// Returns whether the ignore file excludes a name in a directory, and what to hand down.
    fn check(&self, directory: &Path, name: &CStr, matched: &Matched) -> (bool, Matched) {
        let ignore = self.context.ignore();
        if ignore.is_empty() {
            return (false, Matched::default());
        }
        let child = join(directory, OsStr::from_bytes(name.to_bytes()));
        ignore.check(&child.to_string_lossy(), matched)
    }

    fn may_reinclude_below(&self, directory: &Path, name: &CStr) -> bool {
        let child = join(directory, OsStr::from_bytes(name.to_bytes()));
        self.context.ignore().may_reinclude_below(&child)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Joins a path and a name in one allocation of the right size.
fn join(directory: &Path, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::with_capacity(directory.as_os_str().len() + 1 + name.len());
    path.push(directory);
    path.push(name);
    path
}

/// The names in a directory, in byte order, with what the directory says they are.
pub(super) struct Names {
    /// All of them, each with its NUL.
    bytes: Vec<u8>,
    list: Vec<(u32, u32, FileType)>,
}

impl Names {
    /// Reads a directory that was just opened.
    pub(super) fn read(dir: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Self, Errno> {
        let (mut bytes, mut list) = (Vec::new(), Vec::new());
        buffer.clear();
        let mut reader = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = reader.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes_with_nul();
            if name == b".\0" || name == b"..\0" {
                continue;
            }
            // 5,000,000 entries of 255 bytes: it always fits.
            let start = u32::try_from(bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            bytes.extend_from_slice(name);
            let end = u32::try_from(bytes.len()).map_err(|_| Errno::OVERFLOW)?;
            list.push((start, end, entry.file_type()));
        }
        let name = |entry: &(u32, u32, FileType)| &bytes[entry.0 as usize..entry.1 as usize];
        list.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        Ok(Self { bytes, list })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&CStr, FileType)> {
        self.list.iter().map(|(start, end, kind)| {
            let name = &self.bytes[*start as usize..*end as usize];
            (CStr::from_bytes_with_nul(name).expect("a name ends with its only NUL"), *kind)
        })
    }
}
