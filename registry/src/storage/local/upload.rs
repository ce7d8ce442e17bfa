//! Uploads as directories: bytes arrive in `data`, the record stands in
//! `session`, and whoever writes holds `lock`.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use oci::Digest;
use rustix::fs::{Advice, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::super::{Blob, Content, Error, Key, Opened, Result, UploadId, Writer};
use super::direct::{BLOCK, DirectFile};
use super::files::{NOW, Root, read_all, write_all, write_all_at};
use super::on_blocking_thread;

/// How long a request waits for the one before it to let go of the upload. A
/// dropped connection is noticed within this time where the client is near.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
const LOCK_POLL: Duration = Duration::from_millis(25);

/// How many bytes are handed to the disk at a time while more arrive, so that
/// the sync at the end finds little left to do.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// From here on the bytes of a blob are written past the page cache. Smaller blobs
/// stay in memory for those who pull them next.
const CACHED_BYTES: u64 = 8 << 20;

/// How long a directory without a record may be one that is being made, in
/// seconds.
const UNFINISHED_AGE_S: i64 = 3600;

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

fn dir_of(id: UploadId) -> String {
    format!("up/{id}")
}

/// Makes the directory of a new upload. Nothing is synced: an upload that a
/// power cut swallows was never acknowledged as anything but begun.
pub(super) fn begin(root: &Root, id: UploadId, record: &[u8]) -> Result<()> {
    let dir = dir_of(id);
    let fail = |errno| root.fail("create", &dir, errno);
    rustix::fs::mkdirat(root.fd(), &dir, Mode::RWXU).map_err(fail)?;
    let made = open_dir(root, &dir).and_then(|fd| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(&fd, "lock", flags, FILE_MODE)?;
        write_record(&fd, record)
    });
    made.map_err(|errno| {
        remove_dir(root, &dir);
        fail(errno)
    })
}

fn open_dir(root: &Root, dir: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(root.fd(), dir, flags, Mode::empty())
}

/// Writes the record whole: nobody ever sees part of one, so one that cannot be
/// understood was lost in a power cut and not caught while it was made.
fn write_record(dir: &OwnedFd, record: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    write_all(&rustix::fs::openat(dir, "session.new", flags, FILE_MODE)?, record)?;
    rustix::fs::renameat(dir, "session.new", dir, "session")
}

fn read_record(dir: &OwnedFd) -> rustix::io::Result<Bytes> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    read_all(&rustix::fs::openat(dir, "session", flags, Mode::empty())?).map(Bytes::from)
}

fn data_size(dir: &OwnedFd) -> rustix::io::Result<u64> {
    match rustix::fs::statat(dir, "data", AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        Err(Errno::NOENT) => Ok(0),
        Err(errno) => Err(errno),
    }
}

/// Returns record and size of an upload.
pub(super) fn peek(root: &Root, id: UploadId) -> Result<Option<(Bytes, u64)>> {
    let dir = dir_of(id);
    let peeked = open_dir(root, &dir).and_then(|fd| Ok((read_record(&fd)?, data_size(&fd)?)));
    match peeked {
        Ok(peeked) => Ok(Some(peeked)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(root.fail("read", &dir, errno)),
    }
}

/// Opens an upload for one writer, waiting a moment for the one before.
pub(super) async fn open(root: &Arc<Root>, id: UploadId) -> Result<Option<Opened<LocalWriter>>> {
    let dir = dir_of(id);
    let fail = |errno| root.fail("open", &dir, errno);
    let lock_flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = open_dir(root, &dir)
        .and_then(|fd| Ok((rustix::fs::openat(&fd, "lock", lock_flags, Mode::empty())?, fd)));
    let (lock, fd) = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    let mut patience = LOCK_PATIENCE;
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if patience.is_zero() => return Err(Error::Busy { id }),
            Err(Errno::WOULDBLOCK) => {
                tokio::time::sleep(LOCK_POLL).await;
                patience = patience.saturating_sub(LOCK_POLL);
            }
            Err(errno) => return Err(fail(errno)),
        }
    }
    // The writer before us may have ended the upload: then its record is gone.
    let record = match read_record(&fd) {
        Ok(record) => record,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(fail(errno)),
    };
    let size = data_size(&fd).map_err(fail)?;
    let writer = LocalWriter {
        root: Arc::clone(root),
        id,
        dir: Arc::new(fd),
        _lock: lock,
        data: None,
        size,
        handed_over: size,
        direct: None,
        is_blob: None,
    };
    Ok(Some(Opened { record, size, writer }))
}

/// Returns the uploads in progress.
pub(super) fn all(root: &Root) -> Result<Vec<UploadId>> {
    Ok(root.names("up")?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Removes directories that a crash left between two steps.
pub(super) fn sweep(root: &Root) -> Result<()> {
    let now = root.file_system_time()?;
    for id in all(root)? {
        let dir = dir_of(id);
        let Ok(stat) = rustix::fs::statat(root.fd(), &dir, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if now - stat.st_mtime > UNFINISHED_AGE_S && peek(root, id)?.is_none() {
            remove_dir(root, &dir);
        }
    }
    Ok(())
}

/// Removes an upload: its record first, which ends it for everybody.
fn remove_dir(root: &Root, dir: &str) {
    for file in ["session", "session.new", "data", "lock"] {
        root.unlink_quietly(&format!("{dir}/{file}"));
    }
    // If a crash or an error leaves the directory, the sweep removes it.
    rustix::fs::unlinkat(root.fd(), dir, AtFlags::REMOVEDIR).unwrap_or_default();
}

/// An upload that one request has opened.
#[derive(Debug)]
pub struct LocalWriter {
    root: Arc<Root>,
    id: UploadId,
    dir: Arc<OwnedFd>,
    /// Lets go of the upload when the writer is dropped.
    _lock: OwnedFd,
    data: Option<Arc<File>>,
    /// How long `data` is.
    size: u64,
    /// Up to where the disk has been asked to write.
    handed_over: u64,
    /// `data` once more, for writing past the page cache.
    direct: Option<DirectFile>,
    /// Once it was published, whether `data` has become the blob.
    is_blob: Option<bool>,
}

/// What is written at a time, and where.
struct Batch {
    chunks: Vec<Bytes>,
    offset: u64,
}

impl Batch {
    fn size(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    fn end(&self) -> u64 {
        self.offset + self.size() as u64
    }

    /// Whether this is part of a large blob, and whole blocks.
    fn is_for_the_disk(&self) -> bool {
        self.offset >= CACHED_BYTES
            && self.offset.is_multiple_of(BLOCK as u64)
            && self.size() >= BLOCK
    }

    fn write(&self, data: &File, direct: Option<&mut DirectFile>) -> rustix::io::Result<()> {
        let written = match direct {
            Some(direct) => direct.write(&self.chunks, self.offset)?,
            None => 0,
        };
        let mut slices: Vec<IoSlice<'_>> =
            self.chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, written);
        write_all_at(data, rest, self.offset + written as u64)
    }
}

impl LocalWriter {
    fn fail(&self, action: &'static str, errno: Errno) -> Error {
        self.root.fail(action, &dir_of(self.id), errno)
    }

    /// Takes the file for writing a batch past the page cache, if that is right
    /// for it.
    fn direct(&mut self, batch: &Batch) -> Option<DirectFile> {
        match batch.is_for_the_disk() {
            true => self.direct.take().or_else(|| DirectFile::open(&self.dir)),
            false => None,
        }
    }

    /// Returns `data`, opened or created.
    fn data(&mut self) -> Result<Arc<File>> {
        if let Some(data) = &self.data {
            return Ok(Arc::clone(data));
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&*self.dir, "data", flags, FILE_MODE)
            .map_err(|errno| self.fail("open", errno))?;
        let file = Arc::new(File::from(file));
        self.data = Some(Arc::clone(&file));
        Ok(file)
    }
}

impl Writer for LocalWriter {
    const CHECKPOINT_BYTES: u64 = 64 << 20;

    async fn write(&mut self, offset: u64, chunks: &[Bytes]) -> Result<()> {
        let data = self.data()?;
        let batch = Batch { chunks: chunks.to_vec(), offset };
        let cut = (self.size > offset).then_some(offset);
        let mut direct = self.direct(&batch);
        let end = batch.end();
        let hand_over = end >= self.handed_over.saturating_add(WRITEBACK_BYTES);
        let from = self.handed_over.min(offset);
        let (root, place) = (Arc::clone(&self.root), dir_of(self.id));
        let direct = on_blocking_thread(move || {
            let fail = |errno| root.fail("write", &place, errno);
            if let Some(size) = cut {
                rustix::fs::ftruncate(&data, size).map_err(fail)?;
            }
            batch.write(&data, direct.as_mut()).map_err(fail)?;
            if hand_over && direct.is_none() {
                // On dirty pages this advice starts writing and drops nothing. It
                // is only advice: a file system that ignores it loses no bytes.
                let length = std::num::NonZeroU64::new(end - from);
                rustix::fs::fadvise(&data, from, length, Advice::DontNeed).unwrap_or_default();
            }
            Ok(direct)
        })
        .await?;
        if direct.is_some() {
            self.direct = direct;
        }
        self.size = end;
        if hand_over {
            self.handed_over = end;
        }
        Ok(())
    }

    async fn save(&mut self, record: Bytes) -> Result<()> {
        let dir = Arc::clone(&self.dir);
        let (root, place) = (Arc::clone(&self.root), dir_of(self.id));
        on_blocking_thread(move || {
            write_record(&dir, &record).map_err(|errno| root.fail("write", &place, errno))
        })
        .await
    }

    async fn content(&mut self, size: u64) -> Result<Blob> {
        let file = match &self.data {
            Some(data) => Arc::clone(data),
            None => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
                let file = rustix::fs::openat(&*self.dir, "data", flags, FILE_MODE)
                    .map_err(|errno| self.fail("open", errno))?;
                Arc::new(File::from(file))
            }
        };
        Ok(Blob { content: Content::File(file), size })
    }

    async fn publish(&mut self, digest: &Digest, size: u64) -> Result<()> {
        let key = Key::data(digest);
        match self.is_blob {
            Some(true) => return Ok(()), // young, so no collector takes it
            Some(false) if self.root.stamp(key.as_str())?.is_some() => return Ok(()),
            Some(false) | None => {}
        }
        let data = self.data()?;
        let (root, dir) = (Arc::clone(&self.root), dir_of(self.id));
        let cut = self.size != size;
        let is_blob = on_blocking_thread(move || {
            let fail = |action, errno| root.fail(action, &dir, errno);
            if cut {
                rustix::fs::ftruncate(&data, size).map_err(|errno| fail("cut", errno))?;
            }
            rustix::fs::fchmod(&data, Mode::RUSR).map_err(|errno| fail("protect", errno))?;
            rustix::fs::futimens(&data, &NOW).map_err(|errno| fail("date", errno))?;
            rustix::fs::fdatasync(&data).map_err(|errno| fail("sync", errno))?;
            root.rename_new(&format!("{dir}/data"), key.as_str())
        })
        .await?;
        self.is_blob = Some(is_blob);
        self.size = size;
        Ok(())
    }

    async fn end(self) -> Result<()> {
        // Equal bytes that came second are removed with the directory.
        self.discard().await
    }

    async fn discard(self) -> Result<()> {
        on_blocking_thread(move || {
            remove_dir(&self.root, &dir_of(self.id));
            Ok(())
        })
        .await
    }
}
