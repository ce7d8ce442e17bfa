//! What a check finds, and what a repair does about it.

use std::path::PathBuf;
use std::sync::Arc;

use oci::Digest;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Ran, root, rregistry};
use crate::support::{OCI_MANIFEST, Server, descriptor, index};

fn data(dir: &TempDir, bytes: &[u8]) -> PathBuf {
    let digest = Digest::sha256(bytes);
    root(dir).join(format!("blob/sha256/{}/{}/data", &digest.hex()[..2], digest.hex()))
}

fn overwrite(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn verify(dir: &TempDir, words: &[&str]) -> Ran {
    let root = root(dir);
    rregistry(&[&["verify", "--root", root.to_str().unwrap()], words].concat())
}

#[tokio::test]
async fn damaged_blobs_are_found_removed_and_pushed_again() {
    let server = Server::start().await;
    let image = server.push_image("a/b", "v1", "one").await;
    let dir = server.stop().await;
    let layer = Digest::sha256(b"layer one");
    overwrite(&data(&dir, b"layer one"), b"layer oNe");
    let found = verify(&dir, &[]);
    let actual = Digest::sha256(b"layer oNe");
    let expected = format!(
        "blob {layer} is damaged: its 9 bytes are {actual}\n\
         a/b@{image} needs {layer}, which a/b does not have\n\
         read 1 sound blob (14 B), 1 manifest and 1 tag: 2 problems\n"
    );
    assert_eq!((found.code, found.out), (Some(1), expected), "{}", found.err);
    let repaired = verify(&dir, &["--repair"]);
    assert_eq!(repaired.code, Some(1), "the layer is still missing");
    let line =
        format!("blob {layer} is damaged: its 9 bytes are {actual} (removed: push it again)");
    assert!(repaired.out.starts_with(&line), "{}", repaired.out);
    let server = Server::on(Arc::clone(&dir), registry::content::Options::default()).await;
    assert_eq!(server.status(&format!("/v2/a/b/blobs/{layer}")).await, 404);
    assert_eq!(server.head(&format!("/v2/a/b/blobs/{layer}")).await.status(), 404);
    // A manifest that needs it is refused until it is there again.
    let manifest = crate::support::manifest(b"{}", b"layer one").to_string();
    server.push("a/b", b"{}").await;
    let put = server.put_manifest("a/b", "v2", OCI_MANIFEST, manifest.as_bytes()).await;
    assert_eq!(put.status(), 404);
    server.push("a/b", b"layer one").await;
    let dir = server.stop().await;
    let well = verify(&dir, &[]);
    assert_eq!(well.code, Some(0), "{}", well.out);
}

#[tokio::test]
async fn damaged_manifests_and_tags_are_found() {
    let server = Server::start().await;
    let image = server.push_image("a", "v1", "one").await;
    server.push_image("a", "v2", "two").await;
    let dir = server.stop().await;
    let repo = root(&dir).join("repo");
    let record = repo.join(format!("a!m/sha256/{}", image.hex()));
    let text = std::fs::read_to_string(&record).unwrap();
    overwrite(&record, text.replace("layers", "lawyers").as_bytes());
    overwrite(&repo.join("a!t/v2"), b"not a tag");
    std::fs::write(repo.join("a!t/v3"), r#"{"digest":"sha256:zz"}"#).unwrap();
    let found = verify(&dir, &[]);
    assert_eq!(found.code, Some(1));
    let lines: Vec<&str> = found.out.lines().collect();
    assert!(lines[0].starts_with(&format!(
        "record repo/a!m/sha256/{} is damaged: its content is sha256:",
        image.hex()
    )));
    assert_eq!(lines[1], "record repo/a!t/v2 is damaged: it cannot be read");
    assert_eq!(lines[2], "record repo/a!t/v3 is damaged: it cannot be read");
    assert_eq!(lines.len(), 4);
    let repaired = verify(&dir, &["--repair"]);
    assert_eq!(repaired.code, Some(1), "three records are lost");
    // The tag of the manifest that was removed names nothing then.
    let expected = format!("a:v1 names {image}, which is not there (removed: push it again)\n");
    assert!(repaired.out.contains(&expected), "{}", repaired.out);
    assert!(repaired.out.ends_with("4 problems, 1 solved\n"), "{}", repaired.out);
    assert_eq!(verify(&dir, &[]).code, Some(0));
    let server = Server::on(dir, registry::content::Options::default()).await;
    assert_eq!(server.tags("a").await, [""; 0]);
    server.push_image("a", "v1", "one").await;
    let dir = server.stop().await;
    assert_eq!(verify(&dir, &[]).code, Some(0));
}

#[tokio::test]
async fn what_is_derived_is_written_again() {
    let server = Server::start().await;
    let image = server.image("a/b", "one").await;
    server.push_manifest("a/b", "v1", &image).await;
    server.push_manifest("a/b", "multi", &index(&[&image])).await;
    let mut signature: Value = image.clone();
    signature["subject"] = descriptor(OCI_MANIFEST, image.to_string().as_bytes());
    server.push_manifest("a/b", "signature", &signature).await;
    let referrers = format!("/v2/a/b/referrers/{}", Digest::sha256(image.to_string().as_bytes()));
    let before = server.get(&referrers).await.text().await.unwrap();
    let dir = server.stop().await;
    assert_eq!(verify(&dir, &[]).code, Some(0));
    let listing = |dir: &TempDir| {
        let mut files = Vec::new();
        let mut waiting = vec![root(dir)];
        while let Some(path) = waiting.pop() {
            for entry in path.read_dir().unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    };
    let all = listing(&dir);
    let derived = |path: &&PathBuf| {
        let text = path.to_str().unwrap();
        ["/pin-", "!mt/", "!r/", "/cat/"].iter().any(|part| text.contains(part))
    };
    let removed: Vec<&PathBuf> = all.iter().filter(derived).collect();
    // Pins: 2 of the image, 1 of the index, 2 of the signature; 3 hints; 1 entry; 1 name.
    assert_eq!(removed.len(), 10);
    for path in &removed {
        std::fs::remove_file(path).unwrap();
    }
    let found = verify(&dir, &[]);
    assert_eq!(found.code, Some(1));
    assert!(found.out.ends_with("3 manifests and 3 tags: 10 problems\n"), "{}", found.out);
    let repaired = verify(&dir, &["--repair"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.out);
    assert!(repaired.out.ends_with("10 problems, 10 solved\n"), "{}", repaired.out);
    assert_eq!(listing(&dir), all);
    assert_eq!(verify(&dir, &[]).code, Some(0));
    let server = Server::on(dir, registry::content::Options::default()).await;
    assert_eq!(server.get(&referrers).await.text().await.unwrap(), before);
}

#[tokio::test]
async fn sparse_manifests_are_in_order_where_they_are_allowed() {
    let options =
        registry::content::Options { allow_missing: true, ..registry::content::Options::default() };
    let server = Server::with(options).await;
    let manifest = crate::support::manifest(b"{}", b"not here");
    server.push_manifest("a", "v1", &manifest).await;
    let dir = server.stop().await;
    let found = verify(&dir, &[]);
    assert_eq!(found.code, Some(1));
    assert_eq!(found.out.matches("which a does not have").count(), 2);
    assert_eq!(verify(&dir, &["--allow-missing"]).code, Some(0));
}
