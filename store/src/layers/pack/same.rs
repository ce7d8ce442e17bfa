//! Whether something that overlayfs copied up is still what it was.

use std::{
    fs::File,
    io::{self, Read as _},
};

use crate::layers::entry::Metadata;

const BUFFER_BYTES: usize = 64 * 1024;

/// Whether two directories have the same metadata. Their times are left aside: they change with
/// every file that comes or goes, and what came or went is in the layer anyway.
pub(super) fn attributes(lower: &Metadata, upper: &Metadata) -> bool {
    (lower.mode, lower.uid, lower.gid, &lower.xattrs)
        == (upper.mode, upper.uid, upper.gid, &upper.xattrs)
}

/// Whether two files have the same content. A time can be set back, so it proves nothing.
pub(super) fn content(mut one: File, mut other: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        let bytes = one.read(&mut left)?;
        let same = match other.read_exact(&mut right[..bytes]) {
            Ok(()) => left[..bytes] == right[..bytes],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
        if !same {
            return Ok(false);
        }
        if bytes == 0 {
            return Ok(other.read(&mut right[..1])? == 0);
        }
    }
}
