//! Contents that were read for their digest, until a layer takes them.
//!
//! The key of a COPY needs the digest of every file, and says whether its layer is there
//! already. Where it is not, the files are written; small ones that had to be read for the
//! digest need not be opened a second time for that. What is written is then what the key
//! says, even if the file has changed meanwhile.
//!
//! The first ones stay in memory, the rest goes, one after the other, into a file without a
//! name: writing and reading that costs a fraction of opening as many files again.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::tree::Stamp;

/// Files up to this size are held: opening such a file costs more than copying its bytes.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 10;
/// How much is held in memory: the files of most contexts, and little beside a build's memory.
const MAX_MEMORY_BYTES: usize = 32 << 20;
/// How much is held in the file. What is more is read again.
const MAX_SPILLED_BYTES: u64 = 1 << 30;
/// How much is written to the file at once.
const SPILL_BYTES: usize = 256 << 10;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 128;

/// What a file held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its capabilities, where it has any.
    pub capability: Option<Vec<u8>>,
}

/// The contents that are held.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Files>);

#[derive(Debug, Default)]
struct Files {
    by_stamp: BTreeMap<Stamp, Place>,
    memory_bytes: usize,
    spill: Spill,
}

#[derive(Debug)]
enum Place {
    Memory(Content),
    Spilled { offset: u64, length: usize },
}

impl Held {
    /// Holds nothing yet, and what does not fit into memory in a file of this directory.
    pub(super) fn spilling_into(directory: &Path) -> Self {
        let spill = Spill { directory: Some(directory.to_owned()), ..Spill::default() };
        Self(Mutex::new(Files { spill, ..Files::default() }))
    }

    /// Keeps a content if there is room.
    pub(super) fn put(&self, stamp: Stamp, content: Content) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if files.by_stamp.contains_key(&stamp) {
            return;
        }
        let bytes = content.bytes.len() + ENTRY_BYTES;
        let place = if files.memory_bytes + bytes <= MAX_MEMORY_BYTES {
            files.memory_bytes += bytes;
            Place::Memory(content)
        } else if content.capability.is_none()
            && let Some(offset) = files.spill.append(&content.bytes)
        {
            Place::Spilled { offset, length: content.bytes.len() }
        } else {
            return;
        };
        files.by_stamp.insert(stamp, place);
    }

    /// Gives a content away.
    pub(super) fn take(&self, stamp: &Stamp) -> Option<Content> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match files.by_stamp.remove(stamp)? {
            Place::Memory(content) => {
                files.memory_bytes -= content.bytes.len() + ENTRY_BYTES;
                Some(content)
            }
            Place::Spilled { offset, length } => {
                let bytes = files.spill.read(offset, length)?;
                Some(Content { bytes, capability: None })
            }
        }
    }
}

/// A file without a name that only grows. One that cannot be made or written holds nothing:
/// it only saves time.
#[derive(Debug, Default)]
struct Spill {
    directory: Option<PathBuf>,
    file: Option<File>,
    /// How much is in the file, and what comes after that.
    written: u64,
    tail: Vec<u8>,
}

impl Spill {
    /// Appends bytes and returns where they are.
    fn append(&mut self, bytes: &[u8]) -> Option<u64> {
        let offset = self.written + self.tail.len() as u64;
        if self.directory.is_none() || offset + bytes.len() as u64 > MAX_SPILLED_BYTES {
            return None;
        }
        if self.tail.len() + bytes.len() > SPILL_BYTES && self.flush().is_err() {
            // What was held stays; nothing more is.
            self.directory = None;
            return None;
        }
        let offset = self.written + self.tail.len() as u64;
        self.tail.extend_from_slice(bytes);
        Some(offset)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.file.is_none()
            && let Some(directory) = &self.directory
        {
            std::fs::create_dir_all(directory)?;
            self.file = Some(tempfile::tempfile_in(directory)?);
        }
        if let Some(file) = &self.file {
            file.write_all_at(&self.tail, self.written)?;
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(())
    }

    fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        if let Some(start) = offset.checked_sub(self.written) {
            let start = usize::try_from(start).ok()?;
            return Some(self.tail[start..start + length].to_vec());
        }
        let mut bytes = vec![0; length];
        self.file.as_ref()?.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64) -> Stamp {
        Stamp { dev: 1, ino, size: 0, mtime_ns: 0, ctime_ns: 0, mode: 0 }
    }

    fn content(ino: u64) -> Content {
        let bytes = ino.to_le_bytes().repeat((1 << 17) + usize::try_from(ino).unwrap());
        Content { bytes, capability: None }
    }

    #[test]
    fn so_much_is_held_and_no_more() {
        let held = Held::default();
        for ino in 0..40 {
            held.put(stamp(ino), content(ino));
        }
        assert_eq!((0..40).filter_map(|ino| held.take(&stamp(ino))).count(), 31);
        assert_eq!(held.take(&stamp(0)), None, "it was given away");
        held.put(stamp(50), content(50));
        assert_eq!(held.take(&stamp(50)), Some(content(50)), "there is room again");
    }

    #[test]
    fn what_does_not_fit_into_memory_is_held_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let held = Held::spilling_into(&directory.path().join("made when it is needed"));
        for ino in 0..80 {
            held.put(stamp(ino), content(ino));
        }
        held.put(stamp(90), content(90));
        held.put(stamp(91), Content { capability: Some(vec![1]), ..content(91) });
        assert_eq!(held.take(&stamp(90)), Some(content(90)), "it was not written yet");
        assert_eq!(held.take(&stamp(91)), None, "one that is rare is read again");
        for ino in (0..80).rev() {
            assert_eq!(held.take(&stamp(ino)), Some(content(ino)), "{ino}");
        }
        assert_eq!(held.take(&stamp(79)), None, "it was given away");
        let made = directory.path().join("made when it is needed");
        assert_eq!(std::fs::read_dir(made).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn a_disk_that_cannot_be_written_is_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let held = Held::spilling_into(&file);
        for ino in 0..80 {
            held.put(stamp(ino), content(ino));
        }
        let found: Vec<u64> = (0..80).filter(|ino| held.take(&stamp(*ino)).is_some()).collect();
        assert_eq!(found, (0..31).collect::<Vec<_>>());
    }
}
