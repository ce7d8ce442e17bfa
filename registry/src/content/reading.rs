//! Reading content back to hash it.

use bytes::Bytes;
use futures_util::StreamExt as _;
use oci::{Algorithm, Digest};

use crate::hashing::Hashing;
use crate::storage::{self, Blob, Content};

/// Batches up to this size are hashed where they are: cheaper than a thread.
const INLINE_HASH_BYTES: usize = 32 << 10;

/// How much of a file is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Appends a batch to a hash, on another thread if it is long.
pub(super) async fn hash(mut hashing: Hashing, batch: Vec<Bytes>, size: usize) -> Hashing {
    let work = move || {
        for chunk in &batch {
            hashing.update(chunk);
        }
        hashing
    };
    if size <= INLINE_HASH_BYTES {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(hashing) => hashing,
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}

/// Reads `blob`, which messages call `place`, and returns its digest.
pub(crate) async fn rehash(
    blob: Blob,
    algorithm: Algorithm,
    place: &str,
) -> storage::Result<Digest> {
    let file = match blob.content {
        Content::File(file) => file,
        Content::Segments(segments) => {
            let mut hashing = Hashing::new(algorithm);
            let mut pieces = std::pin::pin!(segments.read(&(0..blob.size)));
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                let size = piece.len();
                hashing = hash(hashing, vec![piece], size).await;
            }
            return Ok(hashing.finish());
        }
    };
    let hashed = tokio::task::spawn_blocking(move || {
        use std::os::unix::fs::FileExt as _;
        let mut hashing = Hashing::new(algorithm);
        let mut buffer = vec![0; READ_BYTES];
        let mut offset = 0;
        while offset < blob.size {
            let left = usize::try_from(blob.size - offset).unwrap_or(usize::MAX);
            let wanted = left.min(READ_BYTES);
            file.read_exact_at(&mut buffer[..wanted], offset)?;
            hashing.update(&buffer[..wanted]);
            offset += wanted as u64;
        }
        Ok(hashing.finish())
    })
    .await;
    match hashed {
        Ok(hashed) => hashed.map_err(|source| storage::Error::from_io("read", place, source)),
        Err(failure) => std::panic::resume_unwind(failure.into_panic()),
    }
}
