//! Remembers the digests of files between builds, as git's index does.
//!
//! ```text
//! magic (8 bytes) · records of 80 bytes, sorted by (dev, ino, …)
//!   dev ino size mtime ctime: 8 bytes each · mode, zero: 4 bytes each · digest: 32 bytes
//! ```
//!
//! A record is trusted when everything the kernel says about the file is as it was. The
//! clock of a file system is coarse, so a file that was changed at about the time it was
//! read may change again without a trace: such a file is not recorded (git calls it
//! "racily clean").

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::tree::Stamp;

/// Names the format; another one is ignored, since everything can be computed again.
const MAGIC: &[u8; 8] = b"rbidx\0\0\x01";
/// Bytes of one record.
const RECORD_BYTES: usize = 80;
/// How much older than the start of the scan a file must be to be recorded. Kernels
/// stamp files with the time of the last timer tick, at most 10 ms ago.
const RACY_NS: i64 = 20_000_000;
/// Unused records kept beside those in use: other targets and branches use others.
const MAX_UNUSED_RECORDS: usize = 200_000;

/// The remembered digests of one context.
#[derive(Debug)]
pub struct Index {
    /// The file's bytes, unparsed: a lookup is a search in its records.
    bytes: Vec<u8>,
    /// Where the last lookup ended: files of a directory often have neighbouring inodes.
    last: AtomicUsize,
    /// What this build found out.
    new: Mutex<BTreeMap<Stamp, [u8; 32]>>,
    /// Files stamped after this are not recorded.
    trusted_before_ns: i64,
}

impl Index {
    /// Reads the index at `path`; one that is missing, damaged or of another version is empty.
    ///
    /// `now_ns` is the time at which the scan starts, in nanoseconds since 1970.
    #[must_use]
    pub fn open(path: &Path, now_ns: i64) -> Self {
        let mut bytes = fs::read(path).unwrap_or_default();
        let is_ours =
            bytes.starts_with(MAGIC) && (bytes.len() - MAGIC.len()).is_multiple_of(RECORD_BYTES);
        if !is_ours {
            bytes = MAGIC.to_vec();
        }
        Self {
            bytes,
            last: AtomicUsize::new(0),
            new: Mutex::default(),
            trusted_before_ns: now_ns.saturating_sub(RACY_NS),
        }
    }

    /// Returns an index that neither knows nor remembers anything.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            bytes: MAGIC.to_vec(),
            last: AtomicUsize::new(0),
            new: Mutex::default(),
            trusted_before_ns: i64::MIN,
        }
    }

    /// Returns the digest remembered for a file.
    #[must_use]
    pub fn get(&self, stamp: &Stamp) -> Option<[u8; 32]> {
        let records = self.records();
        let (mut low, mut high) = self.around(stamp, records);
        while low < high {
            let middle = low.midpoint(high);
            match compare(&records[middle], stamp) {
                Ordering::Equal => {
                    self.last.store(middle, Relaxed);
                    return Some(decode(&records[middle]).1);
                }
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        self.new.lock().ok()?.get(stamp).copied()
    }

    /// Returns the records of the file, sorted.
    fn records(&self) -> &[[u8; RECORD_BYTES]] {
        self.bytes[MAGIC.len()..].as_chunks().0
    }

    /// Returns a range of records in which a stamp is if it is anywhere: found in growing steps
    /// from where the last one was.
    fn around(&self, stamp: &Stamp, records: &[[u8; RECORD_BYTES]]) -> (usize, usize) {
        let start = self.last.load(Relaxed).min(records.len());
        let is_before = |at: usize| {
            records.get(at).is_none_or(|record| compare(record, stamp) == Ordering::Greater)
        };
        let mut step = 1;
        if is_before(start) {
            let mut high = start;
            while step <= start && is_before(start - step) {
                high = start - step;
                step *= 2;
            }
            return (start.saturating_sub(step), high);
        }
        let mut low = start;
        while !is_before(start + step) {
            low = start + step;
            step *= 2;
        }
        (low, (start + step).min(records.len()))
    }

    /// Remembers a digest, unless the file is too young to be told from a later state.
    pub fn put(&self, stamp: Stamp, digest: [u8; 32]) {
        if stamp.mtime_ns.max(stamp.ctime_ns) >= self.trusted_before_ns {
            return;
        }
        if let Ok(mut new) = self.new.lock() {
            new.insert(stamp, digest);
        }
    }

    /// Writes the index to `path` if this build found out anything.
    ///
    /// It appears by a rename, so that two builds at once leave one or the other. It is
    /// not synced: a lost index costs time, and a damaged one is recognised.
    ///
    /// # Errors
    /// Fails when the file cannot be written; the build itself does not depend on it.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let Ok(new) = self.new.lock() else { return Ok(()) };
        if new.is_empty() {
            return Ok(());
        }
        let mut old = self.records().iter().take(MAX_UNUSED_RECORDS).map(decode).peekable();
        let mut bytes = Vec::with_capacity(MAGIC.len() + (new.len() + old.len()) * RECORD_BYTES);
        bytes.extend_from_slice(MAGIC);
        for (stamp, digest) in new.iter() {
            while let Some((before, known)) = old.next_if(|(old, _)| inode(old) < inode(stamp)) {
                encode(&mut bytes, &before, &known);
            }
            // A file that was read again replaces what was known of the same inode.
            while old.next_if(|(old, _)| inode(old) == inode(stamp)).is_some() {}
            encode(&mut bytes, stamp, digest);
        }
        for (stamp, digest) in old {
            encode(&mut bytes, &stamp, &digest);
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        io::Write::write_all(&mut file, &bytes)?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Returns what the records are sorted by first.
fn inode(stamp: &Stamp) -> (u64, u64) {
    (stamp.dev, stamp.ino)
}

fn encode(bytes: &mut Vec<u8>, stamp: &Stamp, digest: &[u8; 32]) {
    bytes.extend_from_slice(&stamp.dev.to_le_bytes());
    bytes.extend_from_slice(&stamp.ino.to_le_bytes());
    bytes.extend_from_slice(&stamp.size.to_le_bytes());
    bytes.extend_from_slice(&stamp.mtime_ns.to_le_bytes());
    bytes.extend_from_slice(&stamp.ctime_ns.to_le_bytes());
    bytes.extend_from_slice(&stamp.mode.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(digest);
}

/// Compares a record with a stamp: mostly the inodes differ already.
fn compare(record: &[u8; RECORD_BYTES], stamp: &Stamp) -> Ordering {
    let eight = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (eight(0), eight(8)).cmp(&(stamp.dev, stamp.ino)).then_with(|| decode(record).0.cmp(stamp))
}

fn decode(record: &[u8; RECORD_BYTES]) -> (Stamp, [u8; 32]) {
    let eight = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&record[at..at + 8]);
        bytes
    };
    let mut mode = [0; 4];
    mode.copy_from_slice(&record[40..44]);
    let mut digest = [0; 32];
    digest.copy_from_slice(&record[48..80]);
    let stamp = Stamp {
        dev: u64::from_le_bytes(eight(0)),
        ino: u64::from_le_bytes(eight(8)),
        size: u64::from_le_bytes(eight(16)),
        mtime_ns: i64::from_le_bytes(eight(24)),
        ctime_ns: i64::from_le_bytes(eight(32)),
        mode: u32::from_le_bytes(mode),
    };
    (stamp, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64, mtime_ns: i64) -> Stamp {
        Stamp { dev: 1, ino, size: 5, mtime_ns, ctime_ns: mtime_ns, mode: 0o100_644 }
    }

    #[test]
    fn digests_survive_a_save_and_changed_files_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/index");
        let index = Index::open(&path, 1_000_000_000);
        for ino in 0..100 {
            index.put(stamp(ino, 7), [u8::try_from(ino).unwrap(); 32]);
        }
        index.save(&path).unwrap();

        let again = Index::open(&path, 2_000_000_000);
        assert_eq!(again.get(&stamp(42, 7)), Some([42; 32]));
        assert_eq!(again.get(&stamp(42, 8)), None);
        again.put(stamp(42, 8), [1; 32]);
        again.save(&path).unwrap();

        let third = Index::open(&path, 3_000_000_000);
        assert_eq!(third.get(&stamp(42, 8)), Some([1; 32]));
        assert_eq!(third.get(&stamp(42, 7)), None, "the old state of the inode is dropped");
        assert_eq!(third.get(&stamp(99, 7)), Some([99; 32]));
    }

    #[test]
    fn every_record_is_found_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        for count in [1, 2, 3, 100] {
            let index = Index::open(Path::new("/nonexistent"), 1_000_000_000);
            for ino in 0..count {
                index.put(stamp(2 * ino + 1, 7), [u8::try_from(ino).unwrap(); 32]);
            }
            index.save(&path).unwrap();
            let index = Index::open(&path, 0);
            for step in [1, 3, 7, 99] {
                for ino in (0..count).map(|n| n * step % count) {
                    let digest = [u8::try_from(ino).unwrap(); 32];
                    assert_eq!(index.get(&stamp(2 * ino + 1, 7)), Some(digest), "{ino} of {count}");
                    assert_eq!(index.get(&stamp(2 * ino, 7)), None, "before {ino} of {count}");
                    assert_eq!(index.get(&stamp(2 * ino + 1, 6)), None);
                    assert_eq!(index.get(&stamp(2 * ino + 1, 8)), None);
                }
            }
            assert_eq!(index.get(&stamp(2 * count, 7)), None, "after all {count}");
        }
    }

    #[test]
    fn a_file_changed_while_it_is_read_is_not_remembered() {
        let index = Index::open(Path::new("/nonexistent"), 1_000_000_000);
        index.put(stamp(1, 999_999_999), [1; 32]);
        index.put(stamp(2, 1_500_000_000), [1; 32]);
        index.put(stamp(3, 900_000_000), [1; 32]);
        assert_eq!(index.get(&stamp(1, 999_999_999)), None);
        assert_eq!(index.get(&stamp(2, 1_500_000_000)), None);
        assert_eq!(index.get(&stamp(3, 900_000_000)), Some([1; 32]));
    }

    #[test]
    fn damaged_files_are_empty_indexes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        for bytes in [&b""[..], b"rbidx", b"rbidx\0\0\x01short", b"something else entirely"] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(Index::open(&path, 0).get(&stamp(1, 1)), None);
        }
    }
}
