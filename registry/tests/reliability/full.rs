//! A disk that is full: a clear answer, nothing half-written, and reads go on.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use oci::Digest;
use registry::content::Options;

use crate::support::{Server, expect_error, noise, verify_blobs};

/// A small file system in memory; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "cannot mount: this test needs root");
        Self(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn privileged_a_full_disk_is_507_and_loses_nothing() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let _disk = Disk::mount(dir.path().join("root"), "8m");
    let server = Server::on(Arc::clone(&dir), Options::default()).await;
    let kept = server.push_image("a", "v1", "kept").await;
    let large = noise(16 << 20, 31);
    let digest = Digest::sha256(&large);
    let location = server.begin("a").await;
    let response = server.put(&location, &digest.to_string(), &large).await;
    expect_error(response, (507, "DENIED")).await;
    assert_eq!(server.status(&format!("/v2/a/blobs/{digest}")).await, 404);
    // Nothing that was there has suffered, and what fits still fits.
    assert_eq!(server.status("/v2/a/manifests/v1").await, 200);
    assert_eq!(server.status(&format!("/v2/a/manifests/{kept}")).await, 200);
    assert_eq!(server.delete(&location).await.status(), 204);
    server.push("a", &noise(1 << 20, 32)).await;
    verify_blobs(&server.root());
    server.stop().await;
}
