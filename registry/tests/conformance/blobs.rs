//! Blobs: pulled, pushed whole, mounted, deleted, kept apart.

use oci::Digest;
use registry::content::Options;
use reqwest::{Method, StatusCode};

use crate::support::{Server, expect_error, header, header_of, noise, with_query};

#[tokio::test]
async fn a_blob_comes_back_with_all_its_headers() {
    let server = Server::start().await;
    let bytes = noise(300_000, 1);
    let digest = server.push("a/b", &bytes).await;
    let response = server.get(&format!("/v2/a/b/blobs/{digest}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-length"), "300000");
    assert_eq!(header(&response, "content-type"), "application/octet-stream");
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&response, "etag"), format!("\"{digest}\""));
    assert_eq!(header(&response, "accept-ranges"), "bytes");
    assert!(header(&response, "cache-control").contains("immutable"));
    assert_eq!(response.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn head_says_what_get_says() {
    let server = Server::start().await;
    let digest = server.push("a", b"hello").await;
    server.push_image("a", "v1", "x").await;
    let other = Digest::sha256(b"other");
    for path in [
        format!("/v2/a/blobs/{digest}"),
        format!("/v2/a/blobs/{other}"),
        "/v2/a/blobs/sha256:bad".to_owned(),
        "/v2/a/manifests/v1".to_owned(),
        "/v2/a/manifests/v2".to_owned(),
        format!("/v2/a/referrers/{digest}"),
        "/v2/a/tags/list".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/".to_owned(),
        "/nothing".to_owned(),
    ] {
        let (get, head) = (server.get(&path).await, server.head(&path).await);
        assert_eq!(get.status(), head.status(), "{path}");
        let mut names: Vec<_> = get.headers().keys().map(ToString::to_string).collect();
        names.retain(|name| name != "date");
        for name in names {
            assert_eq!(
                header_of(get.headers(), &name),
                header_of(head.headers(), &name),
                "{name} of {path}"
            );
        }
        assert_eq!(head.text().await.unwrap(), "");
    }
}

#[tokio::test]
async fn empty_and_tiny_blobs_live_a_full_life() {
    let server = Server::start().await;
    for bytes in [&b""[..], b"{}", b"x"] {
        let digest = server.push("a", bytes).await;
        let path = format!("/v2/a/blobs/{digest}");
        let response = server.get(&path).await;
        assert_eq!(header(&response, "content-length"), bytes.len().to_string());
        assert_eq!(response.bytes().await.unwrap(), bytes);
        assert_eq!(server.delete(&path).await.status(), StatusCode::ACCEPTED);
        assert_eq!(server.status(&path).await, 404);
    }
}

#[tokio::test]
async fn an_unknown_blob_is_blob_unknown() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"nobody has this");
    expect_error(server.get(&format!("/v2/a/blobs/{digest}")).await, (404, "BLOB_UNKNOWN")).await;
    expect_error(server.delete(&format!("/v2/a/blobs/{digest}")).await, (404, "BLOB_UNKNOWN"))
        .await;
}

#[tokio::test]
async fn one_post_pushes_a_blob() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"single");
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let response = server.request(Method::POST, &path).body("single").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
    assert_eq!(server.get(&header(&response, "location")).await.text().await.unwrap(), "single");
    let wrong = server.request(Method::POST, &path).body("other").send().await.unwrap();
    expect_error(wrong, (400, "DIGEST_INVALID")).await;
    assert_eq!(server.root().join("up").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn sha512_is_a_first_class_digest() {
    let server = Server::start().await;
    let bytes = noise(200_000, 2);
    let digest = Digest::sha512(&bytes);
    // With a hint, without one, whole and in chunks: the digest is known at the
    // start, or only at the end.
    for (repository, start, chunked) in [
        ("a", "?digest-algorithm=sha512", true),
        ("b", "", true),
        ("c", "", false),
        ("d", "?digest-algorithm=sha512", false),
        ("e", "?digest-algorithm=sha256", true),
    ] {
        let begun = server.post(&format!("/v2/{repository}/blobs/uploads/{start}")).await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let mut location = header(&begun, "location");
        let mut rest = &bytes[..];
        if chunked {
            location = header(&server.patch(&location, None, &bytes[..70_000]).await, "location");
            rest = &bytes[70_000..];
        }
        let response = server.put(&location, &digest.to_string(), rest).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{repository}");
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        let pulled = server.get(&format!("/v2/{repository}/blobs/{digest}")).await;
        assert_eq!(header(&pulled, "docker-content-digest"), digest.to_string());
        assert_eq!(pulled.bytes().await.unwrap(), bytes);
    }
    let response = server.post("/v2/a/blobs/uploads/?digest-algorithm=md5").await;
    expect_error(response, (400, "DIGEST_INVALID")).await;
}

#[tokio::test]
async fn a_blob_is_mounted_or_an_upload_begins() {
    let server = Server::start().await;
    let digest = server.push("source", b"shared").await;
    let mount = |to: &str, query: &str| {
        let path = format!("/v2/{to}/blobs/uploads/?mount={digest}{query}");
        let server = &server;
        async move { server.post(&path).await }
    };
    let mounted = mount("target", "&from=source").await;
    assert_eq!(mounted.status(), StatusCode::CREATED);
    assert_eq!(header(&mounted, "location"), format!("/v2/target/blobs/{digest}"));
    assert_eq!(header(&mounted, "docker-content-digest"), digest.to_string());
    assert_eq!(server.status(&format!("/v2/target/blobs/{digest}")).await, 200);
    // Without a source, any owner will do.
    assert_eq!(mount("anonymous", "").await.status(), StatusCode::CREATED);
    // From where it is not, the blob is to be uploaded.
    for query in ["&from=nobody", "&from=nobody/else"] {
        let begun = mount("refused", query).await;
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = header(&begun, "location");
        assert_eq!(server.status(&format!("/v2/refused/blobs/{digest}")).await, 404);
        assert_eq!(server.status(&location).await, 204);
    }
    expect_error(mount("x", "&from=UPPER").await, (400, "NAME_INVALID")).await;
}

/// Deduplicated bytes must not be readable where they were not pushed: zot's
/// CVE-2024-39897 and distribution's CVE-2026-35172.
#[tokio::test]
async fn a_repository_reads_only_what_is_its_own() {
    let server = Server::start().await;
    let digest = server.push("private", b"secret").await;
    server.push("other", b"something").await;
    let there = format!("/v2/private/blobs/{digest}");
    let here = format!("/v2/other/blobs/{digest}");
    assert_eq!(server.status(&here).await, 404);
    assert_eq!(server.head(&here).await.status(), 404);
    // Deleting is per repository, in both directions.
    assert_eq!(server.delete(&here).await.status(), 404);
    server.push("other", b"secret").await;
    assert_eq!(server.delete(&there).await.status(), 202);
    assert_eq!(server.head(&there).await.status(), 404);
    assert_eq!(server.status(&here).await, 200);
    // Touching it through the other repository brings nothing back.
    assert_eq!(server.status(&there).await, 404);
    // When nobody owns it, nobody can mount it, though its bytes may linger.
    assert_eq!(server.delete(&here).await.status(), 202);
    for query in ["", "&from=private", "&from=other"] {
        let path = format!("/v2/third/blobs/uploads/?mount={digest}{query}");
        assert_eq!(server.post(&path).await.status(), 202, "{query}");
    }
    // And it can be pushed again.
    server.push("private", b"secret").await;
    assert_eq!(server.status(&there).await, 200);
}

#[tokio::test]
async fn deletes_can_be_forbidden_for_tags_and_digests_alike() {
    let options = Options { allow_delete: false, ..Options::default() };
    let server = Server::with(options).await;
    let digest = server.push_image("a", "v1", "x").await;
    let blob = Digest::sha256(b"layer x");
    for path in [
        "/v2/a/manifests/v1".to_owned(),
        format!("/v2/a/manifests/{digest}"),
        format!("/v2/a/blobs/{blob}"),
    ] {
        expect_error(server.delete(&path).await, (405, "UNSUPPORTED")).await;
        assert_eq!(server.status(&path).await, 200);
    }
}

#[tokio::test]
async fn locations_are_paths_that_take_more_parameters() {
    let server = Server::start().await;
    let location = server.begin("a/b").await;
    assert!(location.starts_with("/v2/a/b/blobs/uploads/"), "{location}");
    let digest = Digest::sha256(b"x");
    let path = with_query(&with_query(&location, "extra=1"), &format!("digest={digest}"));
    let encoded = path.replace("sha256:", "sha256%3A");
    let response = server.request(Method::PUT, &encoded).body("x").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
}
