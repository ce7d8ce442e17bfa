//! A storage that stops after its k-th write, for every k: another storage
//! opened afterwards has all that was acknowledged and nothing that is broken.

use std::sync::Arc;
use std::time::SystemTime;

use oci::Digest;
use registry::content::{Options, Registry};
use registry::maintenance::{GcOptions, Usage, VerifyOptions, collect, usage, verify};
use registry::storage::{Bucket, Local, Storage, UploadId};
use reqwest::Method;
use serde_json::Value;

use crate::support::{
    OCI_MANIFEST, Server, descriptor, header, manifest, verify_blobs, with_query,
};
use crate::watched::{Watched, Writes, quick_dir};

/// What a client that saw every answer knows to be there, and not to be there.
#[derive(Default)]
struct Known {
    there: Vec<String>,
    gone: Vec<String>,
}

impl Known {
    fn acknowledge(&mut self, path: String) {
        self.doubt(&path);
        self.there.push(path);
    }

    /// Whatever a request that was not acknowledged may have done is unknown.
    fn doubt(&mut self, path: &str) {
        self.there.retain(|there| there != path);
        self.gone.retain(|gone| gone != path);
    }

    fn deleted(&mut self, path: &str) {
        self.doubt(path);
        self.gone.push(path.to_owned());
    }
}

async fn push_blob(server: &Server, bytes: &[u8], known: &mut Known) {
    let path = format!("/v2/a/b/blobs/{}", Digest::sha256(bytes));
    let begun = server.post("/v2/a/b/blobs/uploads/").await;
    if begun.status() != 202 {
        return;
    }
    let location = header(&begun, "location");
    server.patch(&location, None, &bytes[..bytes.len() / 2]).await;
    let put = with_query(&location, &format!("digest={}", Digest::sha256(bytes)));
    let range = format!("{}-{}", bytes.len() / 2, bytes.len() - 1);
    let response = server
        .request(Method::PUT, &put)
        .header("content-range", range)
        .body(bytes[bytes.len() / 2..].to_vec())
        .send()
        .await
        .unwrap();
    if response.status() == 201 {
        known.acknowledge(path);
    }
}

async fn push_manifest(server: &Server, tag: &str, body: &Value, known: &mut Known) {
    let body = body.to_string();
    let path = format!("/v2/a/b/manifests/{tag}");
    known.doubt(&path);
    let response = server.put_manifest("a/b", tag, OCI_MANIFEST, body.as_bytes()).await;
    if response.status() == 201 {
        known.acknowledge(format!("/v2/a/b/manifests/{}", Digest::sha256(body.as_bytes())));
        known.acknowledge(path);
    }
}

async fn delete(server: &Server, path: &str, takes: &[&str], known: &mut Known) {
    for path in [&[path], takes].concat() {
        known.doubt(path);
    }
    if server.delete(path).await.status() == 202 {
        for path in [&[path], takes].concat() {
            known.deleted(path);
        }
    }
}

/// Every kind of change, with all that it may cross.
async fn scenario(server: &Server) -> Known {
    let mut known = Known::default();
    push_blob(server, b"layer one", &mut known).await;
    push_blob(server, b"{}", &mut known).await;
    let image = manifest(b"{}", b"layer one");
    push_manifest(server, "v1", &image, &mut known).await;
    let mut artifact = image.clone();
    artifact["subject"] = descriptor(OCI_MANIFEST, image.to_string().as_bytes());
    push_manifest(server, "signature", &artifact, &mut known).await;
    push_blob(server, b"layer two", &mut known).await;
    push_manifest(server, "v1", &manifest(b"{}", b"layer two"), &mut known).await;
    push_manifest(server, "v2", &manifest(b"{}", b"layer two"), &mut known).await;
    delete(server, "/v2/a/b/manifests/v2", &[], &mut known).await;
    let signature =
        format!("/v2/a/b/manifests/{}", Digest::sha256(artifact.to_string().as_bytes()));
    delete(server, &signature, &["/v2/a/b/manifests/signature"], &mut known).await;
    let blob = format!("/v2/a/b/blobs/{}", Digest::sha256(b"layer one"));
    delete(server, &blob, &[], &mut known).await;
    known
}

#[expect(clippy::disallowed_methods, reason = "the tests' clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[tokio::test]
async fn a_storage_that_stops_anywhere_loses_nothing_acknowledged() {
    let mut allowed = 0;
    loop {
        let dir = Arc::new(quick_dir());
        let inner = Local::open(&dir.path().join("root")).unwrap();
        let writes = Writes::allow(allowed, false);
        let faulty = Watched::new(inner, Arc::clone(&writes));
        let server = Server::over(faulty, Arc::clone(&dir), Options::default(), now).await;
        let known = scenario(&server).await;
        drop(server);
        let server = Server::on(dir, Options::default()).await;
        for path in &known.there {
            assert_eq!(server.status(path).await, 200, "{path} after {allowed} writes");
        }
        for path in &known.gone {
            assert_eq!(server.status(path).await, 404, "{path} after {allowed} writes");
        }
        verify_blobs(&server.root());
        // Whoever tries again succeeds.
        let again = scenario(&server).await;
        assert_eq!((again.there.len(), again.gone.len()), (5, 4), "after {allowed} writes");
        if writes.done() <= allowed {
            assert!(allowed > 30, "the scenario makes only {allowed} writes");
            return;
        }
        allowed += 1;
    }
}

/// Collects, and asserts what is known of the content.
async fn collect_with_a_fault<S: Storage + Clone>(
    storage: S,
    untagged: bool,
    allowed: usize,
) -> bool {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let server = Server::over(storage.clone(), dir, Options::default(), now).await;
    let mut known = scenario(&server).await;
    // Nobody needs this: not a part of what is known to stay.
    push_blob(&server, b"never in a manifest", &mut Known::default()).await;
    if untagged {
        let first = manifest(b"{}", b"layer one").to_string();
        known.doubt(&format!("/v2/a/b/manifests/{}", Digest::sha256(first.as_bytes())));
    }
    let options = GcOptions { grace: std::time::Duration::ZERO, untagged, dry_run: false };
    let writes = Writes::allow(allowed, true);
    let faulty = Watched::new(storage.clone(), Arc::clone(&writes));
    let faulty = Registry::new(faulty, Options::default(), now).unwrap();
    let is_done = collect(&faulty, &options, &mut |_| ()).await.is_ok();
    assert_eq!(is_done, writes.done() <= allowed);
    for path in &known.there {
        assert_eq!(server.status(path).await, 200, "{path} after {allowed} writes");
    }
    for path in &known.gone {
        assert_eq!(server.status(path).await, 404, "{path} after {allowed} writes");
    }
    // The next run frees the rest. An announcement that was left behind makes only
    // those wait who need what it names, which is nobody.
    let registry = Registry::new(storage, Options::default(), now).unwrap();
    collect(&registry, &options, &mut |_| ()).await.unwrap();
    let Usage { blobs, stored_bytes, unowned_bytes, .. } = usage(&registry).await.unwrap();
    assert_eq!((blobs, stored_bytes, unowned_bytes), (2, 11, 0), "after {allowed} writes");
    let mut problems = Vec::new();
    let check = VerifyOptions::default();
    verify(&registry, check, &mut |finding| problems.push(finding.problem.to_string()))
        .await
        .unwrap();
    // The first image lacks the layer that was deleted, for as long as it is there.
    let expected = usize::from(!untagged);
    assert_eq!(problems.len(), expected, "{problems:?} after {allowed} writes");
    is_done
}

#[tokio::test]
async fn a_collection_that_stops_anywhere_loses_nothing() {
    for untagged in [false, true] {
        let mut allowed = 0;
        loop {
            let dir = quick_dir();
            let storage = Local::open(&dir.path().join("root")).unwrap();
            if collect_with_a_fault(storage, untagged, allowed).await {
                break;
            }
            allowed += 1;
        }
        assert!(allowed > 8, "a collection makes only {allowed} writes");
    }
}

#[tokio::test]
async fn a_collection_in_a_bucket_that_stops_anywhere_loses_nothing() {
    for untagged in [false, true] {
        let mut allowed = 0;
        loop {
            let url = "memory:///".parse().unwrap();
            let storage =
                Bucket::open(&url, [], None, UploadId::from_random([1; 16])).await.unwrap();
            if collect_with_a_fault(storage, untagged, allowed).await {
                break;
            }
            allowed += 1;
        }
        assert!(allowed > 8, "a collection makes only {allowed} writes");
    }
}
