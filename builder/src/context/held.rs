//! Contents that were read for their digest, until a layer takes them.
//!
//! The key of a COPY needs the digest of every file, and says whether its layer is there
//! already. Where it is not, the files are written; small ones that had to be read for the
//! digest need not be opened a second time for that. What is written is then what the key
//! says, even if the file has changed meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::tree::Stamp;

/// Files up to this size are held: opening such a file costs more than copying its bytes.
pub(super) const MAX_FILE_BYTES: u64 = 256 << 10;
/// How much is held in all: the files of most contexts, and little beside a build's memory.
const MAX_BYTES: usize = 32 << 20;
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
    by_stamp: BTreeMap<Stamp, Content>,
    bytes: usize,
}

impl Held {
    /// Keeps a content if there is room.
    pub(super) fn put(&self, stamp: Stamp, content: Content) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = content.bytes.len() + ENTRY_BYTES;
        if files.bytes + bytes <= MAX_BYTES && !files.by_stamp.contains_key(&stamp) {
            files.bytes += bytes;
            files.by_stamp.insert(stamp, content);
        }
    }

    /// Gives a content away.
    pub(super) fn take(&self, stamp: &Stamp) -> Option<Content> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let content = files.by_stamp.remove(stamp)?;
        files.bytes -= content.bytes.len() + ENTRY_BYTES;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_is_held_and_no_more() {
        let held = Held::default();
        let stamp = |ino| Stamp { dev: 1, ino, size: 0, mtime_ns: 0, ctime_ns: 0, mode: 0 };
        let content = || Content { bytes: vec![7; 1 << 20], capability: None };
        for ino in 0..40 {
            held.put(stamp(ino), content());
        }
        assert_eq!((0..40).filter_map(|ino| held.take(&stamp(ino))).count(), 31);
        assert_eq!(held.take(&stamp(0)), None, "it was given away");
        held.put(stamp(50), content());
        assert_eq!(held.take(&stamp(50)), Some(content()), "there is room again");
    }
}
