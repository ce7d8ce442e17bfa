//! Reading a tar without a disk: what a fuzzer, or a test of a corpus, can call.

use crate::layers::{
    error::LayerError,
    path::{Naming, classify},
};

use super::{Reader, SparseSegment};

/// What a tar holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// How many entries there are.
    pub entries: u64,
    /// How many bytes of data the archive holds for them.
    pub stored_bytes: u64,
}

/// Reads a whole uncompressed tar as a layer is read, and touches no disk.
///
/// # Errors
///
/// Fails where unpacking would, as far as that depends on the bytes alone.
///
/// # Panics
///
/// Panics if the reader breaks its own promises; that is what a fuzzer looks for.
pub fn check(tar: &[u8]) -> Result<Contents, LayerError> {
    let mut reader = Reader::new(tar);
    let mut contents = Contents::default();
    while let Some(entry) = reader.next_entry()? {
        contents.entries += 1;
        if let Naming::Plain(path) | Naming::Whiteout(path) | Naming::Opaque(path) =
            classify(&entry.path)?
        {
            let is_clean = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
            let mut names = path.split(|byte| *byte == b'/');
            assert!(path.is_empty() || names.all(is_clean), "a path may not lead elsewhere");
        }
        let sparse: Option<Vec<SparseSegment>> = reader.sparse().map(<[_]>::to_vec);
        let mut stored = 0;
        loop {
            let bytes = reader.chunk()?.len();
            if bytes == 0 {
                break;
            }
            stored += bytes as u64;
            reader.consume(bytes);
        }
        if let Some(sparse) = sparse {
            let mapped: u64 = sparse.iter().map(|segment| segment.bytes).sum();
            assert_eq!(mapped, stored, "the map of a sparse file covers its data");
        }
        assert!(stored <= tar.len() as u64, "no data comes from nowhere");
        contents.stored_bytes += stored;
    }
    Ok(contents)
}
