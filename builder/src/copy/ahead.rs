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

use crate::context::{self, HeldContent};
use crate::tree::{Kind, Node, Stamp, Tree};

/// The longest file that is read ahead.
pub(super) const MAX_BYTES: u64 = 64 * 1024;
/// From how many files on threads are worth their start; few in tests, so that they have both.
pub(super) const FROM_FILES: usize = if cfg!(test) { 4 } else { 256 };
/// How many files a thread takes at a time, and after how many bytes it takes no more:
/// enough for the hand-over not to count.
const CHUNK_FILES: usize = 64;
const CHUNK_BYTES: u64 = 256 * 1024;
/// How many chunks are read ahead: 2 MiB and a bit.
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
    /// Where each is, and as what it was found.
    files: Vec<(&'a Path, &'a Node)>,
    /// Where each chunk of them ends.
    ends: Vec<usize>,
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
    pub(super) fn new(source: &'a dyn Tree, files: Vec<(&'a Path, &'a Node)>) -> Self {
        let (next, state) = (AtomicUsize::new(0), Mutex::default());
        let ends = chunk_ends(files.iter().map(|(_, node)| size_of(node)));
        Self { source, files, ends, next, state, changed: Condvar::new() }
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
            let Some(&end) = self.ends.get(chunk) else { return };
            let start = chunk.checked_sub(1).map_or(0, |before| self.ends[before]);
            let files = &self.files[start..end];
            {
                let mut state = self.lock();
                while !state.is_over && chunk >= state.wanted + CHUNKS_AHEAD {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.is_over {
                    return;
                }
            }
            let read = files.iter().map(|(path, node)| self.read(path, node)).collect();
            self.lock().done.insert(chunk, read);
            self.changed.notify_all();
        }
    }

    fn read(&self, path: &Path, node: &Node) -> Option<Small> {
        if let Some(stamp) = node.stamp
            && let Some(HeldContent { bytes, capability }) = self.source.take_content(node)
        {
            return Some(Small { stamp, capability, content: bytes });
        }
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

fn size_of(node: &Node) -> u64 {
    if let Kind::File { size } = node.kind { size } else { 0 }
}

/// Cuts files of these sizes into chunks and returns where each ends.
fn chunk_ends(sizes: impl Iterator<Item = u64>) -> Vec<usize> {
    let (mut ends, mut start, mut bytes, mut count) = (Vec::new(), 0, 0, 0);
    for size in sizes {
        (count, bytes) = (count + 1, bytes + size);
        if count - start == CHUNK_FILES || bytes >= CHUNK_BYTES {
            ends.push(count);
            (start, bytes) = (count, 0);
        }
    }
    if count > start {
        ends.push(count);
    }
    ends
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_so_many_files_or_bytes() {
        let ends = |sizes: &[u64]| chunk_ends(sizes.iter().copied());
        assert!(ends(&[]).is_empty());
        assert_eq!(ends(&[0]), [1_usize]);
        assert_eq!(ends(&[1; 130]), [64, 128, 130]);
        assert_eq!(ends(&[1; 128]), [64, 128]);
        assert_eq!(ends(&[MAX_BYTES; 10]), [4, 8, 10]);
    }
}
