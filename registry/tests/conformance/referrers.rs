//! Referrers: listed, filtered, paged, deleted, and found under fallback tags.

use std::collections::BTreeSet;

use oci::Digest;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{
    OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Server, descriptor, expect_error, header, header_of, index,
};

async fn list(server: &Server, path: &str) -> (Vec<Value>, Response) {
    let response = server.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(header(&response, "content-type"), OCI_INDEX);
    let headers = response.headers().clone();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["schemaVersion"], &body["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    let entries = body["manifests"].as_array().unwrap().clone();
    let mut response = server.head(path).await;
    *response.headers_mut() = headers;
    (entries, response)
}

fn artifact(subject: &Value, artifact_type: Option<&str>, seed: &str) -> Value {
    let mut artifact = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_EMPTY, b"{}"), "layers": [], "subject": subject,
        "annotations": { "seed": seed },
    });
    if let Some(artifact_type) = artifact_type {
        artifact["artifactType"] = artifact_type.into();
    }
    artifact
}

#[tokio::test]
async fn referrers_are_listed_with_type_and_annotations() {
    let server = Server::start().await;
    let image = server.image("a", "x").await;
    let subject = descriptor(OCI_MANIFEST, image.to_string().as_bytes());
    let digest = Digest::sha256(image.to_string().as_bytes());
    server.push("a", b"{}").await;
    let path = format!("/v2/a/referrers/{digest}");
    // Nothing yet, not even the subject: an empty list.
    assert_eq!(list(&server, &path).await.0.len(), 0);
    let typed = artifact(&subject, Some("application/sbom"), "1");
    let untyped = artifact(&subject, None, "2");
    let mut indexed = index(&[]);
    indexed["subject"] = subject.clone();
    let mut expected = BTreeSet::new();
    for (document, artifact_type) in
        [(&typed, Some("application/sbom")), (&untyped, Some(OCI_EMPTY)), (&indexed, None)]
    {
        let body = document.to_string();
        let media_type = document["mediaType"].as_str().unwrap();
        let pushed = Digest::sha256(body.as_bytes());
        let response =
            server.put_manifest("a", &pushed.to_string(), media_type, body.as_bytes()).await;
        assert_eq!(response.status(), 201);
        assert_eq!(header(&response, "oci-subject"), digest.to_string());
        let mut entry = descriptor(media_type, body.as_bytes());
        if let Some(artifact_type) = artifact_type {
            entry["artifactType"] = artifact_type.into();
        }
        if document.get("annotations").is_some() {
            entry["annotations"] = document["annotations"].clone();
        }
        expected.insert(sorted(&entry));
    }
    let (entries, response) = list(&server, &path).await;
    assert_eq!(entries.iter().map(sorted).collect::<BTreeSet<_>>(), expected);
    assert_eq!(header_of(response.headers(), "oci-filters-applied"), None);
    // The subject need not exist; now it does, and nothing changes.
    server.push_manifest("a", "v1", &image).await;
    assert_eq!(list(&server, &path).await.0.len(), 3);

    let (entries, response) = list(&server, &format!("{path}?artifactType=application/sbom")).await;
    assert_eq!(header(&response, "oci-filters-applied"), "artifactType");
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["artifactType"], "application/sbom");
    let (entries, _) = list(&server, &format!("{path}?artifactType=application%2Fnone")).await;
    assert_eq!(entries.len(), 0);

    let gone = Digest::sha256(typed.to_string().as_bytes());
    assert_eq!(server.delete(&format!("/v2/a/manifests/{gone}")).await.status(), 202);
    assert_eq!(list(&server, &path).await.0.len(), 2);
    // Other repositories know nothing of it.
    assert_eq!(list(&server, &format!("/v2/b/referrers/{digest}")).await.0.len(), 0);
}

/// Returns a JSON object as text with its keys in order.
fn sorted(value: &Value) -> String {
    let object: std::collections::BTreeMap<_, _> = value.as_object().unwrap().iter().collect();
    serde_json::to_string(&object).unwrap()
}

#[tokio::test]
async fn only_a_bad_digest_is_an_error() {
    let server = Server::start().await;
    let digest = Digest::sha512(b"nothing");
    assert_eq!(list(&server, &format!("/v2/never/pushed/referrers/{digest}")).await.0.len(), 0);
    let response = server.get("/v2/a/referrers/sha256:bad").await;
    expect_error(response, (400, "DIGEST_INVALID")).await;
}

#[tokio::test]
async fn many_referrers_come_in_pages() {
    let server = Server::start().await;
    server.push("a", b"{}").await;
    let subject = descriptor(OCI_MANIFEST, b"subject");
    let digest = Digest::sha256(b"subject");
    // Annotations of a megabyte each: four fill more than one page.
    let large = "x".repeat(1 << 20);
    for seed in ["1", "2", "3", "4", "5"] {
        let mut artifact = artifact(&subject, Some("application/x"), seed);
        artifact["annotations"]["large"] = large.clone().into();
        server.push_manifest("a", seed, &artifact).await;
    }
    let mut seen = BTreeSet::new();
    let mut next = Some(format!("/v2/a/referrers/{digest}?artifactType=application/x"));
    let mut pages = 0;
    while let Some(path) = next {
        let (entries, response) = list(&server, &path).await;
        assert!(header(&response, "oci-filters-applied") == "artifactType");
        for entry in entries {
            assert!(seen.insert(entry["digest"].to_string()), "listed twice");
        }
        next = header_of(response.headers(), "link")
            .map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
        pages += 1;
    }
    assert_eq!((seen.len(), pages), (5, 2));
}

/// Media types have plus signs, and not every client encodes them: where a plus
/// is taken for a space, as in forms, the filter finds nothing.
#[tokio::test]
async fn a_filter_may_have_a_plus_sign() {
    let server = Server::start().await;
    server.push("a", b"{}").await;
    let subject = descriptor(OCI_MANIFEST, b"subject");
    let digest = Digest::sha256(b"subject");
    let sbom = artifact(&subject, Some("application/spdx+json"), "1");
    server.push_manifest("a", "sbom", &sbom).await;
    for query in ["application/spdx+json", "application%2Fspdx%2Bjson"] {
        let path = format!("/v2/a/referrers/{digest}?artifactType={query}");
        let (entries, response) = list(&server, &path).await;
        assert_eq!(entries.len(), 1, "{query}");
        assert_eq!(entries[0]["artifactType"], "application/spdx+json");
        assert_eq!(header(&response, "oci-filters-applied"), "artifactType");
    }
}

/// What clients have recorded by tag, where no registry did it for them.
#[tokio::test]
async fn the_fallback_tag_is_part_of_the_list() {
    let server = Server::start().await;
    server.push("a", b"{}").await;
    let subject = descriptor(OCI_MANIFEST, b"subject");
    let digest = Digest::sha256(b"subject");
    // Pushed without `subject` and listed under the tag by its client.
    let mut by_tag = artifact(&subject, Some("application/x"), "tag");
    by_tag.as_object_mut().unwrap().remove("subject");
    server.push_manifest("a", "by-tag", &by_tag).await;
    let by_api = artifact(&subject, Some("application/y"), "api");
    server.push_manifest("a", "by-api", &by_api).await;
    let mut fallback = index(&[&by_tag, &by_api]);
    fallback["manifests"][0]["artifactType"] = "application/x".into();
    server.push_manifest("a", &format!("sha256-{}", digest.hex()), &fallback).await;
    let path = format!("/v2/a/referrers/{digest}");
    assert_eq!(list(&server, &path).await.0.len(), 2, "one of each, none twice");
    let (entries, _) = list(&server, &format!("{path}?artifactType=application/x")).await;
    assert_eq!(entries.len(), 1);
    // A client that deletes a manifest leaves the tag as it is.
    let gone = Digest::sha256(by_tag.to_string().as_bytes());
    assert_eq!(server.delete(&format!("/v2/a/manifests/{gone}")).await.status(), 202);
    let (entries, _) = list(&server, &path).await;
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0]["artifactType"], "application/y");
    // A tag of that form that is no index does no harm.
    let other = Digest::sha256(b"other");
    server.push_manifest("a", &format!("sha256-{}", other.hex()), &by_tag).await;
    assert_eq!(list(&server, &format!("/v2/a/referrers/{other}")).await.0.len(), 0);
}
