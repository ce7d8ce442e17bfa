//! What implementations get wrong across endpoints: names, digests, errors.

use oci::Digest;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{
    OCI_INDEX, OCI_MANIFEST, Server, descriptor, expect_error, header, index, with_query,
};

/// The codes of distribution-spec, "Error Codes".
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// distribution 3 answers some of these with 500.
#[tokio::test]
async fn a_bad_digest_is_400_wherever_it_stands() {
    let server = Server::start().await;
    server.push_image("a", "v1", "x").await;
    let upload = server.begin("a").await;
    let hex = Digest::sha256(b"").hex();
    for digest in [
        "sha256:baddigeststring",
        "sha256:",
        &format!("sha256:{}", hex.to_uppercase()),
        &format!("sha256:{hex}0"),
        &format!("sha512:{hex}"),
        &format!("md5:{hex}"),
        &format!("SHA256:{hex}"),
        ":",
    ] {
        for (method, path) in [
            (Method::GET, format!("/v2/a/blobs/{digest}")),
            (Method::DELETE, format!("/v2/a/blobs/{digest}")),
            (Method::GET, format!("/v2/a/manifests/{digest}")),
            (Method::PUT, format!("/v2/a/manifests/{digest}")),
            (Method::DELETE, format!("/v2/a/manifests/{digest}")),
            (Method::GET, format!("/v2/a/referrers/{digest}")),
            (Method::POST, format!("/v2/a/blobs/uploads/?digest={digest}")),
            (Method::POST, format!("/v2/a/blobs/uploads/?mount={digest}&from=b")),
            (Method::PUT, with_query(&upload, &format!("digest={digest}"))),
        ] {
            let request = server.request(method.clone(), &path).body("{}");
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{method} {path}");
            expect_error(response, (400, "DIGEST_INVALID")).await;
            assert_eq!(server.head(&path).await.text().await.unwrap(), "");
        }
    }
    assert_eq!(server.status(&upload).await, 204, "the upload lives");
}

/// Clients parse the body of every refusal, and know fourteen codes.
#[tokio::test]
async fn errors_have_the_specifications_form() {
    let server = Server::start().await;
    server.push_image("a", "v1", "x").await;
    let upload = server.begin("a").await;
    let digest = Digest::sha256(b"nobody");
    for (method, path) in [
        (Method::GET, "/".to_owned()),
        (Method::GET, "/v2/nothing".to_owned()),
        (Method::GET, "/v1/_ping".to_owned()),
        (Method::GET, "/v2/A/tags/list".to_owned()),
        (Method::GET, "/v2/b/tags/list".to_owned()),
        (Method::GET, "/v2/a/tags/list?n=x".to_owned()),
        (Method::GET, "/v2/a/tags/list?last=%zz".to_owned()),
        (Method::GET, format!("/v2/a/blobs/{digest}")),
        (Method::PUT, format!("/v2/a/blobs/{digest}")),
        (Method::GET, "/v2/a/manifests/v2".to_owned()),
        (Method::GET, "/v2/a/manifests/-".to_owned()),
        (Method::PUT, "/v2/a/manifests/-".to_owned()),
        (Method::PUT, "/v2/a/manifests/v1".to_owned()),
        (Method::DELETE, "/v2/a/manifests/v2".to_owned()),
        (Method::DELETE, "/v2/nobody/manifests/v1".to_owned()),
        (Method::PUT, upload.clone()),
        (Method::GET, upload.replace("/v2/a/", "/v2/b/")),
        (Method::GET, "/v2/a/blobs/uploads/nonsense".to_owned()),
        (Method::POST, "/v2/a/blobs/uploads/?digest-algorithm=crc32".to_owned()),
        (Method::DELETE, "/v2/".to_owned()),
    ] {
        let response = server.request(method.clone(), &path).body("{").send().await.unwrap();
        let status = response.status();
        assert!(status.is_client_error(), "{method} {path}: {status}");
        assert_eq!(header(&response, "content-type"), "application/json", "{path}");
        assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
        let length: usize = header(&response, "content-length").parse().unwrap();
        let text = response.text().await.unwrap();
        assert_eq!(text.len(), length);
        let body: Value = serde_json::from_str(&text).unwrap();
        let errors = body["errors"].as_array().unwrap();
        assert_eq!((body.as_object().unwrap().len(), errors.len()), (1, 1), "{text}");
        assert!(CODES.contains(&errors[0]["code"].as_str().unwrap()), "{text}");
        assert!(!errors[0]["message"].as_str().unwrap().is_empty(), "{text}");
    }
}

/// Routes that are matched from the left lose these.
#[tokio::test]
async fn repositories_named_like_endpoints_live_a_full_life() {
    let server = Server::start().await;
    let names = [
        "blobs",
        "blobs/uploads",
        "a/blobs/uploads",
        "a/blobs/uploads/x",
        "manifests",
        "a/manifests/latest",
        "tags/list",
        "a/tags/list",
        "referrers",
        "v2",
        "v2/a/blobs",
        "uploads",
    ];
    for name in names {
        let digest = server.push_image(name, "tags", name).await;
        server.push_image(name, "uploads", name).await;
        assert_eq!(server.tags(name).await, ["tags", "uploads"], "{name}");
        let manifest = format!("/v2/{name}/manifests/{digest}");
        let blob =
            format!("/v2/{name}/blobs/{}", Digest::sha256(format!("layer {name}").as_bytes()));
        for path in [&manifest, &blob, &format!("/v2/{name}/referrers/{digest}")] {
            assert_eq!(server.status(path).await, 200, "{path}");
        }
        assert_eq!(server.delete(&manifest).await.status(), 202);
        assert_eq!(server.delete(&blob).await.status(), 202);
        assert_eq!(server.tags(name).await, [""; 0], "{name}");
    }
}

/// The fallback tag of a sha512 digest keeps 64 of its 128 digits.
#[tokio::test]
async fn the_fallback_tag_of_a_long_digest_is_cut() {
    let server = Server::start().await;
    let image = server.image("a", "x").await;
    server.push_manifest("a", "v1", &image).await;
    let subject = Digest::sha512(b"subject");
    let tag = format!("sha512-{}", &subject.hex()[..64]);
    server.push_manifest("a", &tag, &index(&[&image])).await;
    let response = server.get(&format!("/v2/a/referrers/{subject}")).await;
    let body: Value = response.json().await.unwrap();
    let expected = descriptor(OCI_MANIFEST, image.to_string().as_bytes());
    assert_eq!(body["manifests"], Value::from(vec![expected]));
}

/// A manifest is returned as it is stored: clients that do not accept its type
/// see which one it is.
#[tokio::test]
async fn accept_does_not_change_a_manifest() {
    let server = Server::start().await;
    let image = server.image("a", "x").await;
    server.push_manifest("a", "image", &image).await;
    server.push_manifest("a", "index", &index(&[&image])).await;
    for (tag, media_type) in [("image", OCI_MANIFEST), ("index", OCI_INDEX)] {
        let path = format!("/v2/a/manifests/{tag}");
        let plain = server.get(&path).await;
        assert_eq!(header(&plain, "content-type"), media_type);
        let body = plain.bytes().await.unwrap();
        for accept in [
            "*/*",
            "application/json",
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "application/vnd.oci.image.manifest.v1+json;q=0.5, text/plain",
            "nonsense",
        ] {
            let request = server.request(Method::GET, &path).header("accept", accept);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{accept}");
            assert_eq!(header(&response, "content-type"), media_type);
            assert_eq!(response.bytes().await.unwrap(), body);
        }
    }
}
