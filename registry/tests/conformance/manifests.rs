//! Manifests: pushed, pulled by tag and digest, refused, deleted.

use oci::Digest;
use registry::content::Options;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Server, descriptor, expect_error,
    header, header_of, index, manifest,
};

#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte() {
    let server = Server::start().await;
    let image = server.image("a/b", "x").await;
    // Unknown fields, odd order, spaces: the digest is of these very bytes.
    let mut body = image.to_string();
    body.truncate(body.len() - 1);
    body.push_str(r#", "org.example": {"n": 1.10, "big": 123456789012345678901234567890}}  "#);
    let digest = Digest::sha256(body.as_bytes());
    let response = server.put_manifest("a/b", "v1", OCI_MANIFEST, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&response, "location"), format!("/v2/a/b/manifests/{digest}"));
    assert_eq!(header_of(response.headers(), "oci-subject"), None);
    for reference in ["v1", &digest.to_string()] {
        let response = server.get(&format!("/v2/a/b/manifests/{reference}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), OCI_MANIFEST);
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        assert_eq!(header(&response, "content-length"), body.len().to_string());
        assert_eq!(response.text().await.unwrap(), body);
    }
}

#[tokio::test]
async fn docker_manifests_keep_their_types() {
    let server = Server::start().await;
    let mut image = server.image("a", "x").await;
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    image["mediaType"] = docker.into();
    image["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    image["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    server.push_manifest("a", "image", &image).await;
    let list_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    let mut list = index(&[&image]);
    list["mediaType"] = list_type.into();
    server.push_manifest("a", "list", &list).await;
    for (tag, media_type) in [("image", docker), ("list", list_type)] {
        let response = server
            .request(Method::GET, &format!("/v2/a/manifests/{tag}"))
            .header("accept", "application/json")
            .send()
            .await
            .unwrap();
        assert_eq!(header(&response, "content-type"), media_type);
    }
}

#[tokio::test]
async fn media_type_parameters_are_dropped() {
    let server = Server::start().await;
    let body = server.image("a", "x").await.to_string();
    let media_type = format!("{OCI_MANIFEST}; charset=utf-8");
    let response = server.put_manifest("a", "v1", &media_type, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&server.get("/v2/a/manifests/v1").await, "content-type"), OCI_MANIFEST);
}

#[tokio::test]
async fn all_kinds_of_manifests_are_accepted() {
    let server = Server::start().await;
    let image = server.image("a", "x").await;
    server.push_manifest("a", "image", &image).await;
    server.push("a", b"{}").await;
    let nested = index(&[&image]);
    server.push_manifest("a", "index", &nested).await;
    let subject = descriptor(OCI_MANIFEST, b"does not exist");
    let artifact = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "application/x",
        "config": {"mediaType": OCI_EMPTY, "digest": Digest::sha256(b"{}"), "size": 2, "data": "e30="},
        "layers": [],
    });
    let cases = [
        ("nested", index(&[&nested])),
        ("empty-index", index(&[])),
        ("artifact", artifact.clone()),
        ("with-subject", {
            let mut artifact = artifact.clone();
            artifact["subject"] = subject.clone();
            artifact
        }),
        ("index-with-subject", {
            let mut index = index(&[&image]);
            index["subject"] = subject.clone();
            index["artifactType"] = "application/x".into();
            index
        }),
        ("foreign-layers", {
            let mut image = image.clone();
            image["layers"] = json!([
                descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"far"),
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"away"),
            ]);
            image["layers"][0]["urls"] = json!(["http://127.0.0.1:1/never-fetched"]);
            image
        }),
        (
            "index-of-blobs",
            json!({
                "schemaVersion": 2, "mediaType": OCI_INDEX,
                "manifests": [descriptor(OCI_LAYER, b"layer x")],
            }),
        ),
    ];
    for (tag, document) in cases {
        let digest = server.push_manifest("a", tag, &document).await;
        let response = server.get(&format!("/v2/a/manifests/{digest}")).await;
        assert_eq!(response.text().await.unwrap(), document.to_string(), "{tag}");
    }
}

#[tokio::test]
async fn a_large_manifest_passes_and_a_larger_does_not() {
    let server = Server::start().await;
    let mut image = server.image("a", "x").await;
    let padding = |count: usize| {
        (0..count)
            .map(|number| (format!("k{number}"), json!("x".repeat(10_000))))
            .collect::<serde_json::Map<_, _>>()
    };
    image["annotations"] = padding(390).into();
    assert!(image.to_string().len() > 3_900_000);
    let digest = server.push_manifest("a", "large", &image).await;
    let pulled = server.get(&format!("/v2/a/manifests/{digest}")).await.text().await.unwrap();
    assert_eq!(pulled, image.to_string());
    image["annotations"] = padding(850).into();
    let body = image.to_string().into_bytes();
    assert!(body.len() > 8 << 20);
    let response = server.put_manifest("a", "larger", OCI_MANIFEST, &body).await;
    expect_error(response, (413, "MANIFEST_INVALID")).await;
    // The same without a length in advance.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        body.chunks(1 << 20).map(|piece| Ok(piece.to_vec())).collect();
    let response = server
        .request(Method::PUT, "/v2/a/manifests/larger")
        .header("content-type", OCI_MANIFEST)
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)))
        .send()
        .await
        .unwrap();
    expect_error(response, (413, "MANIFEST_INVALID")).await;
    assert_eq!(server.status("/v2/a/manifests/larger").await, 404);
}

#[tokio::test]
async fn a_manifest_needs_what_it_names() {
    let server = Server::start().await;
    let body = manifest(b"{}", b"layer").to_string();
    server.push("elsewhere", b"{}").await;
    server.push("elsewhere", b"layer").await;
    let response = server.put_manifest("a", "v1", OCI_MANIFEST, body.as_bytes()).await;
    expect_error(response, (404, "MANIFEST_BLOB_UNKNOWN")).await;
    assert_eq!(server.status("/v2/a/manifests/v1").await, 404);
    let lonely = index(&[&manifest(b"{}", b"layer")]).to_string();
    let response = server.put_manifest("a", "v2", OCI_INDEX, lonely.as_bytes()).await;
    expect_error(response, (404, "MANIFEST_BLOB_UNKNOWN")).await;
    expect_error(server.get("/v2/a/tags/list").await, (404, "NAME_UNKNOWN")).await;
    // Unless the operator says otherwise.
    let sparse = Server::with(Options { allow_missing: true, ..Options::default() }).await;
    let response = sparse.put_manifest("a", "v1", OCI_MANIFEST, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

/// Sparse images and indexes: what is missing stays missing, and is named in a
/// warning of the specification's form.
#[tokio::test]
async fn what_a_sparse_manifest_misses_is_told() {
    let server = Server::with(Options { allow_missing: true, ..Options::default() }).await;
    let here = server.push_image("a", "here", "x").await;
    let image = server.image("a", "x").await;
    let far = manifest(b"{}", b"layer");
    let sparse = index(&[&image, &far]);
    let body = sparse.to_string();
    let missing = Digest::sha256(far.to_string().as_bytes());
    let response = server.put_manifest("a", "sparse", OCI_INDEX, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "warning"), format!("299 - \"a does not have {missing}\""));
    assert_eq!(server.get("/v2/a/manifests/sparse").await.text().await.unwrap(), body);
    assert_eq!(server.status(&format!("/v2/a/manifests/{here}")).await, 200);
    assert_eq!(server.status(&format!("/v2/a/manifests/{missing}")).await, 404);
    // It may come later; then there is nothing to warn of.
    server.push("a", b"{}").await;
    server.push("a", b"layer").await;
    server.push_manifest("a", "far", &far).await;
    let response = server.put_manifest("a", "sparse", OCI_INDEX, body.as_bytes()).await;
    assert_eq!(header_of(response.headers(), "warning"), None);
    // However much is missing: all warnings together have at most 4096 bytes.
    let children: Vec<_> =
        (0..1000u32).map(|number| manifest(b"{}", &number.to_le_bytes())).collect();
    let all = index(&children.iter().collect::<Vec<_>>()).to_string();
    let response = server.put_manifest("a", "all", OCI_INDEX, all.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(header(&response, "warning").len() < 4096);
}

/// Clients that keep a list under a tag (referrers without our help) must not
/// overwrite each other's.
#[tokio::test]
async fn a_push_may_depend_on_what_the_tag_names() {
    let server = Server::start().await;
    let images = [server.image("a", "1").await, server.image("a", "2").await];
    let [one, two] = images.each_ref().map(|image| Digest::sha256(image.to_string().as_bytes()));
    let put = |tag: &str, number: usize, condition: &'static str, value: String| {
        let request = server
            .request(Method::PUT, &format!("/v2/a/manifests/{tag}"))
            .header("content-type", OCI_MANIFEST)
            .header(condition, value)
            .body(images[number].to_string());
        async move { request.send().await.unwrap() }
    };
    let any = || "*".to_owned();
    let quoted = |digest: &Digest| format!("\"{digest}\"");
    expect_error(put("t", 0, "if-match", any()).await, (412, "DENIED")).await;
    expect_error(server.get("/v2/a/tags/list").await, (404, "NAME_UNKNOWN")).await;
    assert_eq!(put("t", 0, "if-none-match", any()).await.status(), 201);
    expect_error(put("t", 1, "if-none-match", any()).await, (412, "DENIED")).await;
    expect_error(put("t", 1, "if-match", quoted(&two)).await, (412, "DENIED")).await;
    expect_error(put("t", 1, "if-none-match", quoted(&one)).await, (412, "DENIED")).await;
    let tag = server.get("/v2/a/manifests/t").await;
    assert_eq!(header(&tag, "docker-content-digest"), one.to_string());
    // With the entity tag that a GET has given.
    assert_eq!(put("t", 1, "if-match", header(&tag, "etag")).await.status(), 201);
    expect_error(put("t", 0, "if-match", quoted(&one)).await, (412, "DENIED")).await;
    assert_eq!(put("t", 0, "if-none-match", quoted(&one)).await.status(), 201);
    // The same for digests.
    let by_digest = two.to_string();
    expect_error(put(&by_digest, 1, "if-none-match", any()).await, (412, "DENIED")).await;
    assert_eq!(put(&by_digest, 1, "if-match", any()).await.status(), 201);
}

/// Of many that create a tag at once, one does.
#[tokio::test]
async fn a_new_tag_is_made_once() {
    let server = Server::start().await;
    let mut pushes = Vec::new();
    for seed in 0..8 {
        let image = server.image("a", &seed.to_string()).await;
        let request = server
            .request(Method::PUT, "/v2/a/manifests/first")
            .header("content-type", OCI_MANIFEST)
            .header("if-none-match", "*")
            .body(image.to_string());
        pushes.push(tokio::spawn(async move { request.send().await.unwrap() }));
    }
    let mut winners = Vec::new();
    for push in pushes {
        let response = push.await.unwrap();
        match response.status().as_u16() {
            201 => winners.push(header(&response, "docker-content-digest")),
            status => assert_eq!(status, 412),
        }
    }
    let tagged = header(&server.get("/v2/a/manifests/first").await, "docker-content-digest");
    assert_eq!(winners, [tagged]);
}

#[tokio::test]
async fn what_is_not_a_manifest_is_refused() {
    let server = Server::start().await;
    let image = server.image("a", "x").await;
    let mut ambiguous = image.clone();
    ambiguous["manifests"] = json!([]);
    let mut mislabeled = image.clone();
    mislabeled["mediaType"] = OCI_INDEX.into();
    let mut schema1 = image.clone();
    schema1["schemaVersion"] = 1.into();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (name, media_type, body) in [
        ("not JSON", OCI_MANIFEST, "garbage".to_owned()),
        ("empty", OCI_MANIFEST, String::new()),
        ("an array", OCI_MANIFEST, "[]".to_owned()),
        ("deep", OCI_MANIFEST, deep),
        ("layers and manifests", OCI_MANIFEST, ambiguous.to_string()),
        ("type and content type differ", OCI_MANIFEST, mislabeled.to_string()),
        ("schema 1", OCI_MANIFEST, schema1.to_string()),
        ("another content type", "text/plain", image.to_string()),
        ("no content type at all", "nonsense", image.to_string()),
        (
            "docker's type around OCI's",
            "application/vnd.docker.distribution.manifest.v2+json",
            image.to_string(),
        ),
        ("a short digest", OCI_MANIFEST, image.to_string().replacen("sha256:", "sha256:0", 1)),
    ] {
        let response = server.put_manifest("a", "v1", media_type, body.as_bytes()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{name}");
        expect_error(response, (400, "MANIFEST_INVALID")).await;
    }
    assert_eq!(server.status("/v2/a/manifests/v1").await, 404);
}

#[tokio::test]
async fn a_digest_in_the_url_is_checked() {
    let server = Server::start().await;
    let body = server.image("a", "x").await.to_string();
    let digest = Digest::sha256(body.as_bytes());
    let trailing = format!("{body} ");
    let response =
        server.put_manifest("a", &digest.to_string(), OCI_MANIFEST, trailing.as_bytes()).await;
    expect_error(response, (400, "DIGEST_INVALID")).await;
    let response = server.put_manifest("a", "sha256:baddigest", OCI_MANIFEST, b"{}").await;
    expect_error(response, (400, "DIGEST_INVALID")).await;
    expect_error(server.get("/v2/a/manifests/sha256:baddigest").await, (400, "DIGEST_INVALID"))
        .await;
    let sha512 = Digest::sha512(body.as_bytes());
    let response =
        server.put_manifest("a", &sha512.to_string(), OCI_MANIFEST, body.as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "docker-content-digest"), sha512.to_string());
    let response = server.get(&format!("/v2/a/manifests/{sha512}")).await;
    assert_eq!(header(&response, "docker-content-digest"), sha512.to_string());
    assert_eq!(server.status(&format!("/v2/a/manifests/{digest}")).await, 404);
}

#[tokio::test]
async fn a_push_by_digest_sets_tags() {
    let server = Server::start().await;
    let body = server.image("a", "x").await.to_string();
    let digest = Digest::sha512(body.as_bytes());
    let tags: Vec<String> = (0..12).map(|number| format!("t{number:02}")).collect();
    let query = tags.iter().map(|tag| format!("tag={tag}")).collect::<Vec<_>>().join("&");
    let put = |reference: String| {
        let body = body.clone();
        let server = &server;
        async move { server.put_manifest("a", &reference, OCI_MANIFEST, body.as_bytes()).await }
    };
    let response = put(format!("{digest}?{query}")).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "oci-tag"), tags.join(", "));
    assert_eq!(server.tags("a").await, tags);
    for tag in &tags {
        let response = server.get(&format!("/v2/a/manifests/{tag}")).await;
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
    }
    let many = (0..65).map(|number| format!("tag=m{number}")).collect::<Vec<_>>().join("&");
    expect_error(put(format!("{digest}?{many}")).await, (414, "MANIFEST_INVALID")).await;
    expect_error(put(format!("{digest}?tag=-x")).await, (400, "MANIFEST_INVALID")).await;
    expect_error(put("x?tag=y".to_owned()).await, (400, "MANIFEST_INVALID")).await;
    assert_eq!(server.tags("a").await, tags);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_along() {
    let server = Server::start().await;
    let old = server.push_image("a", "old", "1").await;
    server.push_image("a", "alias", "1").await;
    server.push_image("a", "moved", "1").await;
    let new = server.push_image("a", "moved", "2").await;
    let path = format!("/v2/a/manifests/{old}");
    assert_eq!(server.delete(&path).await.status(), StatusCode::ACCEPTED);
    expect_error(server.get(&path).await, (404, "MANIFEST_UNKNOWN")).await;
    expect_error(server.delete(&path).await, (404, "MANIFEST_UNKNOWN")).await;
    assert_eq!(server.tags("a").await, ["moved"]);
    let response = server.get("/v2/a/manifests/moved").await;
    assert_eq!(header(&response, "docker-content-digest"), new.to_string());
    // It can come back.
    assert_eq!(server.push_image("a", "old", "1").await, old);
    assert_eq!(server.status(&path).await, 200);
}

#[tokio::test]
async fn a_deleted_tag_takes_nothing_along() {
    let server = Server::start().await;
    let digest = server.push_image("a", "one", "x").await;
    server.push_image("a", "two", "x").await;
    assert_eq!(server.delete("/v2/a/manifests/one").await.status(), StatusCode::ACCEPTED);
    expect_error(server.get("/v2/a/manifests/one").await, (404, "MANIFEST_UNKNOWN")).await;
    expect_error(server.delete("/v2/a/manifests/one").await, (404, "MANIFEST_UNKNOWN")).await;
    assert_eq!(server.status("/v2/a/manifests/two").await, 200);
    assert_eq!(server.status(&format!("/v2/a/manifests/{digest}")).await, 200);
    assert_eq!(server.status(&format!("/v2/a/blobs/{}", Digest::sha256(b"layer x"))).await, 200);
}

/// The cache of one replica knows what another has deleted or moved.
#[tokio::test]
async fn replicas_agree_at_once() {
    let server = Server::start().await;
    let other = server.another().await;
    let first = server.push_image("a", "v1", "1").await;
    let path = format!("/v2/a/manifests/{first}");
    for replica in [&server, &other] {
        assert_eq!(replica.status(&path).await, 200);
        assert_eq!(replica.status("/v2/a/manifests/v1").await, 200);
    }
    let second = server.push_image("a", "v1", "2").await;
    let response = other.get("/v2/a/manifests/v1").await;
    assert_eq!(header(&response, "docker-content-digest"), second.to_string());
    assert_eq!(other.delete(&path).await.status(), 202);
    assert_eq!(server.status(&path).await, 404);
    // The same manifest in another repository is another right.
    server.push_image("b", "v1", "1").await;
    assert_eq!(server.status(&format!("/v2/b/manifests/{first}")).await, 200);
    assert_eq!(server.status(&path).await, 404);
}

#[tokio::test]
async fn an_untyped_manifest_is_told_by_its_content_type() {
    let server = Server::start().await;
    let mut image = server.image("a", "x").await;
    image.as_object_mut().unwrap().remove("mediaType");
    let response = server.put_manifest("a", "v1", OCI_MANIFEST, image.to_string().as_bytes()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&server.get("/v2/a/manifests/v1").await, "content-type"), OCI_MANIFEST);
    let config = image["config"]["mediaType"].as_str().unwrap();
    assert_eq!(config, OCI_CONFIG);
}
