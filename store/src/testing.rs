//! Small stores with images in them, for the tests of this crate.

use std::io::Write as _;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform, Reference};

use crate::lease::Lease;
use crate::store::Store;

/// Creates a store in a directory of its own.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

/// Parses a name.
pub(crate) fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Stores bytes as a blob.
pub(crate) fn blob(lease: &Lease, bytes: &[u8]) -> crate::Result<Digest> {
    let mut ingest = lease.ingest()?;
    std::io::copy(&mut &*bytes, &mut ingest)
        .and_then(|_| ingest.flush())
        .map_err(|error| error.downcast::<crate::Error>().unwrap())?;
    Ok(ingest.commit(None)?.digest)
}

/// Stores an image for the host whose layers, plain tars in name, hold these bytes.
pub(crate) fn image(lease: &Lease, layers: &[&[u8]]) -> crate::Result<Descriptor> {
    image_for(lease, Platform::host(), layers)
}

/// Stores an image for a platform.
pub(crate) fn image_for(
    lease: &Lease,
    platform: Platform,
    layers: &[&[u8]],
) -> crate::Result<Descriptor> {
    let mut config = ImageConfig::new(platform);
    let mut descriptors = Vec::new();
    for layer in layers {
        let digest = blob(lease, layer)?;
        descriptors.push(Descriptor::new(MediaType::OCI_LAYER_TAR, digest, layer.len() as u64));
        config.rootfs_diff_ids.push(DiffId(digest));
    }
    let to_be_set = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0);
    lease.put_image(&Manifest::new(to_be_set, descriptors), &config)
}
