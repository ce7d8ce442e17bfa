//! A cache in a directory: an OCI image layout, as `docker buildx` and `skopeo` write them.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use oci::{Descriptor, DiffId, Digest};
use store::Lease;

/// Why a blob cannot be had.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Copies blobs into the store, where they are verified, and unpacks those that are layers.
pub(crate) fn fetch(
    lease: &Lease,
    directory: &Path,
    blobs: &[(Descriptor, Option<DiffId>)],
) -> Result<(), Cause> {
    for (blob, diff_id) in blobs {
        let path = blob_path(directory, &blob.digest);
        let mut file = open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut ingest = lease.ingest_with(blob.digest.algorithm())?;
        // One byte more than promised is enough to see that there are too many.
        io::copy(&mut io::Read::take(&mut file, blob.size + 1), &mut ingest)?;
        ingest.commit(Some((blob.digest, blob.size)))?;
        if let Some(diff_id) = diff_id {
            lease.unpack(blob, *diff_id)?;
        }
    }
    Ok(())
}

/// Returns where a layout has a blob.
pub(crate) fn blob_path(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
}

/// Opens a regular file. Whoever filled the directory may have put anything there.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file")),
    }
}
