//! Artifacts as ORAS and cosign use them: their requests, one after the other, over plain HTTP.

use oci::Digest;
use serde_json::{Value, json};

use crate::support::{OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Server, descriptor, header};

const SBOM: &str = "application/vnd.example.sbom.v1";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Pushes a blob as ORAS does: it looks first, and sends nothing that is there.
async fn ensure(server: &Server, repository: &str, bytes: &[u8]) -> bool {
    let digest = Digest::sha256(bytes);
    let missing = server.head(&format!("/v2/{repository}/blobs/{digest}")).await.status() == 404;
    if missing {
        assert_eq!(server.push(repository, bytes).await, digest);
    }
    missing
}

/// A packed artifact (`oras push --artifact-type`), image-spec, "Guidelines for Artifact Usage".
fn artifact(artifact_type: &str, files: &[(&str, &[u8])], subject: Option<&Value>) -> Value {
    let layers: Vec<Value> = files
        .iter()
        .map(|(title, bytes)| {
            let mut layer = descriptor("application/vnd.oci.image.layer.v1.tar", bytes);
            layer["annotations"] = json!({ "org.opencontainers.image.title": title });
            layer
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
        "config": descriptor(OCI_EMPTY, b"{}"), "layers": layers,
        "annotations": { "org.opencontainers.image.created": "2026-01-02T03:04:05Z" },
    });
    if let Some(subject) = subject {
        manifest["subject"] = subject.clone();
    }
    manifest
}

async fn referrers(server: &Server, repository: &str, subject: &Digest, query: &str) -> Vec<Value> {
    let response = server.get(&format!("/v2/{repository}/referrers/{subject}{query}")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), OCI_INDEX);
    let index: Value = response.json().await.unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn oras_pushes_attaches_discovers_and_copies() {
    let server = Server::start().await;
    // oras push localhost/tools/app:1 a.txt
    assert!(ensure(&server, "tools/app", b"text").await);
    assert!(ensure(&server, "tools/app", b"{}").await);
    let app = artifact("application/vnd.example.app", &[("a.txt", b"text")], None);
    let digest = server.push_manifest("tools/app", "1", &app).await;
    // oras attach --artifact-type … localhost/tools/app:1 sbom.json: the empty config is there.
    let subject = descriptor(OCI_MANIFEST, app.to_string().as_bytes());
    assert!(ensure(&server, "tools/app", b"[]").await);
    assert!(!ensure(&server, "tools/app", b"{}").await);
    let sbom = artifact(SBOM, &[("sbom.json", b"[]")], Some(&subject));
    let text = sbom.to_string();
    let by_digest = Digest::sha256(text.as_bytes()).to_string();
    let attached =
        server.put_manifest("tools/app", &by_digest, OCI_MANIFEST, text.as_bytes()).await;
    assert_eq!(attached.status(), 201);
    // Without this header ORAS would write the fallback tag itself.
    assert_eq!(header(&attached, "oci-subject"), digest.to_string());
    assert_eq!(server.tags("tools/app").await, ["1"]);
    // oras discover: all, then one type.
    let found = referrers(&server, "tools/app", &digest, "").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["artifactType"], SBOM);
    assert_eq!(found[0]["digest"], by_digest);
    assert_eq!(found[0]["annotations"], sbom["annotations"]);
    let other = referrers(&server, "tools/app", &digest, "?artifactType=application/other").await;
    assert!(other.is_empty());
    // oras copy -r localhost/tools/app:1 localhost/mirror:1: blobs are mounted, referrers follow.
    for bytes in [&b"text"[..], b"{}", b"[]"] {
        let blob = Digest::sha256(bytes);
        let mount = format!("/v2/mirror/blobs/uploads/?mount={blob}&from=tools/app");
        assert_eq!(server.post(&mount).await.status(), 201);
    }
    server.push_manifest("mirror", "1", &app).await;
    server.push_manifest("mirror", &by_digest, &sbom).await;
    assert_eq!(referrers(&server, "mirror", &digest, "").await, found);
    // oras pull finds files by their titles.
    let manifest: Value = server.get("/v2/mirror/manifests/1").await.json().await.unwrap();
    let layer = &manifest["layers"][0];
    assert_eq!(layer["annotations"]["org.opencontainers.image.title"], "a.txt");
    let file = server.get(&format!("/v2/mirror/blobs/{}", layer["digest"].as_str().unwrap())).await;
    assert_eq!(file.bytes().await.unwrap(), "text");
}

#[tokio::test]
async fn cosign_signs_attests_and_verifies_under_tags() {
    let server = Server::start().await;
    let image = server.push_image("app", "v1", "signed").await;
    let tag = |suffix: &str| format!("sha256-{}.{suffix}", image.hex());
    let path = |suffix: &str| format!("/v2/app/manifests/{}", tag(suffix));
    // cosign sign looks for earlier signatures, and then writes all of them anew.
    for round in 1..=2 {
        assert_eq!(server.head(&path("sig")).await.status(), if round == 1 { 404 } else { 200 });
        let payloads: Vec<String> = (0..round)
            .map(|number| {
                let image = json!({ "docker-manifest-digest": image });
                json!({ "critical": { "image": image }, "optional": number }).to_string()
            })
            .collect();
        let mut layers = Vec::new();
        for payload in &payloads {
            ensure(&server, "app", payload.as_bytes()).await;
            let mut layer = descriptor(SIMPLE_SIGNING, payload.as_bytes());
            layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": "MEUCIQ==" });
            layers.push(layer);
        }
        let config = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":[{round}]}}}}"#);
        ensure(&server, "app", config.as_bytes()).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config.as_bytes()), "layers": layers,
        });
        server.push_manifest("app", &tag("sig"), &manifest).await;
        // cosign verify reads them back.
        let signatures: Value = server.get(&path("sig")).await.json().await.unwrap();
        assert_eq!(signatures, manifest);
        for (layer, payload) in signatures["layers"].as_array().unwrap().iter().zip(&payloads) {
            let blob = format!("/v2/app/blobs/{}", layer["digest"].as_str().unwrap());
            assert_eq!(server.get(&blob).await.bytes().await.unwrap(), payload.as_bytes());
        }
    }
    // cosign tree asks for what else there is; attestations and SBOMs have tags of their own.
    for suffix in ["att", "sbom"] {
        assert_eq!(server.head(&path(suffix)).await.status(), 404);
    }
    assert_eq!(server.tags("app").await, [tag("sig"), "v1".to_owned()]);
    // cosign clean takes the signatures away, and leaves the image.
    let signatures = header(&server.head(&path("sig")).await, "docker-content-digest");
    let deleted = server.delete(&format!("/v2/app/manifests/{signatures}")).await;
    assert_eq!(deleted.status(), 202);
    assert_eq!(server.tags("app").await, ["v1"]);
    assert_eq!(server.status(&format!("/v2/app/manifests/{image}")).await, 200);
}

#[tokio::test]
async fn cosign_finds_bundles_as_referrers() {
    let server = Server::start().await;
    let image = server.image("app", "signed").await;
    let subject = descriptor(OCI_MANIFEST, image.to_string().as_bytes());
    let digest = server.push_manifest("app", "v1", &image).await;
    // cosign verify asks before anything is signed: an empty list, not an error.
    assert!(referrers(&server, "app", &digest, "").await.is_empty());
    let bundle = br#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}"#;
    ensure(&server, "app", bundle).await;
    ensure(&server, "app", b"{}").await;
    let mut manifest = artifact(BUNDLE, &[], Some(&subject));
    manifest["layers"] = json!([descriptor(BUNDLE, bundle)]);
    manifest["annotations"]["dev.sigstore.bundle.content"] = "message-signature".into();
    let name = Digest::sha256(manifest.to_string().as_bytes());
    assert_eq!(server.push_manifest("app", &name.to_string(), &manifest).await, name);
    let query = format!("?artifactType={}", BUNDLE.replace('+', "%2B"));
    let found = referrers(&server, "app", &digest, &query).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], name.to_string());
    assert_eq!(found[0]["annotations"]["dev.sigstore.bundle.content"], "message-signature");
    // A signature is no image: nobody is shown a tag.
    assert_eq!(server.tags("app").await, ["v1"]);
}
