//! Programs that are killed at any moment, while others use the same store.
//!
//! `STORE_KILL_ROUNDS` makes it longer.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use oci::{
    Algorithm, Compression, Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform,
};
use store::layers::{Kind, LayerOptions, LayerWriter, Metadata};
use store::{Lease, PruneImages, PruneOptions, PruneRecords, StepRecord, Store};

const ROOT: &str = "STORE_KILL_ROOT";
const SEED: &str = "STORE_KILL_SEED";

/// Numbers that look random and are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// What the killed programs do, over and over; run by hand it does nothing.
#[test]
#[ignore = "started and killed by the other test"]
fn program() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let seed = std::env::var_os(SEED).unwrap().to_str().unwrap().parse().unwrap();
    let mut numbers = Numbers(seed);
    loop {
        let store = Store::open(Path::new(&root)).unwrap();
        match numbers.below(8) {
            0 => drop(store.gc().unwrap()),
            1 => {
                let options =
                    PruneOptions { records: PruneRecords::All, images: PruneImages::Untagged };
                drop(store.prune(&options).unwrap());
            }
            2 => {
                let name = format!("app:{}", numbers.below(3)).parse().unwrap();
                store.images().remove(&name).unwrap();
            }
            _ => build(&store, &mut numbers),
        }
    }
}

/// Makes an image as a build does, or finds all of it.
fn build(store: &Store, numbers: &mut Numbers) {
    let lease = store.lease().unwrap();
    let number = numbers.below(5);
    let key = Digest::sha256(&number.to_le_bytes());
    let layer = match store.steps().get(&lease, &key).unwrap() {
        Some(record) => record.layer.unwrap().1,
        None => {
            let layer = layer(&lease, number);
            let record = StepRecord::of_layer(DiffId(layer.digest), layer.clone(), ().into());
            store.steps().put(&lease, &key, &record).unwrap();
            layer
        }
    };
    let diff_id = DiffId(layer.digest);
    run(&lease, &layer, number);
    let layer = lease.compressed(&diff_id, &layer, Compression::Gzip, None).unwrap();
    let mut config = ImageConfig::new(Platform::host());
    config.rootfs_diff_ids.push(diff_id);
    let template = Descriptor::new(MediaType::OCI_CONFIG, layer.digest, 0);
    let image = lease.put_image(&Manifest::new(template, vec![layer]), &config).unwrap();
    let name = format!("app:{}", numbers.below(3)).parse().unwrap();
    store.images().set(&lease, &name, &image).unwrap();
    check_images(store);
}

/// Writes a layer of some directories and files, as COPY does.
fn layer(lease: &Lease, number: u64) -> Descriptor {
    let mut layer = LayerWriter::new(lease, &LayerOptions::default()).unwrap();
    let directory = Metadata { mode: 0o755, ..mine() };
    for name in 0..=number {
        // Directories whose parent has no entry make the layer need a fix-up.
        let path = format!("usr/{name}");
        layer.add(Path::new(&path), Kind::Directory, &directory).unwrap();
        for block in 0..20 {
            let content = vec![u8::try_from(block).unwrap(); 10_000];
            let path = format!("usr/{name}/{block}");
            let size = content.len() as u64;
            layer.add_file(Path::new(&path), &mine(), size, &mut &*content).unwrap();
        }
    }
    layer.finish().unwrap().descriptor
}

/// Unpacks the layer on top of another, looks at both, and makes a change, as RUN does.
fn run(lease: &Lease, layer: &Descriptor, number: u64) {
    let base = layer_of_base(lease);
    let stack = [DiffId(base.digest), DiffId(layer.digest)];
    lease.unpack(&base, stack[0]).unwrap();
    lease.unpack(layer, stack[1]).unwrap();
    let snapshot = lease.snapshot(&stack).unwrap();
    let path = format!("usr/{number}/7");
    let content = snapshot.read_file(Path::new(&path), 10_000).unwrap().unwrap();
    assert_eq!(content, [7; 10_000]);
    let active = lease.active(&snapshot).unwrap();
    fs::write(active.upper().join("made"), number.to_le_bytes()).unwrap();
    active.into_layer(&LayerOptions::default()).unwrap();
}

fn layer_of_base(lease: &Lease) -> Descriptor {
    let mut layer = LayerWriter::new(lease, &LayerOptions::default()).unwrap();
    for (path, mode) in [("", 0o755), ("usr", 0o711)] {
        layer.add(Path::new(path), Kind::Directory, &Metadata { mode, ..mine() }).unwrap();
    }
    layer.finish().unwrap().descriptor
}

/// Metadata that anybody may set.
fn mine() -> Metadata {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    Metadata { mode: 0o644, uid, gid, ..Metadata::default() }
}

/// Every image in the table can be used as long as it is held.
fn check_images(store: &Store) {
    let lease = store.lease().unwrap();
    for entry in store.images().list().unwrap() {
        lease.pin(&entry.descriptor.digest).unwrap();
        if !store.images().list().unwrap().iter().any(|now| now.descriptor == entry.descriptor) {
            continue; // Removed by another before it was pinned.
        }
        let image = store.image(&entry.descriptor, &Platform::host()).unwrap();
        for layer in image.manifest.layers {
            assert_eq!(store.blobs().size(&layer.digest).unwrap(), Some(layer.size));
        }
    }
}

fn check_blobs(store: &Store) {
    let directory = store.root().blobs(Algorithm::Sha256);
    let lease = store.lease().unwrap();
    for file in fs::read_dir(&directory).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let digest: Digest = format!("sha256:{name}").parse().expect("a blob's name is a digest");
        lease.pin(&digest).unwrap();
        if store.blobs().contains(&digest).unwrap() {
            let bytes = store.blobs().read(&digest, u64::MAX).unwrap();
            assert_eq!(Digest::sha256(&bytes), digest, "a blob is its name");
        }
    }
}

fn start(root: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--ignored"])
        .env(ROOT, root)
        .env(SEED, seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn programs_killed_at_any_moment_leave_a_whole_store_and_no_garbage() {
    let rounds = std::env::var_os("STORE_KILL_ROUNDS")
        .map_or(12, |rounds| rounds.to_str().unwrap().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(7);
    for round in 0..rounds {
        let mut programs: Vec<Child> = (0..3).map(|n| start(dir.path(), round * 3 + n)).collect();
        for program in &mut programs {
            sleep(Duration::from_millis(10 + numbers.below(120)));
            // One that ended by itself has failed a check.
            assert!(program.try_wait().unwrap().is_none(), "round {round}");
            program.kill().unwrap();
            program.wait().unwrap();
            let store = Store::open(dir.path()).unwrap();
            check_images(&store);
            check_blobs(&store);
        }
        let store = Store::open(dir.path()).unwrap();
        build(&store, &mut numbers);
        store.gc().unwrap();
        for directory in [store.root().ingest(), store.root().leases(), store.root().trash()] {
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{}", directory.display());
        }
    }
    let store = Store::open(dir.path()).unwrap();
    let options = PruneOptions { records: PruneRecords::All, images: PruneImages::Unused };
    assert!(!store.prune(&options).unwrap().images.is_empty());
    for directory in ["blobs/sha256", "layers/sha256", "chains/sha256", "l", "compressed"] {
        assert_eq!(fs::read_dir(dir.path().join(directory)).unwrap().count(), 0, "{directory}");
    }
}
