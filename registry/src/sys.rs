//! The one system call that has no safe wrapper: mapping a file.
#![expect(unsafe_code, reason = "a mapping is only as safe as its file; argued below")]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// Maps the first `size` bytes of a blob for reading.
///
/// # Errors
/// When the system refuses, for example because there are too many mappings.
pub(crate) fn map_blob(file: &File, size: usize) -> io::Result<Mmap> {
    let mut options = MmapOptions::new();
    options.len(size);
    // SAFETY: nobody writes to the file or cuts it while it is mapped. Blobs are
    // complete and read-only (0400) before they get their name, no code of ours
    // opens one for writing, and removing a name leaves the file to its holders.
    unsafe { options.map(file) }
}
