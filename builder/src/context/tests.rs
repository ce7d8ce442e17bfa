use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Context, Index};
use crate::copy::{Content, Selector, digest, select};
use crate::error::Error;
use crate::ignore::Ignore;
use crate::tree::{Tree as _, resolve};

/// A directory of its own with these files (a name with `/` at its end is a directory).
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
    }
    dir
}

fn open(dir: &Path, ignore: &str) -> Context {
    let index = Index::open(Path::new("/nonexistent"), 0);
    Context::open(dir, Ignore::parse(ignore).unwrap(), index).unwrap()
}

fn walked(context: &Context, below: &str) -> Vec<String> {
    let found = context.walk(Path::new(below)).unwrap();
    found.iter().map(|(path, _)| path.display().to_string()).collect()
}

fn content(context: &Context, word: &str) -> Content {
    let exclude = Ignore::default();
    let selected = select(context, &Selector { word, parents: false, exclude: &exclude }).unwrap();
    digest(context, &[selected], 2).unwrap()
}

#[test]
fn a_walk_is_in_order_and_leaves_out_what_is_ignored() {
    let dir = directory(&[
        ("b/2", ""),
        ("b/1", ""),
        ("b.txt", ""),
        ("a", ""),
        ("node_modules/x", ""),
        ("node_modules/keep/y", ""),
        ("log/1", ""),
    ]);
    let all = open(dir.path(), "");
    assert_eq!(
        walked(&all, ""),
        [
            "a",
            "b",
            "b/1",
            "b/2",
            "b.txt",
            "log",
            "log/1",
            "node_modules",
            "node_modules/keep",
            "node_modules/keep/y",
            "node_modules/x"
        ]
    );
    let some = open(dir.path(), "node_modules\n!node_modules/keep\nlog\n");
    assert_eq!(
        walked(&some, ""),
        [
            "a",
            "b",
            "b/1",
            "b/2",
            "b.txt",
            "node_modules",
            "node_modules/keep",
            "node_modules/keep/y"
        ]
    );
    assert!(some.lookup(Path::new("log")).unwrap().is_none());
    assert!(some.is_ignored(Path::new("log/1")) && !some.is_ignored(Path::new("missing")));
    assert!(some.lookup(Path::new("node_modules")).unwrap().is_some());
    assert!(some.lookup(Path::new("node_modules/x")).unwrap().is_none());
}

#[test]
fn links_are_followed_inside_the_root_only() {
    let dir = directory(&[("real/file", "x"), ("etc/passwd", "inside")]);
    symlink("real", dir.path().join("relative")).unwrap();
    symlink("/etc", dir.path().join("absolute")).unwrap();
    symlink("../../../../../etc/passwd", dir.path().join("escape")).unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    symlink("gone/x", dir.path().join("dangling")).unwrap();
    let context = open(dir.path(), "");
    let path = |text: &str| {
        let found = resolve(&context, Path::new(text), true).unwrap();
        (found.path, found.node.is_some())
    };
    assert_eq!(path("relative/file"), (PathBuf::from("real/file"), true));
    assert_eq!(path("absolute/passwd"), (PathBuf::from("etc/passwd"), true));
    assert_eq!(path("escape"), (PathBuf::from("etc/passwd"), true));
    assert_eq!(path("dangling"), (PathBuf::from("gone/x"), false));
    assert_eq!(path("../../real/../relative"), (PathBuf::from("real"), true));
    assert!(matches!(resolve(&context, Path::new("loop"), true), Err(Error::LinkLoop { .. })));
}

#[test]
fn digests_know_content_modes_and_names_but_no_times() {
    let files = [("src/a", "one"), ("src/b", "two"), ("other", "x")];
    let dir = directory(&files);
    let digest_of = |word: &str| content(&open(dir.path(), ""), word).digest;
    let (tree, wild) = (digest_of("src"), digest_of("o*"));

    let a = dir.path().join("src/a");
    let file = fs::File::options().write(true).open(&a).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(digest_of("src"), tree, "touch");
    fs::write(dir.path().join("unrelated"), "new").unwrap();
    assert_eq!(digest_of("src"), tree, "unrelated file");
    assert_eq!(digest_of("src/"), tree, "a slash at the end");

    fs::set_permissions(&a, fs::Permissions::from_mode(0o600)).unwrap();
    let changed_mode = digest_of("src");
    assert_ne!(changed_mode, tree, "chmod");
    fs::rename(&a, dir.path().join("src/c")).unwrap();
    assert_ne!(digest_of("src"), changed_mode, "rename below a directory");
    fs::rename(dir.path().join("other"), dir.path().join("old")).unwrap();
    assert_ne!(digest_of("o*"), wild, "rename of what a wildcard matches");
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    let dir = directory(&[("a", "content"), ("b", "more")]);
    let index_dir = tempfile::tempdir().unwrap();
    let path = index_dir.path().join("index");
    // Long after the files were made.
    let later = i64::MAX / 2;
    let first = Context::open(dir.path(), Ignore::default(), Index::open(&path, later)).unwrap();
    let before = content(&first, ".").digest;
    first.index().save(&path).unwrap();
    let again = Context::open(dir.path(), Ignore::default(), Index::open(&path, later)).unwrap();
    for name in ["a", "b"] {
        let node = again.lookup(Path::new(name)).unwrap().unwrap();
        assert!(again.index().get(&node.stamp.unwrap()).is_some(), "{name} is known");
    }
    assert_eq!(content(&again, ".").digest, before);
    fs::write(dir.path().join("a"), "changed").unwrap();
    let node = again.lookup(Path::new("a")).unwrap().unwrap();
    assert!(again.index().get(&node.stamp.unwrap()).is_none());
}

#[test]
fn a_missing_source_says_whether_it_is_ignored() {
    let dir = directory(&[("secret", "")]);
    let context = open(dir.path(), "secret\n");
    let exclude = Ignore::default();
    let missing = |word: &str| {
        select(&context, &Selector { word, parents: false, exclude: &exclude }).unwrap_err()
    };
    assert_eq!(
        missing("nope/x").to_string(),
        "failed to compute cache key: \"/nope/x\": not found"
    );
    assert!(matches!(missing("secret"), Error::SourceMissing { ignored: true, .. }));
    assert!(matches!(missing("nope"), Error::SourceMissing { ignored: false, .. }));
}
