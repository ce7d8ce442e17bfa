//! A root file system as a tar: `docker export` of a container, or a distribution's base system.

use std::io::{Read, Write as _};

use oci::{Descriptor, DiffId, MediaType};

use super::contents::uncompressed;
use crate::error::{IoContext as _, Result};
use crate::lease::Lease;

impl Lease {
    /// Makes a layer of a tar, which may be compressed with gzip or zstd.
    ///
    /// It is kept as a plain tar, and unpacked, which shows whether it can be.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive) or an error of the layer if it is no tar that can
    /// be unpacked.
    pub fn import(&self, input: impl Read + Send) -> Result<(Descriptor, DiffId)> {
        let mut tar = uncompressed(input)?;
        let mut ingest = self.ingest()?;
        let path = self.store().root().ingest();
        std::io::copy(&mut tar, &mut ingest).doing("read", "the archive")?;
        ingest.flush().doing("write", &path)?;
        let blob = ingest.commit(None)?;
        let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, blob.digest, blob.size);
        let diff_id = DiffId(blob.digest);
        self.unpack(&layer, diff_id)?;
        Ok((layer, diff_id))
    }
}
