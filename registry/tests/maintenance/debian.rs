//! Imports from docker's own registry, of Debian's package. `make check` leaves
//! these out: `make test` installs it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci::Digest;
use serde_json::Value;

use crate::migrate::{migrate, serve};
use crate::program::root;
use crate::support::{OCI_MANIFEST, client, descriptor, index, manifest, noise};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// docker's registry, until it is dropped.
struct DockerRegistry {
    child: Child,
    url: String,
}

impl DockerRegistry {
    async fn start(directory: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.with_extension("yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}'}}\n",
            directory.display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Self { child, url: format!("http://127.0.0.1:{port}") };
        let begun = Instant::now();
        while client().get(format!("{}/v2/", registry.url)).send().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(30), "docker-registry does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        registry
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let begun =
            client().post(format!("{}/v2/{repository}/blobs/uploads/", self.url)).send().await;
        let location = begun.unwrap().headers()["location"].to_str().unwrap().to_owned();
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", Digest::sha256(bytes));
        let put = client().put(url).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(put.status(), 201);
    }

    async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Digest {
        let body = manifest.to_string();
        let put = client()
            .put(format!("{}/v2/{repository}/manifests/{reference}", self.url))
            .header("content-type", manifest["mediaType"].as_str().unwrap())
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
        Digest::sha256(body.as_bytes())
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn the_folder_of_a_real_registry_comes_whole() {
    let from = tempfile::tempdir().unwrap();
    let folder = from.path().join("storage");
    let theirs = DockerRegistry::start(&folder).await;
    let layer = noise(3_000_000, 5);
    for repository in ["library/app", "team/app/deep"] {
        for bytes in [&b"{}"[..], &layer] {
            theirs.push_blob(repository, bytes).await;
        }
    }
    let image = manifest(b"{}", &layer);
    let mut docker = image.clone();
    docker["mediaType"] = DOCKER_MANIFEST.into();
    docker["config"] = descriptor("application/vnd.docker.container.image.v1+json", b"{}");
    docker["layers"][0] = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", &layer);
    let digest = theirs.push_manifest("library/app", "v1", &image).await;
    theirs.push_manifest("library/app", "latest", &image).await;
    theirs.push_manifest("library/app", "docker", &docker).await;
    let multi = theirs.push_manifest("library/app", "multi", &index(&[&image, &docker])).await;
    theirs.push_manifest("team/app/deep", "v1", &image).await;
    // A revision that was deleted stays behind as a directory.
    let mut gone = image.clone();
    gone["annotations"] = serde_json::json!({ "a": "b" });
    let gone = theirs.push_manifest("library/app", "gone", &gone).await;
    let url = format!("{}/v2/library/app/manifests/{gone}", theirs.url);
    assert_eq!(client().delete(url).send().await.unwrap().status(), 202);
    drop(theirs);
    let to = tempfile::tempdir().unwrap();
    let ran = migrate(&folder, &to, &[]);
    let expected = "imported 4 manifests, 5 tags and 2 blobs (3.0 MB) from 2 repositories; \
        2 blobs shared, 2 there already, 0 tags left alone: all is well\n";
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), expected), "{}", ran.err);
    let text = root(&to);
    let verified = crate::program::rregistry(&["verify", "--root", text.to_str().unwrap()]);
    assert_eq!(verified.code, Some(0), "{}", verified.out);
    let ours = serve(to).await;
    assert_eq!(ours.tags("library/app").await, ["docker", "latest", "multi", "v1"]);
    assert_eq!(ours.tags("team/app/deep").await, ["v1"]);
    let pulled = ours.get(&format!("/v2/library/app/manifests/{digest}")).await;
    assert_eq!(pulled.headers()["content-type"], OCI_MANIFEST);
    assert_eq!(pulled.text().await.unwrap(), image.to_string());
    let pulled = ours.get("/v2/library/app/manifests/docker").await;
    assert_eq!(pulled.headers()["content-type"], DOCKER_MANIFEST);
    assert_eq!(ours.status(&format!("/v2/library/app/manifests/{multi}")).await, 200);
    assert_eq!(ours.status(&format!("/v2/library/app/manifests/{gone}")).await, 404);
    let blob = ours.get(&format!("/v2/team/app/deep/blobs/{}", Digest::sha256(&layer))).await;
    assert!(blob.bytes().await.unwrap() == layer);
}
