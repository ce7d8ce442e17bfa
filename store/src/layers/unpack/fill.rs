//! Small files get their content and metadata beside the thread that reads the tar.
//!
//! What the tree looks like is decided by one thread, entry after entry: it creates the files. What
//! goes into an open file depends on nothing else, and is the larger half of the work.

use std::{
    fs::File,
    io::Write as _,
    mem,
    num::NonZero,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

use rustix::fs::{self as sys, Mode};

use super::apply::owner_error;
use crate::layers::{
    dir::{set_open_times, set_owner, set_xattrs},
    entry::Metadata,
    error::{EntryContext as _, LayerResult},
};

/// The longest content that is handed over; longer ones are written as they are read.
pub(super) const MAX_CONTENT_BYTES: u64 = 64 * 1024;
/// How many files are handed over together, and after how many bytes no more: so many that waking a
/// thread for them does not count.
const BATCH_FILES: usize = 16;
const BATCH_BYTES: usize = 128 * 1024;
/// How many batches may wait. That is up to 1.5 MiB, and 128 descriptors are open.
const BATCHES_WAITING: usize = 8;
/// How many files are filled before threads are started for the others; few in tests, so that they
/// have both.
const HELP_FROM: usize = if cfg!(test) { 3 } else { 64 };
/// More threads than this wait for the file system's locks.
const MAX_THREADS: usize = 4;

/// An open file and what is to become of it.
pub(super) struct Job {
    pub(super) file: File,
    pub(super) path: Vec<u8>,
    pub(super) content: Vec<u8>,
    pub(super) finish: Finish,
}

/// The metadata of a file, and which part of it the file does not have by itself.
pub(super) struct Finish {
    pub(super) metadata: Metadata,
    pub(super) needs_owner: bool,
    pub(super) needs_mode: bool,
}

impl Finish {
    /// Gives a file its metadata, the time last.
    pub(super) fn apply(&self, file: &File, path: &[u8]) -> LayerResult<()> {
        let metadata = &self.metadata;
        if self.needs_owner {
            set_owner(file, metadata).map_err(|source| owner_error(path, metadata, source))?;
        }
        if self.needs_mode {
            let mode = Mode::from_raw_mode(metadata.mode);
            sys::fchmod(file, mode).entry("set the mode of", path)?;
        }
        set_xattrs(file, &metadata.xattrs).entry("set the attributes of", path)?;
        set_open_times(file, metadata.mtime).entry("set the time of", path)
    }
}

impl Job {
    fn run(mut self) -> LayerResult<()> {
        self.file.write_all(&self.content).entry("write", &self.path)?;
        self.finish.apply(&self.file, &self.path)
    }
}

/// The threads that fill files; started when there are enough of them.
pub(super) struct Filling<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    queue: &'env Queue,
    count: usize,
    /// What is handed over next, and its length.
    batch: Vec<Job>,
    batch_bytes: usize,
    jobs: Option<SyncSender<Vec<Job>>>,
    threads: Vec<ScopedJoinHandle<'scope, LayerResult<()>>>,
}

/// The end of the queue that the threads share.
pub(super) type Queue = Mutex<Option<Receiver<Vec<Job>>>>;

impl<'scope, 'env> Filling<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, queue: &'env Queue) -> Self {
        let (batch, threads) = (Vec::new(), Vec::new());
        Self { scope, queue, count: 0, batch, batch_bytes: 0, jobs: None, threads }
    }

    /// Fills a file, or hands it over; waits only if too many wait already.
    pub(super) fn add(&mut self, job: Job) -> LayerResult<()> {
        self.count += 1;
        if self.count == HELP_FROM {
            self.start();
        }
        if self.jobs.is_none() {
            return job.run();
        }
        self.batch_bytes += job.content.len();
        self.batch.push(job);
        if self.batch.len() == BATCH_FILES || self.batch_bytes >= BATCH_BYTES {
            self.hand_over();
        }
        Ok(())
    }

    fn hand_over(&mut self) {
        self.batch_bytes = 0;
        let batch = mem::take(&mut self.batch);
        if let Some(jobs) = &self.jobs {
            // It comes back when a thread has failed: what that says is said at the end.
            let _failed_already = jobs.send(batch);
        }
    }

    fn start(&mut self) {
        let (send, receive) = sync_channel(BATCHES_WAITING);
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(receive);
        let count = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let queue = self.queue;
        for _ in 0..count {
            let builder = thread::Builder::new().name("fill".to_owned());
            self.threads.extend(builder.spawn_scoped(self.scope, || fill(queue)));
        }
        // Where no thread can be started, the files are filled by the one that reads.
        self.jobs = (!self.threads.is_empty()).then_some(send);
    }

    /// Waits until all files are filled.
    pub(super) fn finish(&mut self) -> LayerResult<()> {
        self.hand_over();
        drop(self.jobs.take());
        let mut all = Ok(());
        for thread in self.threads.drain(..) {
            all = all.and(thread.join().expect("filling files does not panic"));
        }
        all
    }
}

fn fill(queue: &Queue) -> LayerResult<()> {
    loop {
        let batch = {
            let receiver = queue.lock().unwrap_or_else(PoisonError::into_inner);
            receiver.as_ref().and_then(|receiver| receiver.recv().ok())
        };
        let Some(batch) = batch else { return Ok(()) };
        if let Err(error) = batch.into_iter().try_for_each(Job::run) {
            // Whoever hands over more is not to wait for a thread that has ended.
            drop(queue.lock().unwrap_or_else(PoisonError::into_inner).take());
            return Err(error);
        }
    }
}
