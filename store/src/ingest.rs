//! The one way to make a blob: write, verify, sync, rename.
//!
//! Bytes are hashed on their way to the file, never by reading it again. From the second block on
//! the hashing has its own thread, so that hashing one block and writing the next overlap.

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use oci::{Algorithm, Digest, Hasher};

use crate::durable::{self, Durability, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::lease::Lease;
use crate::settle::{self, SETTLED_MODE, UNSETTLED_MODE};

/// How many bytes are collected before they are written and hashed: big enough that system calls
/// and thread hand-overs do not count, small enough to stay in the processor's cache.
const BLOCK_BYTES: usize = 256 * 1024;

/// How many written blocks may wait for the hashing thread. With the one being filled and the one
/// being hashed this bounds the memory of an ingest to about 1 MiB.
const BLOCKS_WAITING: usize = 2;

/// From which size on a blob whose sync is deferred is written to the disk meanwhile, so that the
/// others need not wait for it in the end.
const SYNC_EARLY_BYTES: u64 = 1 << 20;

/// How much is written to the disk at a time while more of the same blob comes in.
const SYNC_EVERY_BYTES: u64 = 16 << 20;

/// A blob being written. Nobody sees it before it is committed; dropping it discards it.
#[derive(Debug)]
pub struct Ingest {
    lease: Lease,
    path: PathBuf,
    file: File,
    hashing: Hashing,
    block: Vec<u8>,
    size: u64,
    /// Whether a commit waits for the disk, or leaves that to who settles.
    durability: Durability,
    /// How many of the bytes are on their way to the disk.
    sent: u64,
    is_committed: bool,
}

/// A blob that is on the disk under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its name.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl Ingest {
    pub(crate) fn new(lease: Lease, algorithm: Algorithm) -> Result<Self> {
        let path = lease.temporary();
        let (durability, mode) = if lease.defers_syncs() {
            (Durability::Volatile, UNSETTLED_MODE)
        } else {
            (Durability::Synced, SETTLED_MODE)
        };
        let file = durable::create_with(&path, mode)?;
        let hashing = Hashing::Here(Hasher::new(algorithm));
        let (block, size, sent, is_committed) = (Vec::new(), 0, 0, false);
        Ok(Self { lease, path, file, hashing, block, size, durability, sent, is_committed })
    }

    /// Returns how many bytes came so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Verifies the bytes and makes them a blob, pinned by the lease, that outlives a power cut (or
    /// will when an image name leads to it, if the lease [defers](Lease::defer_syncs)).
    ///
    /// `expected` is the digest and the length in bytes that the blob must have, if they are
    /// known. A blob that exists already stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::SizeMismatch`] or [`Error::DigestMismatch`] if it is not what was expected; in
    /// every case of error nothing remains.
    pub fn commit(mut self, expected: Option<(Digest, u64)>) -> Result<Committed> {
        if let Some((expected_digest, expected)) = expected
            && expected != self.size
        {
            return Err(Error::SizeMismatch { expected_digest, expected, actual: self.size });
        }
        self.write_block()?;
        let actual = self.hashing.finish();
        if let Some((expected, _)) = expected
            && expected != actual
        {
            return Err(Error::DigestMismatch { expected, actual });
        }
        self.lease.pin(&actual)?;
        let target = self.lease.store().root().blob(&actual);
        let existing = if_present(fs::metadata(&target)).doing("read", &target)?;
        if existing.is_none() {
            if self.durability == Durability::Volatile {
                self.lease.announce_unsettled()?;
            }
            durable::publish(&self.file, &self.path, &target, self.durability)?;
            self.is_committed = true;
            let unsent = self.size - self.sent;
            if self.durability == Durability::Volatile && unsent >= SYNC_EARLY_BYTES {
                self.lease.sync_meanwhile(&self.file, &target)?;
            }
        } else if self.durability == Durability::Synced {
            settle::blobs(self.lease.store(), &[actual].into())?;
        }
        Ok(Committed { digest: actual, size: self.size })
    }

    fn write_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        durable::write(&self.file, &self.block, &self.path)?;
        let block = mem::take(&mut self.block);
        self.block = self.hashing.update(block, self.size)?;
        if self.durability == Durability::Volatile && self.size - self.sent >= SYNC_EVERY_BYTES {
            self.sent = self.size;
            self.lease.sync_meanwhile(&self.file, &self.path)?;
        }
        Ok(())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOCK_BYTES.saturating_sub(self.block.len());
        let taken = &bytes[..bytes.len().min(room)];
        self.block.extend_from_slice(taken);
        self.size += taken.len() as u64;
        if self.block.len() >= BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(taken.len())
    }

    /// Does nothing: an ingest has no reader to flush for.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.is_committed {
            // What cannot be removed now is removed by gc when the lease has ended.
            let _left_for_gc = durable::remove(self.path());
        }
    }
}

/// Where the hash is computed.
#[derive(Debug)]
enum Hashing {
    /// By the writer: the blob fits into one block so far.
    Here(Hasher),
    /// By a thread, which returns its buffers for reuse.
    Thread { blocks: SyncSender<Vec<u8>>, used: Receiver<Vec<u8>>, thread: JoinHandle<Hasher> },
    /// Nowhere any more.
    Finished,
}

impl Hashing {
    /// Hashes `block` in time, and returns an empty buffer for the next one.
    fn update(&mut self, block: Vec<u8>, size_so_far: u64) -> Result<Vec<u8>> {
        if let Self::Here(hasher) = self
            && size_so_far >= 2 * BLOCK_BYTES as u64
        {
            let hasher = mem::replace(hasher, Hasher::new(Algorithm::Sha256));
            *self = Self::start(hasher)?;
        }
        match self {
            Self::Here(hasher) => {
                hasher.update(&block);
                Ok(cleared(block))
            }
            Self::Thread { blocks, used, .. } => {
                blocks.send(block).expect("the hashing thread ends only after its channel");
                Ok(used.try_recv().map(cleared).unwrap_or_default())
            }
            Self::Finished => unreachable!("commit consumes the ingest"),
        }
    }

    fn start(mut hasher: Hasher) -> Result<Self> {
        let (blocks, received) = sync_channel::<Vec<u8>>(BLOCKS_WAITING);
        let (give_back, used) = sync_channel(BLOCKS_WAITING);
        let thread = std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                for block in received {
                    hasher.update(&block);
                    // Where nobody takes buffers back any more, or enough are on the way, it goes.
                    let _dropped = give_back.try_send(block);
                }
                hasher
            })
            .doing("start a thread for", "hashing")?;
        Ok(Self::Thread { blocks, used, thread })
    }

    fn finish(&mut self) -> Digest {
        match mem::replace(self, Self::Finished) {
            Self::Here(hasher) => hasher.finish(),
            Self::Thread { blocks, thread, .. } => {
                drop(blocks);
                thread.join().expect("hashing does not panic").finish()
            }
            Self::Finished => unreachable!("commit consumes the ingest"),
        }
    }
}

fn cleared(mut block: Vec<u8>) -> Vec<u8> {
    block.clear();
    block
}

#[cfg(test)]
mod tests {
    use super::BLOCK_BYTES;
    use crate::error::Error;
    use crate::store::Store;
    use oci::{Algorithm, Digest};
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write as _;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn ingest_is_empty(store: &Store) -> bool {
        fs::read_dir(store.root().ingest()).unwrap().count() == 0
    }

    #[test]
    fn committed_bytes_can_be_read_by_their_digest() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let blocks = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES, 9 * BLOCK_BYTES + 7];
        for (length, algorithm) in
            blocks.into_iter().flat_map(|n| [(n, Algorithm::Sha256), (n, Algorithm::Sha512)])
        {
            let bytes: Vec<u8> =
                (0..length).map(|n| u8::try_from(n * n / 251 % 256).unwrap()).collect();
            let expected = Digest::of(algorithm, &bytes);
            let mut ingest = lease.ingest_with(algorithm).unwrap();
            ingest.write_all(&bytes).unwrap();
            let committed = ingest.commit(Some((expected, length as u64))).unwrap();
            assert_eq!((committed.digest, committed.size), (expected, length as u64));
            assert_eq!(store.blobs().read(&expected, u64::MAX).unwrap(), bytes);
        }
        assert!(ingest_is_empty(&store));
    }

    #[test]
    fn mismatched_blob_is_refused_and_leaves_nothing_behind() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let promised = Digest::sha256(b"promised");
        let mut ingest = lease.ingest().unwrap();
        ingest.write_all(b"received").unwrap();
        let error = ingest.commit(Some((promised, 8))).unwrap_err();
        insta::assert_snapshot!(error, @"content is sha256:318c5ad51e9b36ff5924ae323dd59031245413a3e0f2aa3e03cc42902e9e7acc, expected sha256:1e0222143c6f7f6f2ed8f92325e6b614e7223a6ab25edf03612096e4b0a92f61");
        let mut ingest = lease.ingest().unwrap();
        ingest.write_all(b"recei").unwrap();
        let error = ingest.commit(Some((promised, 8))).unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { expected: 8, actual: 5, .. }), "{error}");
        let error = store.blobs().open(&promised).unwrap_err();
        assert!(matches!(error, Error::BlobUnknown { digest } if digest == promised));
        assert!(ingest_is_empty(&store));
    }

    #[test]
    fn dropped_ingest_leaves_nothing_behind() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut ingest = lease.ingest().unwrap();
        ingest.write_all(&vec![7; 5 * BLOCK_BYTES]).unwrap();
        assert!(!ingest_is_empty(&store));
        drop(ingest);
        assert!(ingest_is_empty(&store));
    }

    #[test]
    fn two_at_once_make_one_blob() {
        let (_dir, store) = store();
        let bytes = vec![3; 3 * BLOCK_BYTES];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let lease = store.lease().unwrap();
                    let mut ingest = lease.ingest().unwrap();
                    ingest.write_all(&bytes).unwrap();
                    ingest.commit(None).unwrap();
                });
            }
        });
        let blobs = store.root().blobs(Algorithm::Sha256);
        assert_eq!(fs::read_dir(blobs).unwrap().count(), 1);
        assert_eq!(store.blobs().read(&Digest::sha256(&bytes), u64::MAX).unwrap(), bytes);
        assert!(ingest_is_empty(&store));
    }

    #[test]
    fn limit_on_reading_is_kept() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut ingest = lease.ingest().unwrap();
        ingest.write_all(b"12345").unwrap();
        let digest = ingest.commit(None).unwrap().digest;
        assert_eq!(store.blobs().read(&digest, 5).unwrap(), b"12345");
        let error = store.blobs().read(&digest, 4).unwrap_err();
        assert!(matches!(error, Error::BlobTooLarge { size: 5, limit: 4, .. }), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_sizes_of_writes_do_not_matter(
            sizes in proptest::collection::vec(0..300_000_usize, 0..8),
        ) {
            let (_dir, store) = store();
            let lease = store.lease().unwrap();
            let mut ingest = lease.ingest().unwrap();
            let mut all = Vec::new();
            for (n, size) in sizes.into_iter().enumerate() {
                let piece = vec![u8::try_from(n).unwrap(); size];
                ingest.write_all(&piece).unwrap();
                all.extend(piece);
            }
            prop_assert_eq!(ingest.size(), all.len() as u64);
            prop_assert_eq!(ingest.commit(None).unwrap().digest, Digest::sha256(&all));
        }
    }
}
