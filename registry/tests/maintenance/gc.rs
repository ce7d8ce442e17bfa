//! What a collection takes, and what it leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use oci::{Digest, Repository};
use registry::content::{Options, Registry};
use registry::maintenance::{GcOptions, GcReport, Removal, collect};
use registry::storage::{Bucket, Key, Local, Prefix, Storage, UploadId, Writer as _};
use serde_json::Value;

use crate::program::now;
use crate::support::{OCI_MANIFEST, Server, descriptor, index, manifest, noise};

const EVERYTHING: GcOptions = GcOptions { grace: Duration::ZERO, untagged: true, dry_run: false };
const BLOBS: GcOptions = GcOptions { untagged: false, ..EVERYTHING };

/// Collects, and returns what went and the report.
async fn run(storage: impl Storage, options: &GcOptions) -> (Vec<Removal>, GcReport) {
    let registry = Registry::new(storage, Options::default(), now).unwrap();
    let mut removals = Vec::new();
    let tell = &mut |removal: &Removal| removals.push(removal.clone());
    let report = collect(&registry, options, tell).await.unwrap();
    (removals, report)
}

fn local(server: &Server) -> Local {
    Local::open(&server.root()).unwrap()
}

async fn bucket() -> Bucket {
    let url = "memory:///".parse().unwrap();
    Bucket::open(&url, [], None, UploadId::from_random([1; 16])).await.unwrap()
}

async fn over(storage: impl Storage) -> Server {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    Server::over(storage, dir, Options::default(), now).await
}

fn digest_of(manifest: &Value) -> Digest {
    Digest::sha256(manifest.to_string().as_bytes())
}

/// Runs one test on both backends.
macro_rules! on_both {
    ($name:ident, $law:ident) => {
        mod $name {
            #[tokio::test]
            async fn in_a_directory() {
                let server = super::Server::start().await;
                let storage = super::local(&server);
                super::$law(&server, storage).await;
            }

            #[tokio::test]
            async fn in_a_bucket() {
                let storage = super::bucket().await;
                let server = super::over(storage.clone()).await;
                super::$law(&server, storage).await;
            }
        }
    };
}

on_both!(what_is_needed_stays, needed_stays);

async fn needed_stays(server: &Server, storage: impl Storage + Clone) {
    let one = server.image("a/b", "one").await;
    let two = server.image("a/b", "two").await;
    server.push_manifest("a/b", &digest_of(&one).to_string(), &one).await;
    server.push_manifest("a/b", &digest_of(&two).to_string(), &two).await;
    // Of the children, one is in an index of an index; nobody tagged them.
    let inner = index(&[&two]);
    server.push_manifest("a/b", &digest_of(&inner).to_string(), &inner).await;
    let outer = index(&[&one, &inner]);
    server.push_manifest("a/b", "multi", &outer).await;
    // A signature of it, and an attestation of the signature.
    let mut signature = manifest(b"{}", b"signature");
    server.push("a/b", b"{}").await;
    server.push("a/b", b"signature").await;
    signature["subject"] = descriptor(OCI_MANIFEST, outer.to_string().as_bytes());
    server.push_manifest("a/b", &digest_of(&signature).to_string(), &signature).await;
    let mut attestation = manifest(b"{}", b"signature");
    attestation["subject"] = descriptor(OCI_MANIFEST, signature.to_string().as_bytes());
    server.push_manifest("a/b", &digest_of(&attestation).to_string(), &attestation).await;
    let (removals, report) = run(storage.clone(), &EVERYTHING).await;
    assert_eq!(removals, []);
    assert_eq!(report, GcReport::default());
    for manifest in [&one, &two, &inner, &outer, &signature, &attestation] {
        let path = format!("/v2/a/b/manifests/{}", digest_of(manifest));
        assert_eq!(server.status(&path).await, 200);
    }
    for blob in [&b"layer one"[..], b"layer two", b"signature", b"{}"] {
        assert_eq!(server.status(&format!("/v2/a/b/blobs/{}", Digest::sha256(blob))).await, 200);
    }
    // Without the tag all of it goes, in one run, and leaves nothing behind.
    assert_eq!(server.delete("/v2/a/b/manifests/multi").await.status(), 202);
    let (removals, report) = run(storage.clone(), &EVERYTHING).await;
    let gone: BTreeSet<Digest> = removals
        .iter()
        .filter_map(|removal| match removal {
            Removal::Manifest { digest, .. } => Some(*digest),
            _ => None,
        })
        .collect();
    let all = [&one, &two, &inner, &outer, &signature, &attestation].map(digest_of);
    assert_eq!(gone, all.into_iter().collect());
    assert_eq!((report.manifests.count, report.blobs.count, report.shares), (6, 6, 6));
    assert_eq!(storage.list(&Prefix::blobs(), None, 10).await.unwrap(), [""; 0]);
    assert_eq!(storage.list(&Prefix::records(), None, 10).await.unwrap(), [""; 0]);
    assert_eq!(storage.list(&Prefix::collections(), None, 10).await.unwrap(), [""; 0]);
}

on_both!(untagged_manifests_stay_unless_they_are_to_go, untagged_stay);

async fn untagged_stay(server: &Server, storage: impl Storage + Clone) {
    let old = server.push_image("a", "v1", "old").await;
    let new = server.push_image("a", "v1", "new").await;
    let (removals, _) = run(storage.clone(), &BLOBS).await;
    assert_eq!(removals, []);
    assert_eq!(server.status(&format!("/v2/a/manifests/{old}")).await, 200);
    let dry = GcOptions { dry_run: true, ..EVERYTHING };
    let (would_go, would_free) = run(storage.clone(), &dry).await;
    assert_eq!(server.status(&format!("/v2/a/manifests/{old}")).await, 200);
    // A dry run says what a run then does, to the byte.
    let (removals, mut report) = run(storage.clone(), &EVERYTHING).await;
    assert_eq!(would_go, removals);
    assert_eq!((report.manifests.count, report.blobs.count), (1, 2));
    // In a dry run the hint stays that goes with the manifest.
    report.records = would_free.records;
    assert_eq!(would_free, report);
    assert_eq!(server.status(&format!("/v2/a/manifests/{old}")).await, 404);
    assert_eq!(server.status(&format!("/v2/a/manifests/{new}")).await, 200);
    assert_eq!(server.tags("a").await, ["v1"]);
}

on_both!(deleting_one_of_two_tags_harms_nothing, two_tags);

async fn two_tags(server: &Server, storage: impl Storage + Clone) {
    let digest = server.push_image("a", "v1", "same").await;
    server.push_image("a", "v2", "same").await;
    assert_eq!(server.delete("/v2/a/manifests/v1").await.status(), 202);
    let (removals, _) = run(storage.clone(), &EVERYTHING).await;
    assert_eq!(removals, []);
    assert_eq!(server.status("/v2/a/manifests/v2").await, 200);
    assert_eq!(server.status(&format!("/v2/a/manifests/{digest}")).await, 200);
    let layer = format!("/v2/a/blobs/{}", Digest::sha256(b"layer same"));
    assert_eq!(server.status(&layer).await, 200);
}

on_both!(what_another_repository_needs_stays_there_only, shares);

async fn shares(server: &Server, storage: impl Storage + Clone) {
    server.push_image("a", "v1", "same").await;
    let digest = server.push_image("b", "v1", "same").await;
    assert_eq!(server.delete(&format!("/v2/a/manifests/{digest}")).await.status(), 202);
    let (removals, report) = run(storage.clone(), &BLOBS).await;
    let a: Repository = "a".parse().unwrap();
    assert_eq!((report.shares, report.blobs.count), (2, 0));
    assert!(
        removals.iter().all(
            |removal| matches!(removal, Removal::Share { repository, .. } if *repository == a)
        )
    );
    let layer = Digest::sha256(b"layer same");
    assert_eq!(server.status(&format!("/v2/a/blobs/{layer}")).await, 404);
    assert_eq!(server.status(&format!("/v2/b/blobs/{layer}")).await, 200);
}

on_both!(a_running_upload_is_left_alone, uploads);

async fn uploads(server: &Server, storage: impl Storage + Clone) {
    let bytes = noise(100_000, 1);
    let digest = Digest::sha256(&bytes).to_string();
    let location = server.begin("a").await;
    assert_eq!(server.patch(&location, None, &bytes[..60_000]).await.status(), 202);
    let (removals, report) = run(storage.clone(), &EVERYTHING).await;
    assert_eq!(removals, []);
    assert_eq!(report, GcReport::default());
    assert_eq!(server.put(&location, &digest, &bytes[60_000..]).await.status(), 201);
    let blob = server.get(&format!("/v2/a/blobs/{digest}")).await;
    assert!(blob.bytes().await.unwrap() == bytes);
}

on_both!(an_abandoned_upload_goes, abandoned);

async fn abandoned(server: &Server, storage: impl Storage + Clone) {
    fn two_days_later() -> std::time::SystemTime {
        now() + Duration::from_secs(2 * 86_400)
    }
    let location = server.begin("a").await;
    assert_eq!(server.patch(&location, None, b"half").await.status(), 202);
    let later = Registry::new(storage.clone(), Options::default(), two_days_later).unwrap();
    let dry = GcOptions { dry_run: true, ..BLOBS };
    let report = collect(&later, &dry, &mut |_| ()).await.unwrap();
    assert_eq!(report, GcReport { uploads: 1, ..GcReport::default() });
    assert_eq!(server.status(&location).await, 204);
    let report = collect(&later, &BLOBS, &mut |_| ()).await.unwrap();
    assert_eq!(report, GcReport { uploads: 1, ..GcReport::default() });
    assert_eq!(server.status(&location).await, 404);
}

#[tokio::test]
async fn segments_that_belong_to_nothing_are_freed() {
    let storage = bucket().await;
    let server = over(storage.clone()).await;
    let image = server.push_image("a", "v1", "kept").await;
    // A request crashed after its second segment and before it had said so; then
    // the upload was closed with the first only.
    let id = UploadId::from_random([7; 16]);
    storage.begin_upload(&id, "record".into()).await.unwrap();
    let mut writer = storage.open_upload(&id).await.unwrap().unwrap().writer;
    writer.write(0, &["first".into()]).await.unwrap();
    writer.save("record".into()).await.unwrap();
    writer.write(5, &["second".into()]).await.unwrap();
    writer.content(11).await.unwrap();
    drop(writer);
    // The upload lives: nothing of it is stray.
    assert_eq!(storage.sweep_strays(u64::MAX, false).await.unwrap().count, 0);
    let writer = storage.open_upload(&id).await.unwrap().unwrap().writer;
    writer.commit(&Digest::sha256(b"first"), 5).await.unwrap();
    // Another one vanished with all its segments.
    let id = UploadId::from_random([8; 16]);
    storage.begin_upload(&id, "record".into()).await.unwrap();
    let mut writer = storage.open_upload(&id).await.unwrap().unwrap().writer;
    writer.write(0, &["third".into()]).await.unwrap();
    writer.content(5).await.unwrap();
    writer.discard().await.unwrap();
    let mark = Key::owner(&Digest::sha256(b"first"), &"a".parse().unwrap());
    storage.mark(vec![mark]).await.unwrap();
    assert_eq!(storage.sweep_strays(0, false).await.unwrap().count, 0, "too young");
    let (_, report) = run(storage.clone(), &GcOptions { dry_run: true, ..BLOBS }).await;
    assert_eq!((report.strays.count, report.strays.bytes), (1, 6));
    assert_eq!(storage.sweep_strays(u64::MAX, false).await.unwrap().bytes, 6);
    assert_eq!(storage.sweep_strays(u64::MAX, false).await.unwrap().count, 0);
    assert_eq!(server.status(&format!("/v2/a/manifests/{image}")).await, 200);
    let first = server.get(&format!("/v2/a/blobs/{}", Digest::sha256(b"first"))).await;
    assert_eq!(first.bytes().await.unwrap(), "first");
}

/// What a run leaves of directories: nothing, however many blobs there were.
#[tokio::test]
async fn no_empty_directories_pile_up() {
    let server = Server::start().await;
    for number in 0..20 {
        server.push("a", format!("blob {number}").as_bytes()).await;
    }
    let (_, report) = run(local(&server), &BLOBS).await;
    assert_eq!(report.blobs.count, 20);
    let shards = server.root().join("blob/sha256").read_dir().unwrap();
    for shard in shards {
        assert_eq!(shard.unwrap().path().read_dir().unwrap().count(), 0);
    }
    // And whoever pushes again finds the way.
    server.push("a", b"blob 1").await;
}
