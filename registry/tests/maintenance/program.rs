//! The real program.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::support::Server;

/// What a run of `rregistry` said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `rregistry` with these words.
pub(crate) fn rregistry(words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_rregistry")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn root(dir: &TempDir) -> PathBuf {
    dir.path().join("root")
}

/// Makes everything below `path` two days older.
pub(crate) fn age(path: &Path) {
    for entry in path.read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            age(&entry.path());
        } else {
            let file = std::fs::File::open(entry.path()).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_modified(modified - Duration::from_secs(2 * 86_400)).unwrap();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests' clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// A blob without a manifest, two days old.
async fn forgotten_blob() -> Arc<TempDir> {
    let server = Server::start().await;
    server.push_image("team/app", "v1", "one").await;
    server.push("team/app", b"nobody needs this").await;
    let dir = server.stop().await;
    age(&root(&dir));
    dir
}

#[tokio::test]
async fn a_dry_run_explains_and_a_run_frees() {
    let dir = forgotten_blob().await;
    let root = root(&dir);
    let root = root.to_str().unwrap();
    let digest = oci::Digest::sha256(b"nobody needs this");
    let dry = rregistry(&["gc", "--root", root, "--dry-run"]);
    let expected = format!(
        "would remove share of team/app in {digest}: none of its manifests needs the blob\n\
         would remove blob {digest} (17 B): no repository has it\n\
         would free 17 B: 0 manifests (0 B), 1 blob (17 B), 0 stray segments (0 B); \
         1 share, 0 stale records, 0 abandoned uploads\n"
    );
    assert_eq!((dry.code, dry.out), (Some(0), expected), "{}", dry.err);
    let ran = rregistry(&["gc", "--root", root]);
    let expected = "freed 17 B: 0 manifests (0 B), 1 blob (17 B), 0 stray segments (0 B); \
         1 share, 0 stale records, 0 abandoned uploads\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{}", ran.err);
    let again = rregistry(&["gc", "--root", root, "--verbose"]);
    assert!(again.out.starts_with("freed 0 B: "), "{}", again.out);
    let verified = rregistry(&["verify", "--root", root]);
    let expected = "read 2 sound blobs (23 B), 1 manifest and 1 tag: all is well\n";
    assert_eq!((verified.code, verified.out.as_str()), (Some(0), expected), "{}", verified.err);
}

#[tokio::test]
async fn what_is_younger_than_the_grace_stays() {
    let dir = forgotten_blob().await;
    let root = root(&dir);
    let ran = rregistry(&["gc", "--root", root.to_str().unwrap(), "--grace", "3d"]);
    assert!(ran.out.starts_with("freed 0 B: "), "{}", ran.out);
}

#[test]
fn commands_make_no_storage() {
    let dir = tempfile::tempdir().unwrap();
    let root = root(&dir);
    let there = ["--root", root.to_str().unwrap()];
    for words in [&["gc"][..], &["gc", "--dry-run"], &["verify"], &["usage"]] {
        let ran = rregistry(&[words, &there].concat());
        assert_eq!(ran.code, Some(1), "{words:?}");
        assert!(ran.err.contains("there is no storage in"), "{}", ran.err);
    }
    assert!(!root.exists());
}

#[test]
fn wrong_words_are_explained() {
    for words in [
        &["gc", "--grace", "soon"][..],
        &["serve", "--gc-grace", "1h"],
        &["usage", "--format", "xml"],
        &["migrate"],
    ] {
        assert_eq!(rregistry(words).code, Some(2), "{words:?}");
    }
}

#[tokio::test]
async fn usage_says_what_is_shared() {
    let server = Server::start().await;
    server.push_image("a", "v1", "same").await;
    server.push_image("b/c", "v1", "same").await;
    server.push_image("b/c", "v2", "other!").await;
    let dir = server.stop().await;
    let root = root(&dir);
    let ran = rregistry(&["usage", "--root", root.to_str().unwrap()]);
    let expected = "\
REPOSITORY  TAGS  MANIFESTS  BLOBS  SIZE  SHARED  ALONE
a              1          1      2  25 B    25 B    0 B
b/c            2          2      4  54 B    25 B   29 B
4 blobs with 54 B are stored for 79 B that repositories hold: sharing saves 25 B
";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{}", ran.err);
    let ran = rregistry(&["usage", "--format=json", "--root", root.to_str().unwrap()]);
    let usage: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let expected = serde_json::json!({
        "repositories": {
            "a": { "tags": 1, "manifests": 1, "blobs": 2, "bytes": 25, "shared_bytes": 25 },
            "b/c": { "tags": 2, "manifests": 2, "blobs": 4, "bytes": 54, "shared_bytes": 25 },
        },
        "blobs": 4,
        "stored_bytes": 54,
        "held_bytes": 79,
        "saved_bytes": 25,
        "unowned_bytes": 0,
    });
    assert_eq!(usage, expected);
}

/// A server collects by itself where it is told to.
#[tokio::test]
async fn a_server_collects_by_itself() {
    let dir = forgotten_blob().await;
    let root = root(&dir);
    let digest = oci::Digest::sha256(b"nobody needs this");
    let data = root.join(format!("blob/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()));
    assert!(data.exists());
    let mut child = Command::new(env!("CARGO_BIN_EXE_rregistry"))
        .args(["serve", "--listen=127.0.0.1:0", "--log=warn", "--gc-interval=1s", "--root"])
        .arg(&root)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The directory of the blob goes last.
    let blob = data.parent().unwrap();
    let begun = std::time::Instant::now();
    while blob.exists() && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!blob.exists());
}
