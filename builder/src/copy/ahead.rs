//! Reads small files ahead of the thread that writes the layer.
//!
//! Opening and reading a file is a handful of system calls, and many small files are nothing else.
//! Several threads read them, in order and only so far ahead; whatever is unusual about a file is
//! left to the writer, which reads it itself and says what is wrong.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::context;
use crate::tree::{Stamp, Tree};

/// The longest file that is read ahead.
pub(super) const MAX_BYTES: u64 = 64 * 1024;
/// From how many files on threads are worth their start; few in tests, so that they have both.
pub(super) const FROM_FILES: usize = if cfg!(test) { 4 } else { 256 };
/// How many files a thread takes at a time.
const CHUNK_FILES: usize = 16;
/// How many chunks are read ahead. With the longest files that is 8 MiB.
const CHUNKS_AHEAD: usize = 8;
/// More threads than this wait for the writer.
const MAX_THREADS: usize = 4;

/// A file that was read.
pub(super) struct Small {
    pub(super) stamp: Stamp,
    pub(super) capability: Option<Vec<u8>>,
    pub(super) content: Vec<u8>,
}

/// The files to be read, and those that are.
pub(super) struct Ahead<'a> {
    source: &'a dyn Tree,
    files: Vec<&'a Path>,
    next: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    done: BTreeMap<usize, Vec<Option<Small>>>,
    /// The chunk that the writer waits for.
    wanted: usize,
    is_over: bool,
}

impl<'a> Ahead<'a> {
    pub(super) fn new(source: &'a dyn Tree, files: Vec<&'a Path>) -> Self {
        let (next, state) = (AtomicUsize::new(0), Mutex::default());
        Self { source, files, next, state, changed: Condvar::new() }
    }

    /// How many threads read.
    pub(super) fn threads() -> usize {
        let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        usize::try_from(cores).unwrap_or(1).clamp(1, MAX_THREADS)
    }

    /// Reads until all files are read or the writer has ended.
    pub(super) fn work(&self) {
        loop {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(files) = self.files.chunks(CHUNK_FILES).nth(chunk) else { return };
            {
                let mut state = self.lock();
                while !state.is_over && chunk >= state.wanted + CHUNKS_AHEAD {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.is_over {
                    return;
                }
            }
            let read = files.iter().map(|path| self.read(path)).collect();
            self.lock().done.insert(chunk, read);
            self.changed.notify_all();
        }
    }

    fn read(&self, path: &Path) -> Option<Small> {
        let mut file = self.source.open(path).ok()?;
        let stamp = context::stamp_of(&file).ok().filter(|stamp| stamp.size <= MAX_BYTES)?;
        let capability = context::capability(&file);
        let size = usize::try_from(stamp.size).ok()?;
        let mut content = vec![0; size];
        file.read_exact(&mut content).ok()?;
        Some(Small { stamp, capability, content })
    }

    /// Waits for a chunk.
    fn take(&self, chunk: usize) -> Vec<Option<Small>> {
        let mut state = self.lock();
        state.wanted = chunk;
        self.changed.notify_all();
        loop {
            if let Some(files) = state.done.remove(&chunk) {
                return files;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files in their order, for the writer. When it is dropped the threads end.
pub(super) struct InOrder<'a> {
    ahead: &'a Ahead<'a>,
    chunk: usize,
    files: std::vec::IntoIter<Option<Small>>,
}

impl<'a> InOrder<'a> {
    pub(super) fn new(ahead: &'a Ahead<'a>) -> Self {
        Self { ahead, chunk: 0, files: Vec::new().into_iter() }
    }

    /// Returns the next file, or `None` where the writer has to read it itself.
    pub(super) fn next(&mut self) -> Option<Small> {
        if self.files.len() == 0 {
            self.files = self.ahead.take(self.chunk).into_iter();
            self.chunk += 1;
        }
        self.files.next().flatten()
    }
}

impl Drop for InOrder<'_> {
    fn drop(&mut self) {
        self.ahead.lock().is_over = true;
        self.ahead.changed.notify_all();
    }
}
