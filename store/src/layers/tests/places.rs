//! Layers that get to their places: once, whole, and in spite of others.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Barrier,
};

use oci::{Descriptor, DiffId, Digest, MediaType};

use super::{
    build::{Item, dir, file, hard_link, symlink, tar},
    laws::{store, unpack},
    mounted::{dump_directory, with_overlay},
};
use crate::{
    Error, Store,
    layers::{
        active::LayerOptions,
        entry::{Kind, Metadata, Timestamp},
        writer::LayerWriter,
    },
};

fn id(tar: &[u8]) -> DiffId {
    DiffId(Digest::sha256(tar))
}

/// What is left in the places of unfinished work.
fn garbage(store: &Store) -> usize {
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    let root = store.root();
    count(&root.leases()) + count(&root.trash()) + count(&root.ingest())
}

#[test]
fn layers_unpacked_by_many_at_once_are_there_once() {
    let (directory, store, lease) = store();
    drop(lease);
    let items: Vec<_> = (0..300).map(|n| file(&format!("d{}/f{n}", n % 7), "content")).collect();
    let tar = tar(&items);
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // As another process would: its own handle, its own lease.
                let store = Store::open(directory.path()).unwrap();
                let lease = store.lease().unwrap();
                barrier.wait();
                lease.unpack_stream(&tar[..], id(&tar)).unwrap();
                assert!(lease.is_unpacked(id(&tar)).unwrap());
                assert!(!lease.snapshot(&[id(&tar)]).unwrap().lowers().is_empty());
            });
        }
    });
    let tree = store.root().layer(&id(&tar).0).join("fs");
    assert_eq!(fs::read_dir(tree.join("d3")).unwrap().count(), 43);
    assert_eq!(garbage(&store), 0);
}

#[test]
fn what_is_not_the_layer_leaves_nothing_behind() {
    let (_directory, store, lease) = store();
    let (right, wrong) = (tar(&[file("a", "")]), tar(&[file("b", "")]));
    let error = lease.unpack_stream(&wrong[..], id(&right)).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    let cut = lease.unpack_stream(&right[..700], id(&right)).unwrap_err();
    assert!(matches!(cut, Error::DigestMismatch { .. } | Error::Layer { .. }), "{cut}");

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "the registry is gone"))
        }
    }
    let half = right[..600].chain(Broken);
    let error = lease.unpack_stream(half, id(&right)).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
    assert!(!lease.is_unpacked(id(&right)).unwrap());
    assert!(!store.root().layer(&id(&right).0).exists());
    drop(lease);
    assert_eq!(garbage(&store), 0);
}

#[test]
fn a_layer_that_is_there_is_not_unpacked_again() {
    let (_directory, _store, lease) = store();
    let tar = tar(&[file("a", "")]);
    lease.unpack_stream(&tar[..], id(&tar)).unwrap();
    // Not even the blob is needed, nor is it looked at.
    let blob = Descriptor::new(MediaType::OCI_LAYER_TAR, Digest::sha256(b"not there"), 1);
    lease.unpack(&blob, id(&tar)).unwrap();
    let missing = lease.unpack(&blob, id(b"other")).unwrap_err();
    assert!(matches!(missing, Error::BlobUnknown { .. }), "{missing}");
}

#[test]
fn layers_from_before_a_crash_are_made_again_unless_they_were_synced() {
    let (_directory, store, lease) = store();
    let tar = tar(&[file("a", "content")]);
    let layer = store.root().layer(&id(&tar).0);
    lease.unpack_stream(&tar[..], id(&tar)).unwrap();
    let lower = lease.snapshot(&[id(&tar)]).unwrap().lowers()[0].clone();
    // What a power cut does to a file that was not synced; no lease outlives it.
    drop(lease);
    let lease = store.lease().unwrap();
    fs::write(layer.join("fs/a"), "").unwrap();
    fs::write(layer.join("stamp"), "boot 00000000-0000-0000-0000-000000000000").unwrap();
    assert!(!lease.is_unpacked(id(&tar)).unwrap());
    lease.unpack_stream(&tar[..], id(&tar)).unwrap();
    assert_eq!(fs::read(lower.join("a")).unwrap(), b"content");

    assert!(store.settle().unwrap() > 0);
    assert_eq!(fs::read_to_string(layer.join("stamp")).unwrap(), "synced");
    assert!(lease.is_unpacked(id(&tar)).unwrap());
    assert_eq!(store.settle().unwrap(), 0);
    assert_eq!(lease.snapshot(&[id(&tar)]).unwrap().lowers()[0], lower);
    drop(lease);
    assert_eq!(garbage(&store), 0);
}

#[test]
fn a_snapshot_names_the_layer_that_is_missing() {
    let (_directory, store, lease) = store();
    let there = unpack(&lease, &[file("a", "")]);
    let missing = id(b"missing");
    assert!(store.pinned_snapshot(&[there]).unwrap().is_none());
    match lease.snapshot(&[there, missing]).unwrap_err() {
        Error::LayerMissing { diff_id } => assert_eq!(diff_id, missing),
        other => panic!("{other}"),
    }
    let snapshot = lease.snapshot(&[there]).unwrap();
    let pinned = store.pinned_snapshot(&[there]).unwrap().unwrap();
    assert_eq!(pinned.lowers(), snapshot.lowers());
    // A layer that was taken away under the record.
    fs::remove_dir_all(store.root().layer(&there.0)).unwrap();
    assert!(store.pinned_snapshot(&[there]).unwrap().is_none());
}

#[test]
fn nothing_at_all_is_a_snapshot_too() {
    let (_directory, _store, lease) = store();
    let snapshot = lease.snapshot(&[]).unwrap();
    assert_eq!(snapshot.lowers().len(), 1);
    assert_eq!(snapshot.view().unwrap().list(Path::new("/")).unwrap().unwrap().len(), 0);
}

#[test]
fn a_layer_without_an_entry_for_tmp_leaves_it_as_it_is() {
    let (_directory, _store, lease) = store();
    let base = unpack(&lease, &[dir("tmp/", 0o1777), dir("usr/", 0o755), dir("./", 0o750)]);
    let top = unpack(&lease, &[file("tmp/f", ""), file("usr/x", "")]);
    let snapshot = lease.snapshot(&[base, top]).unwrap();
    let mode =
        |path| snapshot.view().unwrap().metadata(Path::new(path)).unwrap().unwrap().metadata.mode;
    assert_eq!((mode("/tmp"), mode("/usr"), mode("/")), (0o1777, 0o755, 0o750));
    assert_eq!(snapshot.lowers().len(), 3, "one fix-up");
    // Self-contained layers need none.
    let complete = unpack(&lease, &[dir("./", 0o750), dir("tmp/", 0o1777), file("tmp/g", "")]);
    assert_eq!(lease.snapshot(&[base, complete]).unwrap().lowers().len(), 2);
}

#[test]
fn a_link_to_nothing_is_an_error_that_names_both_ends() {
    let (_directory, _store, lease) = store();
    let base = unpack(&lease, &[file("a", "")]);
    let top = unpack(&lease, &[hard_link("bin/b", "bin/missing")]);
    let error = lease.snapshot(&[base, top]).unwrap_err();
    insta::assert_snapshot!(std::error::Error::source(&error).unwrap(), @"cannot link bin/b to bin/missing: neither this layer nor one below has the target");
}

#[test]
fn a_link_into_a_lower_layer_keeps_what_was_there() {
    let (_directory, _store, lease) = store();
    let base = unpack(
        &lease,
        &[file("a", "old a"), file("b", "old b"), file("c", "old c"), file("d/e", "old e")],
    );
    let top = unpack(
        &lease,
        &[
            hard_link("to-a", "a"),
            file("a", "new a"),
            hard_link("to-b", "b"),
            file(".wh.b", ""),
            hard_link("to-c", "c"),
            hard_link("also-c", "to-c"),
            hard_link("to-e", "d/e"),
            file("d/.wh..wh..opq", ""),
        ],
    );
    let snapshot = lease.snapshot(&[base, top]).unwrap();
    let view = snapshot.view().unwrap();
    let read = |path| {
        let content = view.read_file(Path::new(path), 100).unwrap();
        content.map(|content| String::from_utf8(content).unwrap())
    };
    for (path, want) in [
        ("a", Some("new a")),
        ("to-a", Some("old a")),
        ("b", None),
        ("to-b", Some("old b")),
        ("c", Some("old c")),
        ("to-c", Some("old c")),
        ("also-c", Some("old c")),
        ("d/e", None),
        ("to-e", Some("old e")),
    ] {
        assert_eq!(read(path).as_deref(), want, "{path}");
    }
    let identity = |path| view.lstat(Path::new(path)).unwrap().unwrap().identity;
    assert!(identity("c") == identity("to-c") && identity("c") == identity("also-c"));
}

#[test]
fn the_view_resolves_links_inside_the_root_and_reads_only_files() {
    let (_directory, _store, lease) = store();
    let base = unpack(
        &lease,
        &[
            file("etc/passwd", "root:x:0:0"),
            symlink("absolute", "/etc/passwd"),
            symlink("upward", "../../../etc/passwd"),
            symlink("loop", "loop"),
            symlink("dir", "etc"),
            Item {
                content: Vec::new(),
                entry: crate::layers::entry::Entry {
                    path: b"fifo".to_vec(),
                    kind: Kind::Fifo,
                    metadata: Metadata::implied_directory(),
                },
            },
        ],
    );
    let snapshot = lease.snapshot(&[base]).unwrap();
    let view = snapshot.view().unwrap();
    for path in
        ["etc/passwd", "/absolute", "upward", "dir/passwd", "dir/../absolute", "/./dir/./passwd"]
    {
        assert_eq!(
            view.read_file(Path::new(path), 100).unwrap().as_deref(),
            Some(&b"root:x:0:0"[..]),
            "{path}"
        );
    }
    assert_eq!(view.read_file(Path::new("missing"), 100).unwrap(), None);
    assert_eq!(view.read_file(Path::new("etc/passwd/x"), 100).unwrap(), None);
    assert!(view.read_file(Path::new("etc/passwd"), 9).is_err(), "too long");
    assert!(view.read_file(Path::new("etc"), 100).is_err(), "a directory");
    assert!(view.read_file(Path::new("fifo"), 100).is_err(), "a fifo, at once");
    assert!(view.read_file(Path::new("loop"), 100).is_err());
    assert!(view.lstat(Path::new("dir/passwd")).unwrap().is_none(), "exactly this path");
    let (path, _) = view.resolve(Path::new("dir/passwd"), true).unwrap().unwrap();
    assert_eq!(path, Path::new("etc/passwd"));
}

#[test]
fn written_layers_are_the_same_every_time_and_unpack() {
    let (_directory, store, lease) = store();
    let metadata = Metadata {
        mode: 0o755,
        mtime: Timestamp { seconds: 2_000, nanos: 5 },
        ..Metadata::implied_directory()
    };
    let make = || {
        let options = LayerOptions { clamp: Some(1_000), ..LayerOptions::default() };
        let mut writer = LayerWriter::new(&lease, &options).unwrap();
        writer.add(Path::new("app"), Kind::Directory, &metadata).unwrap();
        writer.add_file(Path::new("app/data"), &metadata, 4, &mut &b"data"[..]).unwrap();
        writer
            .add(Path::new("app/link"), Kind::Symlink { target: b"data".to_vec() }, &metadata)
            .unwrap();
        writer
            .add(Path::new("app/hard"), Kind::HardLink { target: b"app/data".to_vec() }, &metadata)
            .unwrap();
        writer.add_whiteout(Path::new("old")).unwrap();
        writer.finish().unwrap()
    };
    let layer = make();
    assert_eq!(layer.diff_id, make().diff_id);
    assert_eq!(layer.diff_id.0, layer.descriptor.digest);
    assert!(!layer.is_empty && !lease.is_unpacked(layer.diff_id).unwrap());
    lease.unpack(&layer.descriptor, layer.diff_id).unwrap();
    let base = unpack(&lease, &[dir("./", 0o755), file("old", ""), file("kept", "")]);
    let snapshot = lease.snapshot(&[base, layer.diff_id]).unwrap();
    let view = snapshot.view().unwrap();
    assert_eq!(view.list(Path::new("")).unwrap().unwrap(), ["app", "kept"]);
    let node = view.lstat(Path::new("app/hard")).unwrap().unwrap();
    assert_eq!((node.links, node.metadata.mtime), (2, Timestamp::from_seconds(1_000)));
    drop(store);
}

#[test]
fn written_layers_refuse_what_a_reader_would_misunderstand() {
    let (_directory, store, lease) = store();
    let metadata = Metadata::default();
    let mut writer = LayerWriter::new(&lease, &LayerOptions::default()).unwrap();
    writer.add(Path::new("twice"), Kind::Fifo, &metadata).unwrap();
    for path in ["twice", "./twice", ".wh.x", "a/.wh..wh..opq", ".wh.d/x", "../x"] {
        assert!(writer.add(Path::new(path), Kind::Fifo, &metadata).is_err(), "accepted {path}");
    }
    assert!(writer.add_whiteout(Path::new("a/..")).is_err());
    assert!(writer.add(Path::new(""), Kind::Fifo, &metadata).is_err(), "the root");
    let (short, long) = (&mut &b"ab"[..], &mut &b"abcd"[..]);
    assert!(writer.add_file(Path::new("long"), &metadata, 3, long).is_err());
    drop(writer);
    let mut writer = LayerWriter::new(&lease, &LayerOptions::default()).unwrap();
    writer.add_file(Path::new("short"), &metadata, 3, short).unwrap();
    assert!(writer.finish().is_err());
    drop(lease);
    assert_eq!(garbage(&store), 0);
}

#[test]
fn privileged_a_writable_root_has_the_mode_of_the_image() {
    let (_directory, store, lease) = store();
    let base = unpack(&lease, &[dir("./", 0o711)]);
    let active = lease.active(&lease.snapshot(&[base]).unwrap()).unwrap();
    let (upper, work) = (active.upper(), active.work());
    let root = with_overlay(active.lowers(), Some((&upper, &work)), dump_directory);
    assert_eq!(root[""].1.mode, 0o711);
    assert_eq!(fs::metadata(&upper).unwrap().permissions().mode() & 0o7777, 0o711);
    drop(active);
    assert!(!upper.exists());
    drop(lease);
    assert_eq!(garbage(&store), 0);
}
