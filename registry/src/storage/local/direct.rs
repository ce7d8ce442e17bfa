//! Writing past the page cache.
//!
//! The bytes of a large blob are written once and synced at once. Through the
//! page cache they are copied into fresh pages first, which costs as much as
//! hashing them and pushes out what others read. Written directly, from one
//! buffer used again and again, they go to the disk while more arrive.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// What offsets, lengths and addresses must be multiples of: the block size of
/// all common file systems, and at least the sector size of all disks.
pub(super) const BLOCK: usize = 4096;

/// How much is written at a time.
const BUFFER_BYTES: usize = 512 << 10;

/// A file opened for direct writing.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: OwnedFd,
    buffer: Vec<u8>,
    /// Where in the buffer a block begins.
    start: usize,
}

impl DirectFile {
    /// Opens `data` in a directory, or returns `None` where the file system
    /// cannot do this.
    pub(super) fn open(dir: &OwnedFd) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(dir, "data", flags, Mode::empty()).ok()?;
        Some(Self { file, buffer: Vec::new(), start: 0 })
    }

    /// Writes as many whole blocks of `chunks` at `offset` as it can, and returns
    /// how many bytes that were. The caller writes the rest another way.
    pub(super) fn write(&mut self, chunks: &[Bytes], offset: u64) -> rustix::io::Result<usize> {
        let total: usize = chunks.iter().map(Bytes::len).sum();
        let wanted = total.min(BUFFER_BYTES);
        if self.buffer.len() < wanted + BLOCK {
            self.buffer = vec![0; wanted + BLOCK];
            self.start = self.buffer.as_ptr().align_offset(BLOCK);
        }
        let mut chunks = chunks.iter().map(|chunk| &chunk[..]);
        let mut chunk: &[u8] = &[];
        let mut written = 0;
        loop {
            let buffer = &mut self.buffer[self.start..self.start + wanted];
            let mut filled = 0;
            while filled < buffer.len() {
                if chunk.is_empty() {
                    let Some(next) = chunks.next() else { break };
                    chunk = next;
                }
                let length = chunk.len().min(buffer.len() - filled);
                let (now, later) = chunk.split_at(length);
                buffer[filled..filled + length].copy_from_slice(now);
                filled += length;
                chunk = later;
            }
            let blocks = &buffer[..filled / BLOCK * BLOCK];
            if blocks.is_empty() {
                return Ok(written);
            }
            match rustix::io::pwrite(&self.file, blocks, offset + written as u64) {
                Ok(count) => {
                    written += count / BLOCK * BLOCK;
                    if count < blocks.len() || blocks.len() < filled {
                        return Ok(written);
                    }
                }
                // This disk asks for larger blocks than ours, or the call was cut
                // short: the page cache takes what is left.
                Err(Errno::INVAL | Errno::INTR | Errno::OPNOTSUPP) => return Ok(written),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Directly and otherwise written parts add up to the bytes that came.
        #[test]
        fn what_is_written_is_what_came(
            sizes in prop::collection::vec(0usize..200_000, 0..12),
            blocks_before in 0u64..3,
        ) {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("data"), "").unwrap();
            let fd = rustix::fs::open(dir.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let chunks: Vec<Bytes> = sizes
                .iter()
                .enumerate()
                .map(|(seed, size)| (0..*size).map(|at| (at * 31 + seed).to_le_bytes()[0]).collect::<Vec<_>>().into())
                .collect();
            let all = chunks.concat();
            let offset = blocks_before * BLOCK as u64;
            if let Some(mut file) = DirectFile::open(&fd) {
                let written = file.write(&chunks, offset).unwrap();
                prop_assert!(written <= all.len() && written % BLOCK == 0);
                let stored = std::fs::read(dir.path().join("data")).unwrap();
                let begin = stored.len().min(usize::try_from(offset).unwrap());
                prop_assert_eq!(&stored[begin..], &all[..written]);
            }
        }
    }
}
