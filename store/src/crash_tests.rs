//! The crash rules, tried out: a process that dies before any of its operations on the disk leaves
//! a store in which every blob is what its name says, every image is whole, the next program
//! works, and gc finds all garbage.

use std::fs;
use std::path::Path;

use oci::{Algorithm, Compression, Descriptor, DiffId, Digest, MediaType, Platform};

use crate::error::Result;
use crate::prune::{PruneImages, PruneOptions, PruneRecords};
use crate::steps::StepRecord;
use crate::store::Store;
use crate::testing::{blob, image, name};
use crate::{Pins, gc, trash};

/// A bit of everything that writes: two images under one name, a record, a compressed form, a
/// container, scratch work, a removal and the collection of what it leaves.
fn life(root: &Path) -> Result<()> {
    let store = Store::open(root)?;
    let lease = store.lease()?;
    lease.defer_syncs();
    let large: Vec<u8> = (0..700_000_u32).map(|n| (n % 253) as u8).collect();
    let first = image(&lease, &[b"base", &large])?;
    store.images().set(&lease, &name("app"), &first)?;
    let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, Digest::sha256(b"base"), 4);
    let diff_id = DiffId(layer.digest);
    lease.compressed(&diff_id, &layer, Compression::Gzip, None)?;
    let extra = serde_json::json!({ "seconds": 1 });
    let record = StepRecord::of_layer(diff_id, layer, extra);
    store.steps().put(&lease, &Digest::sha256(b"step"), &record)?;
    store.steps().get(&lease, &Digest::sha256(b"step"))?;
    drop(lease);
    let lease = store.lease()?;
    let second = image(&lease, &[b"base", b"other"])?;
    store.images().set(&lease, &name("app"), &second)?;
    store.images().set_untagged(&lease, &first)?;
    let scratch = lease.scratch("work")?;
    fs::create_dir_all(scratch.join("a/b")).unwrap();
    fs::write(scratch.join("a/b/c"), "c").unwrap();
    trash::discard(store.root(), &scratch)?;
    let container = store.containers_dir().join("c");
    fs::create_dir_all(&container).unwrap();
    Pins::write(&store, &container, &[second.digest])?;
    blob(&lease, b"nobody wants this")?;
    drop(lease);
    store.prune(&PruneOptions { records: PruneRecords::All, images: PruneImages::Untagged })?;
    trash::discard(store.root(), &container)?;
    store.remove_image("app", false)?;
    Ok(())
}

/// What must hold at any moment, for a program that comes by.
#[track_caller]
fn check(root: &Path, when: &str) {
    let store = Store::open(root).unwrap();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for path in gc::list(&store.root().blobs(algorithm)).unwrap() {
            let digest = Digest::of(algorithm, &fs::read(&path).unwrap());
            assert_eq!(path, store.root().blob(&digest), "{when}: a blob is its name");
        }
    }
    for entry in store.images().list().unwrap() {
        let image = store.image(&entry.descriptor, &Platform::host()).unwrap();
        for layer in image.manifest.layers {
            let size = store.blobs().size(&layer.digest).unwrap();
            assert_eq!(size, Some(layer.size), "{when}: an image is whole");
        }
    }
    let lease = store.lease().unwrap();
    if let Some(record) = store.steps().get(&lease, &Digest::sha256(b"step")).unwrap() {
        let (_, blob) = record.layer.unwrap();
        assert!(store.blobs().contains(&blob.digest).unwrap(), "{when}: a record is backed");
    }
}

/// Everything that is left when nothing is used any more.
fn files(root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            left.push(entry.path().strip_prefix(root).unwrap().display().to_string());
        }
    }
    left.sort();
    left
}

#[test]
fn death_before_any_operation_harms_nothing() {
    let mut operations = 0;
    loop {
        let dir = tempfile::tempdir().unwrap();
        let (result, was_reached) = crate::fault::after(operations, || life(dir.path()));
        if !was_reached {
            result.unwrap();
            break;
        }
        let when = format!("dead before operation {operations}");
        check(dir.path(), &when);
        life(dir.path()).unwrap_or_else(|error| panic!("{when}: the next program: {error}"));
        check(dir.path(), &when);
        Store::open(dir.path()).unwrap().gc().unwrap();
        assert_eq!(files(dir.path()), ["lock", "unsettled", "version"], "{when}: no garbage");
        operations += 1;
    }
    assert!(operations > 100, "the faults reach everything: {operations}");
}
