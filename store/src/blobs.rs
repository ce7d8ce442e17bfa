//! Committed blobs: immutable bytes, each named by its digest.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};

use oci::Digest;

use crate::durable::if_present;
use crate::error::{Error, IoContext as _, Result};
use crate::store::Store;

/// The committed blobs of a store.
///
/// A file found here hashes to its name: bytes come only through
/// [`Ingest`](crate::Ingest), so reading does not verify again.
#[derive(Clone, Copy, Debug)]
pub struct Blobs<'a> {
    store: &'a Store,
}

/// An open blob.
#[derive(Debug)]
pub struct Blob {
    /// The file, at its beginning.
    pub file: File,
    /// Its length in bytes.
    pub size: u64,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Tells whether a blob is stored. To rely on the answer, pin it first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        Ok(self.size(digest)?.is_some())
    }

    /// Returns the length of a blob in bytes, or `None` if it is not stored.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.store.root().blob(digest);
        let metadata = if_present(fs::metadata(&path)).doing("read", &path)?;
        Ok(metadata.map(|metadata| metadata.len()))
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if it is not stored.
    pub fn open(&self, digest: &Digest) -> Result<Blob> {
        let path = self.store.root().blob(digest);
        let file = if_present(File::open(&path)).doing("open", &path)?;
        let file = file.ok_or(Error::BlobUnknown { digest: *digest })?;
        let size = file.metadata().doing("read", &path)?.len();
        Ok(Blob { file, size })
    }

    /// Reads a whole blob of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if it is not stored, [`Error::BlobTooLarge`] above the limit.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut blob = self.open(digest)?;
        if blob.size > limit {
            return Err(Error::BlobTooLarge { digest: *digest, size: blob.size, limit });
        }
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).doing("read", self.store.root().blob(digest))?;
        Ok(bytes)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Blob {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}
