//! `apply(diff(a, b), a) == b`: what a program changes in a mounted overlay becomes a layer that
//! gives the same tree, in this store and in any other.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
};

use oci::{DiffId, Digest};
use proptest::prelude::*;
use rustix::fs::{
    CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat,
};

use super::{
    build::{Item, dir, file, hard_link, tar},
    laws::{cases, pretty, store, unpack},
    model::{Dump, Tree, make_sense},
    mounted::{dump_directory, dump_raw, dump_view, with_overlay},
    stacks::layers,
};
use crate::{
    Lease, Store,
    layers::{
        active::{Layer, LayerOptions},
        entry::{Kind, Timestamp},
        tar::Reader,
    },
};

/// Something a program does.
#[derive(Clone, Debug)]
enum Op {
    Write(String, Vec<u8>),
    Append(String),
    OpenForWriting(String),
    MakeDir(String),
    Remove(String),
    Replace(String),
    Rename(String, String),
    Chmod(String, u32),
    Chown(String, u32),
    SetTime(String, i64),
    SetXattr(String),
    Symlink(String, String),
    Link(String, String),
    Fifo(String),
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![4 => Just("a"), 3 => Just("b"), 2 => Just("c"), 1 => Just("new")];
    proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

fn op() -> impl Strategy<Value = Op> {
    let content = || proptest::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        4 => (path(), content()).prop_map(|(path, content)| Op::Write(path, content)),
        1 => path().prop_map(Op::Append),
        1 => path().prop_map(Op::OpenForWriting),
        3 => path().prop_map(Op::MakeDir),
        4 => path().prop_map(Op::Remove),
        3 => path().prop_map(Op::Replace),
        3 => (path(), path()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (path(), prop_oneof![Just(0o700), Just(0o4711), Just(0o1777)])
            .prop_map(|(path, mode)| Op::Chmod(path, mode)),
        1 => Just(Op::Chmod(String::new(), 0o711)),
        1 => (path(), 0_u32..3).prop_map(|(path, id)| Op::Chown(path, id)),
        1 => (path(), 0_i64..1_000_000).prop_map(|(path, seconds)| Op::SetTime(path, seconds)),
        1 => path().prop_map(Op::SetXattr),
        2 => (path(), path()).prop_map(|(path, target)| Op::Symlink(path, target)),
        2 => (path(), path()).prop_map(|(path, target)| Op::Link(path, target)),
        1 => path().prop_map(Op::Fifo),
    ]
}

/// Does it, if it can be done; what fails changes nothing.
fn perform(root: &Path, op: &Op) {
    let at = |path: &str| root.join(path);
    let is_link = |path: &str| at(path).is_symlink();
    let remove = |path: &str| {
        let path = at(path);
        let is_dir = path.is_dir() && !path.is_symlink();
        if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    };
    let times = |seconds| {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        Timestamps { last_access: time, last_modification: time }
    };
    // Errors are part of the game: a random path often does not exist.
    let _ignored: Result<(), std::io::Error> = match op {
        // Links in the image may point anywhere: nothing is written through them.
        Op::Write(path, _) | Op::Append(path) | Op::OpenForWriting(path) | Op::Chmod(path, _)
            if is_link(path)
                || at(path).metadata().is_ok_and(|found| !found.is_file() && !path.is_empty()) =>
        {
            Ok(())
        }
        Op::Write(path, content) => fs::write(at(path), content),
        Op::Append(path) => fs::OpenOptions::new()
            .append(true)
            .open(at(path))
            .and_then(|mut file| file.write_all(b"+")),
        Op::OpenForWriting(path) => fs::OpenOptions::new().append(true).open(at(path)).map(drop),
        Op::MakeDir(path) => fs::create_dir(at(path)),
        Op::Remove(path) => remove(path),
        Op::Replace(path) => remove(path)
            .and_then(|()| fs::create_dir(at(path)))
            .and_then(|()| fs::write(at(path).join("a"), "replaced")),
        Op::Rename(from, to) => fs::rename(at(from), at(to)),
        Op::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
        Op::Chown(path, id) if !is_link(path) => chown(at(path), Some(*id), Some(*id)),
        Op::SetTime(path, seconds) if !is_link(path) => {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            utimensat(CWD, at(path), &times(*seconds), flags).map_err(Into::into)
        }
        Op::SetXattr(path)
            if !is_link(path)
                && at(path).metadata().is_ok_and(|found| found.is_file() || found.is_dir()) =>
        {
            setxattr(at(path), "user.set", b"value", XattrFlags::empty()).map_err(Into::into)
        }
        Op::Chown(..) | Op::SetTime(..) | Op::SetXattr(..) => Ok(()),
        Op::Symlink(path, target) => symlink(target, at(path)),
        // Of what cannot have `user.` attributes, overlayfs forgets where it came from, and shows two
        // numbers for two names of one file.
        Op::Link(_, target)
            if !at(target).symlink_metadata().is_ok_and(|found| found.is_file()) =>
        {
            Ok(())
        }
        Op::Link(path, target) => fs::hard_link(at(target), at(path)),
        Op::Fifo(path) => {
            let mode = Mode::from_raw_mode(0o640);
            mknodat(CWD, at(path), FileType::Fifo, mode, 0).map_err(Into::into)
        }
    };
}

/// What a tar keeps: whole seconds. Times of directories change with what is in them, and a layer
/// says nothing of a directory in which only that changed.
fn kept(dump: &Dump) -> Dump {
    let mut kept = dump.clone();
    for (kind, metadata, ..) in kept.values_mut() {
        let seconds = if *kind == Kind::Directory { 0 } else { metadata.mtime.seconds };
        metadata.mtime = Timestamp::from_seconds(seconds);
    }
    kept
}

/// Overlayfs separates the names of a file when it copies one of them up, even if nothing is changed
/// then. What is unchanged is left out of the layer, and so the names stay together.
fn relinked(base: &Dump, dump: &Dump) -> Dump {
    let base = kept(base);
    let mut dump = dump.clone();
    for (path, (kind, metadata, content, first)) in &mut dump {
        let same = base.get(path).is_some_and(|(base_kind, base_metadata, base_content, _)| {
            (&*kind, &*metadata, &*content) == (base_kind, base_metadata, base_content)
        });
        if same {
            *first = String::from("as it was");
        }
    }
    dump
}

/// Reads a tar back into items for the reference.
fn items(tar: &[u8]) -> Vec<Item> {
    let mut reader = Reader::new(tar);
    let mut items = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut content = Vec::new();
        loop {
            let chunk = reader.chunk().unwrap();
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(chunk);
            let bytes = chunk.len();
            reader.consume(bytes);
        }
        items.push(Item { entry, content });
    }
    items
}

fn blob(store: &Store, layer: &Layer) -> Vec<u8> {
    store.blobs().read(&layer.descriptor.digest, 1 << 30).unwrap()
}

/// Runs `change` on a mounted overlay of the layers, and makes a layer of it.
fn change(
    lease: &Lease,
    base: &[DiffId],
    options: &LayerOptions,
    change: impl FnOnce(&Path),
) -> (Layer, Dump) {
    let snapshot = lease.snapshot(base).unwrap();
    let active = lease.active(&snapshot).unwrap();
    let (upper, work) = (active.upper(), active.work());
    let after = with_overlay(active.lowers(), Some((&upper, &work)), |root| {
        change(root);
        dump_directory(root)
    });
    (active.into_layer(options).unwrap(), after)
}

fn check(layers: &[Vec<Item>], base: &Tree, ops: &[Op]) {
    let (_directory, store_one, lease) = store();
    let mut diff_ids: Vec<DiffId> = layers.iter().map(|items| unpack(&lease, items)).collect();
    let options = LayerOptions::default();
    let (layer, after) = change(&lease, &diff_ids, &options, |root| {
        ops.iter().for_each(|op| perform(root, op));
    });
    let tar = blob(&store_one, &layer);
    assert_eq!(layer.is_empty, tar == [0; 1024]);

    // The reference, applying the tar.
    let mut tree = base.clone();
    tree.apply(&items(&tar)).unwrap();
    let base = base.dump();
    let (want, got) = (relinked(&base, &kept(&after)), relinked(&base, &kept(&tree.dump())));
    pretty(&want, &got, "the tar applied");

    // The directory that the changes were made in, as a layer.
    diff_ids.push(layer.diff_id);
    let snapshot = lease.snapshot(&diff_ids).unwrap();
    let mounted = with_overlay(snapshot.lowers(), None, dump_directory);
    pretty(&tree.dump(), &mounted, "the mounted layer");
    pretty(&tree.dump(), &dump_view(snapshot.view().unwrap()), "the view of the layer");

    // Another store, which has only the tar.
    let (_directory, store_two, lease) = store();
    lease.unpack_stream(&tar[..], layer.diff_id).unwrap();
    let place = |store: &Store| store.root().layer(&layer.diff_id.0);
    let raw = |store: &Store| dump_raw(&place(store).join("fs"));
    pretty(&raw(&store_two), &raw(&store_one), "the directory itself");
    let index = |store: &Store| fs::read_to_string(place(store).join("index")).unwrap();
    assert_eq!(index(&store_one), index(&store_two));
}

proptest! {
    #![proptest_config(cases())]
    #[test]
    fn privileged_what_is_changed_becomes_a_layer(
        mut layers in layers(),
        ops in proptest::collection::vec(op(), 0..12),
    ) {
        let trees = make_sense(&mut layers);
        check(&layers, trees.last().unwrap(), &ops);
    }
}

#[test]
fn privileged_a_layer_says_only_what_changed_and_always_the_same() {
    let base = [
        dir("etc/", 0o755),
        file("etc/hostname", "old"),
        file("etc/motd", "hello"),
        dir("gone/", 0o755),
        file("gone/1", ""),
        dir("fresh/", 0o755),
        file("fresh/old", ""),
        file("one", "linked"),
        hard_link("two", "one"),
        file("shared", "by two names"),
    ];
    let make = || {
        let (directory, store, lease) = store();
        let base = unpack(&lease, &base);
        let stubs = ["proc", "etc/resolv.conf", "etc/used", "etc/hosts"].map(Into::into).to_vec();
        let options = LayerOptions { clamp: Some(1_000_000), stubs };
        let (layer, _) = change(&lease, &[base], &options, |root| {
            fs::write(root.join("etc/hostname"), "new").unwrap();
            // Opened for writing, and left as it was.
            fs::OpenOptions::new().append(true).open(root.join("etc/motd")).unwrap();
            fs::remove_dir_all(root.join("gone")).unwrap();
            fs::remove_dir_all(root.join("fresh")).unwrap();
            fs::create_dir(root.join("fresh")).unwrap();
            fs::write(root.join("fresh/new"), vec![b'x'; 3]).unwrap();
            // Places to mount on: unused, unused, and used after all.
            fs::create_dir(root.join("proc")).unwrap();
            fs::write(root.join("etc/resolv.conf"), "").unwrap();
            fs::write(root.join("etc/used"), "content").unwrap();
            // Removed before it was ever in a layer.
            fs::write(root.join("etc/temporary"), "").unwrap();
            fs::remove_file(root.join("etc/temporary")).unwrap();
            drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
            fs::set_permissions(root.join("one"), fs::Permissions::from_mode(0o600)).unwrap();
            let file = fs::File::create(root.join("sparse")).unwrap();
            file.set_len(10_000).unwrap();
            fs::hard_link(root.join("sparse"), root.join("sparse-too")).unwrap();
            // The old name is unchanged, but without it the new one would be another file.
            fs::hard_link(root.join("shared"), root.join("shared-too")).unwrap();
        });
        let tar = blob(&store, &layer);
        drop((lease, directory));
        tar
    };
    let tar = make();
    assert_eq!(Digest::sha256(&tar), Digest::sha256(&make()));
    let text: String = items(&tar)
        .iter()
        .map(|Item { entry, content }| {
            let path = String::from_utf8_lossy(&entry.path);
            let mtime = entry.metadata.mtime.seconds;
            let kind = match &entry.kind {
                Kind::HardLink { target } => format!("-> {}", String::from_utf8_lossy(target)),
                other => format!("{other:?}"),
            };
            format!("{path} {:o} {mtime} {kind} {}\n", entry.metadata.mode, content.len())
        })
        .collect();
    insta::assert_snapshot!(text, @"
    etc/ 755 1000000 Directory 0
    etc/hostname 644 1000000 File { size: 3 } 3
    etc/used 644 1000000 File { size: 7 } 7
    fresh/ 755 1000000 Directory 0
    fresh/.wh..wh..opq 0 0 File { size: 0 } 0
    fresh/new 644 1000000 File { size: 3 } 3
    .wh.gone 0 0 File { size: 0 } 0
    one 600 0 File { size: 6 } 6
    shared 644 0 File { size: 12 } 12
    shared-too 644 0 -> shared 0
    sparse 644 1000000 File { size: 10000 } 10000
    sparse-too 644 1000000 -> sparse 0
    ");
}

#[test]
fn privileged_a_forged_name_in_a_container_is_refused() {
    let (_directory, _store, lease) = store();
    let base = unpack(&lease, &[file("a", "")]);
    let snapshot = lease.snapshot(&[base]).unwrap();
    let active = lease.active(&snapshot).unwrap();
    fs::write(active.upper().join(".wh.a"), "").unwrap();
    let error = active.into_layer(&LayerOptions::default()).unwrap_err();
    insta::assert_snapshot!(std::error::Error::source(&error).unwrap(), @".wh.a: names that start with `.wh.` are reserved for deletions in layers");
}

#[test]
fn whiteouts_of_nothing_are_left_out() {
    let (_directory, _store, lease) = store();
    let base = unpack(&lease, &[dir("d/", 0o755), file("there", "")]);
    let active = lease.active(&lease.snapshot(&[base]).unwrap()).unwrap();
    for name in ["there", "nowhere"] {
        let (path, device) = (active.upper().join(name), FileType::CharacterDevice);
        mknodat(CWD, path, device, Mode::empty(), 0).unwrap();
    }
    let layer = active.into_layer(&LayerOptions::default()).unwrap();
    let snapshot = lease.snapshot(&[base, layer.diff_id]).unwrap();
    let names: Vec<_> = fs::read_dir(&snapshot.lowers()[0]).unwrap().collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].as_ref().unwrap().file_name(), "there");
}

#[test]
fn privileged_gnu_tar_packs_and_we_unpack_the_same() {
    let source = tempfile::tempdir().unwrap();
    let root = source.path();
    fs::create_dir_all(root.join(format!("deep/{}", "d".repeat(90)))).unwrap();
    fs::write(root.join(format!("deep/{}/{}", "d".repeat(90), "f".repeat(90))), "far").unwrap();
    fs::write(root.join("n".repeat(200)), "long").unwrap();
    symlink("t".repeat(300), root.join("long-target")).unwrap();
    let mut sparse = fs::File::create(root.join("sparse")).unwrap();
    for n in 0..40_u64 {
        use std::io::Seek as _;
        sparse.seek(std::io::SeekFrom::Start(n * 100_000)).unwrap();
        sparse.write_all(&vec![u8::try_from(n).unwrap() + 1; 5000]).unwrap();
    }
    sparse.set_len(9_000_000).unwrap();
    fs::hard_link(root.join("sparse"), root.join("sparse-link")).unwrap();
    chown(root.join("sparse"), Some(3_000_000), Some(4_000_000)).unwrap();
    fs::set_permissions(root.join("sparse"), fs::Permissions::from_mode(0o6711)).unwrap();
    setxattr(root.join("sparse"), "user.note", b"kept\n", XattrFlags::empty()).unwrap();
    mknodat(
        CWD,
        root.join("null"),
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    let want = dump_directory(root);
    let formats: [&[&str]; 6] = [
        &["--format=gnu", "--sparse"],
        &["--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs"],
        &["--format=pax", "--sparse", "--sparse-version=0.1", "--xattrs"],
        &["--format=pax", "--sparse", "--sparse-version=1.0", "--xattrs"],
        &["--format=pax", "--xattrs"],
        &["--format=gnu"],
    ];
    for format in formats {
        let mut command = std::process::Command::new("tar");
        let command = command
            .args(["--create", "--numeric-owner"])
            .args(format)
            .arg("--directory")
            .arg(root)
            .arg(".");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let (_directory, store, lease) = store();
        let diff_id = DiffId(Digest::sha256(&output.stdout));
        lease.unpack_stream(&output.stdout[..], diff_id).unwrap();
        let tree = store.root().layer(&diff_id.0).join("fs");
        let mut got = dump_directory(&tree);
        let mut want = want.clone();
        if !format.contains(&"--xattrs") {
            want.get_mut("sparse").unwrap().1.xattrs.clear();
            want.get_mut("sparse-link").unwrap().1.xattrs.clear();
        }
        if format.contains(&"--format=gnu") {
            // That format has whole seconds only.
            (want, got) = (seconds(&want), seconds(&got));
        }
        pretty(&want, &got, &format!("{format:?}"));
        if format.contains(&"--sparse") {
            let blocks =
                |path: &Path| std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap());
            assert!(blocks(&tree.join("sparse")) <= blocks(&root.join("sparse")) + 8, "{format:?}");
        }
    }
}

fn seconds(dump: &Dump) -> Dump {
    let mut dump = dump.clone();
    dump.values_mut().for_each(|thing| thing.1.mtime.nanos = 0);
    dump
}

#[test]
fn privileged_packing_and_unpacking_a_directory_gives_it_back() {
    let (_directory, _store, lease) = store();
    let layers = [unpack(
        &lease,
        &[dir("d/", 0o711), file("d/f", "x"), hard_link("l", "d/f"), dir("./", 0o755)],
    )];
    let snapshot = lease.snapshot(&layers).unwrap();
    let tree = &snapshot.lowers()[0];
    let (mut one, mut two) = (Vec::new(), Vec::new());
    crate::layers::tar_dir(tree, None, &mut one).unwrap();
    crate::layers::tar_dir(tree, None, &mut two).unwrap();
    assert_eq!(one, two);
    assert_eq!(
        items(&one),
        items(&tar(&[dir("d/", 0o711), file("d/f", "x"), hard_link("l", "d/f")]))
    );
}
