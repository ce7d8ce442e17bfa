//! A disk that is full: a clear error, nothing half-written, and a store that goes on.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use store::{Error, Lease, Store};

/// A file system of four megabytes that goes with the test.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), Some(c"size=4m")).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn write(lease: &Lease, bytes: &[u8]) -> Result<Digest, Error> {
    let ours = |error: io::Error| error.downcast::<Error>().unwrap();
    let mut ingest = lease.ingest()?;
    ingest.write_all(bytes).map_err(ours)?;
    Ok(ingest.commit(None)?.digest)
}

fn image(lease: &Lease, layer: &[u8]) -> Result<Descriptor, Error> {
    let digest = write(lease, layer)?;
    let mut config = ImageConfig::new(Platform::host());
    config.rootfs_diff_ids.push(DiffId(digest));
    let layers = vec![Descriptor::new(MediaType::OCI_LAYER_TAR, digest, layer.len() as u64)];
    let template = Descriptor::new(MediaType::OCI_CONFIG, digest, 0);
    lease.put_image(&Manifest::new(template, layers), &config)
}

#[test]
fn privileged_full_disk_is_a_clear_error_and_harms_nothing() {
    let disk = SmallDisk::new();
    let store = Store::open(disk.path()).unwrap();
    let name = "app".parse().unwrap();
    let lease = store.lease().unwrap();
    let good = image(&lease, &vec![1; 500_000]).unwrap();
    store.images().set(&lease, &name, &good).unwrap();

    let error = image(&lease, &vec![2; 8_000_000]).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error}");
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(fs::read_dir(store.root().ingest()).unwrap().count(), 0);

    // To the last byte: even names, records and leases cannot be written then.
    let last = image(&lease, &vec![3; 100_000]).unwrap();
    let filler = disk.path().join("builds");
    let full = fs::write(&filler, vec![0; 8_000_000]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    let error = store.images().set(&lease, &name, &last).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error}");
    assert_eq!(store.images().get(&name).unwrap(), Some(good.clone()));
    let error = store.lease().and_then(|other| other.put(b"small")).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error}");

    // Collecting garbage needs no space, and gives some back.
    drop(lease);
    assert!(store.gc().unwrap().bytes >= 100_000);
    fs::remove_file(filler).unwrap();
    let lease = store.lease().unwrap();
    let again = image(&lease, &vec![4; 1_000_000]).unwrap();
    store.images().set(&lease, &name, &again).unwrap();
    assert_eq!(fs::read_dir(store.root().ingest()).unwrap().count(), 0);
    assert_eq!(store.image(&again, &Platform::host()).unwrap().manifest.layers.len(), 1);
}
