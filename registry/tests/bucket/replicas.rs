//! Two registries over one bucket, through HTTP.

use std::sync::Arc;
use std::time::SystemTime;

use oci::Digest;
use registry::content::Options;
use registry::storage::Redirect;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};

use crate::support::servers::Store;
use crate::support::{Server, header, header_of, noise};

on_each_store!(
    an_upload_begun_on_one_replica_is_closed_on_another,
    a_digest_named_only_at_the_end_is_read_back,
    wrong_bytes_and_cancelled_uploads_are_gone_on_every_replica,
    concurrent_pushes_of_one_tag_leave_one_whole_image,
    large_blobs_are_fetched_from_the_bucket_by_those_who_may,
);

#[expect(clippy::disallowed_methods, reason = "the tests' clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

async fn replica(store: &Store, number: u8) -> Server {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    Server::over(store.bucket("i", number).await, dir, Options::default(), now).await
}

async fn an_upload_begun_on_one_replica_is_closed_on_another(store: Store) {
    let (one, two) = (replica(&store, 1).await, replica(&store, 2).await);
    let bytes = noise(3 << 20, 7);
    let digest = Digest::sha256(&bytes).to_string();
    let location = one.begin("a/b").await;
    let (first, second) = bytes.split_at(1 << 20);
    assert_eq!(one.patch(&location, None, first).await.status(), StatusCode::ACCEPTED);
    let status = two.get(&location).await;
    assert_eq!(header(&status, "range"), format!("0-{}", first.len() - 1));
    // The replica that began it may be gone.
    one.stop().await;
    assert_eq!(two.put(&location, &digest, second).await.status(), StatusCode::CREATED);
    let one = replica(&store, 3).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let response = one.get(&path).await;
    assert_eq!(header(&response, "content-length"), bytes.len().to_string());
    assert!(response.bytes().await.unwrap() == bytes);
    let head = one.head(&path).await;
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    let part = one.client.get(one.url(&path)).header(RANGE, "bytes=1048570-1048580");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let range = format!("bytes 1048570-1048580/{}", bytes.len());
    assert_eq!(header(&part, CONTENT_RANGE.as_str()), range);
    assert_eq!(part.bytes().await.unwrap(), bytes[1_048_570..=1_048_580]);
    // Another repository does not have it.
    assert_eq!(one.status(&format!("/v2/c/blobs/{digest}")).await, 404);
}

async fn a_digest_named_only_at_the_end_is_read_back(store: Store) {
    let (one, two) = (replica(&store, 1).await, replica(&store, 2).await);
    let bytes = noise(100_000, 3);
    let digest = Digest::of(oci::Algorithm::Sha512, &bytes).to_string();
    let location = one.begin("a").await;
    assert_eq!(one.patch(&location, None, &bytes[..50_000]).await.status(), StatusCode::ACCEPTED);
    let closed = two.put(&location, &digest, &bytes[50_000..]).await;
    assert_eq!(closed.status(), StatusCode::CREATED);
    let blob = one.get(&format!("/v2/a/blobs/{digest}")).await;
    assert!(blob.bytes().await.unwrap() == bytes);
}

async fn wrong_bytes_and_cancelled_uploads_are_gone_on_every_replica(store: Store) {
    let (one, two) = (replica(&store, 1).await, replica(&store, 2).await);
    let digest = Digest::sha256(b"right").to_string();
    let location = one.begin("a").await;
    one.patch(&location, None, b"wro").await;
    assert_eq!(two.put(&location, &digest, b"ng").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(one.status(&location).await, 404);
    assert_eq!(one.status(&format!("/v2/a/blobs/{digest}")).await, 404);
    let location = one.begin("a").await;
    assert_eq!(two.delete(&location).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(one.status(&location).await, 404);
}

async fn large_blobs_are_fetched_from_the_bucket_by_those_who_may(store: Store) {
    let redirect = Redirect { endpoint: None, from_bytes: 1 << 20 };
    let bucket = store.redirecting("i", 1, Some(redirect)).await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let server = Server::over(bucket, dir, Options::default(), now).await;
    let bytes = noise(6 << 20, 5);
    let digest = server.push("a/b", &bytes).await;
    let path = format!("/v2/a/b/blobs/{digest}");
    let sent = server.get(&path).await;
    assert_eq!(sent.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(header(&sent, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&sent, "cache-control"), "no-store");
    let location = header(&sent, "location");
    let whole = server.client.get(&location).send().await.unwrap();
    assert!(whole.bytes().await.unwrap() == bytes);
    // A part of it, as clients ask again that follow by themselves.
    let part = server.client.get(&location).header(RANGE, "bytes=100-199").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), bytes[100..200]);
    // What the registry knows it says itself.
    let head = server.head(&path).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    let beyond = server.client.get(server.url(&path)).header(RANGE, "bytes=9999999-");
    assert_eq!(beyond.send().await.unwrap().status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let known =
        server.client.get(server.url(&path)).header("if-none-match", format!("\"{digest}\""));
    assert_eq!(known.send().await.unwrap().status(), StatusCode::NOT_MODIFIED);
    // Nobody is sent to what the repository does not have.
    let elsewhere = server.get(&format!("/v2/c/blobs/{digest}")).await;
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(header_of(elsewhere.headers(), "location"), None);
    let small = server.push("a/b", b"small").await;
    assert_eq!(server.status(&format!("/v2/a/b/blobs/{small}")).await, 200);
}

async fn concurrent_pushes_of_one_tag_leave_one_whole_image(store: Store) {
    let (one, two) = (replica(&store, 1).await, replica(&store, 2).await);
    let push = async |server: &Server, name: &str| {
        let mut digests = Vec::new();
        for round in 0..3 {
            digests.push(server.push_image("a/b", "latest", &format!("{name}{round}")).await);
        }
        digests
    };
    let (mine, yours) = tokio::join!(push(&one, "one"), push(&two, "two"));
    let pushed = [mine, yours].concat();
    // Nothing acknowledged is lost, and both agree about the tag.
    for digest in &pushed {
        for server in [&one, &two] {
            assert_eq!(server.status(&format!("/v2/a/b/manifests/{digest}")).await, 200);
        }
    }
    let tagged = async |server: &Server| {
        header(&server.head("/v2/a/b/manifests/latest").await, "docker-content-digest")
    };
    let latest = tagged(&one).await;
    assert_eq!(latest, tagged(&two).await);
    assert!(pushed.iter().any(|digest| digest.to_string() == latest));
    assert_eq!(two.tags("a/b").await, ["latest"]);
    // A delete on one is seen by the other at once.
    let path = format!("/v2/a/b/manifests/{latest}");
    assert_eq!(one.delete(&path).await.status(), StatusCode::ACCEPTED);
    assert_eq!(two.status(&path).await, 404);
    assert_eq!(two.status("/v2/a/b/manifests/latest").await, 404);
}
