//! Snapshots as plain directories.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use super::{
    build::{dir, file, hard_link, item, symlink as link},
    laws::{store, unpack},
    mounted::dump_directory,
};
use crate::layers::{Plain, active::LayerOptions, entry::Kind};

/// The names in a layer's tar.
fn names(store: &crate::Store, digest: &oci::Digest) -> Vec<String> {
    let bytes = store.blobs().read(digest, 1 << 30).unwrap();
    let mut archive = ::tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn a_plain_directory_shows_what_the_layers_do() {
    let (_directory, _store, lease) = store();
    let base = unpack(
        &lease,
        &[
            dir("./", 0o755),
            dir("tmp/", 0o1777),
            file("kept", "1"),
            hard_link("other", "kept"),
            file("gone", ""),
            link("link", "/kept"),
            item("fifo", Kind::Fifo),
        ],
    );
    let top = unpack(&lease, &[file(".wh.gone", ""), file("tmp/new", "2")]);
    let target = tempfile::tempdir().unwrap();
    Plain::create(&lease.snapshot(&[base, top]).unwrap(), target.path()).unwrap();
    let at = |name: &str| target.path().join(name);
    let listed = |path: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(listed(target.path()), ["fifo", "kept", "link", "other", "tmp"]);
    assert_eq!(listed(&at("tmp")), ["new"]);
    assert_eq!(fs::metadata(at("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::metadata(at("kept")).unwrap().ino(), fs::metadata(at("other")).unwrap().ino());
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/kept"));
    // Nothing is shared with the layer.
    fs::write(at("kept"), "changed").unwrap();
    let snapshot = lease.snapshot(&[base]).unwrap();
    assert_eq!(snapshot.read_file(Path::new("kept"), 10).unwrap().unwrap(), b"1");
}

#[test]
fn only_what_changed_is_in_the_layer() {
    let (directory, store, lease) = store();
    let base = unpack(
        &lease,
        &[
            dir("./", 0o755),
            dir("a/", 0o755),
            file("a/content", "old"),
            file("a/mode", ""),
            file("a/same-size", "aaa"),
            file("a/touched", "x"),
            file("a/untouched", "x"),
            dir("b/", 0o755),
            file("b/c", ""),
            dir("was-directory/", 0o755),
            file("was-directory/x", ""),
            file("was-file", ""),
            file("linked", ""),
        ],
    );
    let snapshot = lease.snapshot(&[base]).unwrap();
    let plain = directory.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let plain = Plain::create(&snapshot, &plain).unwrap();
    let at = |name: &str| plain.directory().join(name);

    fs::write(at("a/content"), "new and longer").unwrap();
    fs::set_permissions(at("a/mode"), fs::Permissions::from_mode(0o600)).unwrap();
    // The same size, and the time set back: as a build that wants to be reproducible does.
    let before = fs::metadata(at("a/same-size")).unwrap().modified().unwrap();
    fs::write(at("a/same-size"), "bbb").unwrap();
    fs::File::options().write(true).open(at("a/same-size")).unwrap().set_modified(before).unwrap();
    // Written with what it had: its time is set back, so nothing changed.
    let before = fs::metadata(at("a/touched")).unwrap().modified().unwrap();
    fs::write(at("a/touched"), "x").unwrap();
    fs::File::options().write(true).open(at("a/touched")).unwrap().set_modified(before).unwrap();
    fs::remove_dir_all(at("b")).unwrap();
    fs::remove_dir_all(at("was-directory")).unwrap();
    fs::write(at("was-directory"), "").unwrap();
    fs::remove_file(at("was-file")).unwrap();
    fs::create_dir(at("was-file")).unwrap();
    fs::write(at("was-file/in"), "").unwrap();
    fs::hard_link(at("linked"), at("second-name")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    std::os::unix::net::UnixListener::bind(at("socket")).unwrap();

    let active = lease.active(&snapshot).unwrap();
    plain.differences(&active.upper()).unwrap();
    let layer = active.into_layer(&LayerOptions::default()).unwrap();
    assert_eq!(
        names(&store, &layer.descriptor.digest),
        [
            "a/",
            "a/content",
            "a/mode",
            "a/same-size",
            ".wh.b",
            "dangling",
            "linked",
            "second-name",
            "was-directory",
            "was-file/",
            "was-file/in",
        ]
    );
    // The layer on top of the base is the directory again.
    let again = directory.path().join("again");
    fs::create_dir(&again).unwrap();
    let both = lease.snapshot(&[base, layer.diff_id]).unwrap();
    let again = Plain::create(&both, &again).unwrap();
    fs::remove_file(at("socket")).unwrap();
    // But for the fractions of seconds, which a tar does not have, and the time of the root.
    let dump = |plain: &Plain| {
        let mut dump = dump_directory(plain.directory());
        dump.values_mut().for_each(|(_, metadata, ..)| metadata.mtime.nanos = 0);
        dump.remove("");
        dump
    };
    assert_eq!(dump(&again), dump(&plain));
}

#[test]
fn nothing_changed_is_an_empty_layer() {
    let (directory, _store, lease) = store();
    let base = unpack(&lease, &[dir("d/", 0o755), file("d/f", "x")]);
    let snapshot = lease.snapshot(&[base]).unwrap();
    let plain = directory.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let plain = Plain::create(&snapshot, &plain).unwrap();
    // Something that came and went.
    fs::write(plain.directory().join("d/new"), "").unwrap();
    fs::remove_file(plain.directory().join("d/new")).unwrap();
    let active = lease.active(&snapshot).unwrap();
    plain.differences(&active.upper()).unwrap();
    assert!(active.into_layer(&LayerOptions::default()).unwrap().is_empty);
}
