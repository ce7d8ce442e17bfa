//! Whole images, full disks and user namespaces.

use std::{fs, path::Path, process::Command};

use oci::{DiffId, Digest, Platform};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{
    build::{dir, file, hard_link, item, tar},
    laws::store,
    mounted::{dump_directory, own_mounts, with_overlay},
};
use crate::{
    Error, Store,
    layers::{active::LayerOptions, entry::Kind},
    testing::image,
};

#[test]
fn all_layers_of_an_image_are_unpacked_and_what_is_wrong_is_named() {
    let (_directory, store, lease) = store();
    let tars: Vec<_> = (0..9).map(|n| tar(&[file(&format!("f{n}"), "x")])).collect();
    let slices: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let descriptor = image(&lease, &slices).unwrap();
    let stored = store.image(&descriptor, &Platform::host()).unwrap();
    lease.unpack_image(&stored).unwrap();
    lease.unpack_image(&stored).unwrap();
    let snapshot = lease.snapshot(stored.diff_ids()).unwrap();
    assert_eq!(snapshot.view().unwrap().list(Path::new("/")).unwrap().unwrap().len(), 9);

    let descriptor = image(&lease, &[&slices[0][..700], slices[1]]).unwrap();
    let stored = store.image(&descriptor, &Platform::host()).unwrap();
    match lease.unpack_image(&stored).unwrap_err() {
        Error::Layer { diff_id, .. } => assert_eq!(diff_id, stored.diff_ids()[0]),
        other => panic!("{other}"),
    }
}

#[test]
fn privileged_a_full_disk_is_said_to_be_one_and_nothing_stays() {
    own_mounts();
    let directory = tempfile::tempdir().unwrap();
    let size = c"size=3m";
    mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), size).unwrap();
    let store = Store::open(directory.path()).unwrap();
    let lease = store.lease().unwrap();
    let big = tar(&[file("big", &"x".repeat(5_000_000))]);
    let diff_id = DiffId(Digest::sha256(&big));
    let error = lease.unpack_stream(&big[..], diff_id).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
    let small = tar(&[file("small", "x")]);
    let diff_id = DiffId(Digest::sha256(&small));
    lease.unpack_stream(&small[..], diff_id).unwrap();

    // A RUN that leaves more than there is room for its tar.
    let active = lease.active(&lease.snapshot(&[diff_id]).unwrap()).unwrap();
    fs::write(active.upper().join("half"), vec![1; 2_000_000]).unwrap();
    let error = active.into_layer(&LayerOptions::default()).unwrap_err();
    assert!(matches!(error, Error::StorageFull { .. }), "{error:?}");
    drop(lease);
    assert_eq!(fs::read_dir(store.root().leases()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().ingest()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().path().join("layers/sha256")).unwrap().count(), 1);
    unmount(directory.path(), UnmountFlags::DETACH).unwrap();
}

#[test]
fn privileged_a_user_namespace_is_enough() {
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "layers::tests::images::inside_a_user_namespace"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "privileged_a_user_namespace_is_enough runs it where it belongs"]
fn inside_a_user_namespace() {
    let (_directory, store, lease) = store();
    let null = Kind::CharDevice { major: 1, minor: 3 };
    let base = tar(&[
        dir("d/", 0o755),
        file("d/gone", ""),
        file("d/kept", ""),
        item("null", null),
        hard_link("zero", "null"),
    ]);
    let top = tar(&[
        file("d/.wh.gone", ""),
        file("d/new", ""),
        dir("sealed/", 0o000),
        file("sealed/x", ""),
    ]);
    let ids: Vec<_> = [&base, &top].iter().map(|tar| DiffId(Digest::sha256(tar))).collect();
    lease.unpack_stream(&base[..], ids[0]).unwrap();
    lease.unpack_stream(&top[..], ids[1]).unwrap();
    // Nobody makes devices here: they are noted as missing.
    let index = fs::read_to_string(store.root().layer(&ids[0].0).join("index")).unwrap();
    assert!(index.contains("skipped null\nskipped zero\n"), "{index}");
    let active = lease.active(&lease.snapshot(&ids).unwrap()).unwrap();
    let (upper, work) = (active.upper(), active.work());
    let seen = with_overlay(active.lowers(), Some((&upper, &work)), |root| {
        fs::remove_file(root.join("d/kept")).unwrap();
        dump_directory(root)
    });
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), ["", "d", "d/new", "sealed", "sealed/x"]);
    let layer = active.into_layer(&LayerOptions::default()).unwrap();
    let snapshot = lease.snapshot(&[ids[0], ids[1], layer.diff_id]).unwrap();
    assert_eq!(snapshot.view().unwrap().list(Path::new("d")).unwrap().unwrap(), ["new"]);

    let mut foreign = file("mail", "");
    foreign.entry.metadata.gid = 8;
    let foreign = tar(&[foreign]);
    let error = lease.unpack_stream(&foreign[..], DiffId(Digest::sha256(&foreign))).unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("mail to 0:8") && reason.contains("/etc/subuid"), "{reason}");
}

const ROOT_OF_THE_KILLED: &str = "STORE_TEST_ROOT";

fn tar_number(n: usize) -> Vec<u8> {
    let items: Vec<_> =
        (0..40).map(|file_n| file(&format!("d{}/{n}-{file_n}", file_n % 5), "content")).collect();
    tar(&items)
}

#[test]
fn a_process_that_is_killed_leaves_whole_layers_and_garbage_only() {
    let (directory, store, lease) = store();
    drop(lease);
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let layers = store.root().path().join("layers/sha256");
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "layers::tests::images::unpacks_until_it_is_killed"])
            .env(ROOT_OF_THE_KILLED, directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Until it is in the middle of its work, on however busy a machine.
        let before = count(&layers);
        for _ in 0..3000 {
            if count(&layers) > before {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        std::thread::sleep(std::time::Duration::from_millis(3 * round));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let lease = store.lease().unwrap();
    let mut whole = 0;
    for n in 0..10_000 {
        let diff_id = DiffId(Digest::sha256(&tar_number(n)));
        let layer = store.root().layer(&diff_id.0);
        if !layer.exists() {
            break;
        }
        assert!(lease.is_unpacked(diff_id).unwrap());
        assert_eq!(dump_directory(&layer.join("fs")).len(), 1 + 5 + 40);
        whole += 1;
    }
    assert!(whole >= 6, "it did something each time before it was killed");
    // Pinned by us, so it stays; everything that the killed left goes.
    store.gc().unwrap();
    assert_eq!(count(&layers), whole);
    assert_eq!((count(&store.root().leases()), count(&store.root().trash())), (1, 0));
}

#[test]
#[ignore = "a_process_that_is_killed_leaves_whole_layers_and_garbage_only runs it and kills it"]
fn unpacks_until_it_is_killed() {
    let Some((_, root)) = std::env::vars().find(|(name, _)| name == ROOT_OF_THE_KILLED) else {
        return;
    };
    let store = Store::open(Path::new(&root)).unwrap();
    let lease = store.lease().unwrap();
    for n in 0.. {
        let tar = tar_number(n);
        lease.unpack_stream(&tar[..], DiffId(Digest::sha256(&tar))).unwrap();
    }
}
