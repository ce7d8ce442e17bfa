//! `kill -9` in the middle of pushes: what was acknowledged is there, what is
//! served is whole, what was begun can be continued.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use oci::Digest;
use serde_json::Value;

use crate::support::process::Process;
use crate::support::{OCI_MANIFEST, client, manifest, noise, verify_blobs};

/// How often the registry is killed; `make soak` asks for more.
const ROUNDS: u64 = 8;
const CLIENTS: u64 = 4;

/// What clients were told is stored.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(String, Digest)>,
    tags: Vec<(String, String, Digest)>,
}

/// Pushes images until the registry goes away.
async fn push_until_it_breaks(url: String, seed: u64, acknowledged: Arc<Mutex<Acknowledged>>) {
    let http = client();
    let repository = format!("team{}/app", seed % 3);
    for turn in 0.. {
        let size = [10, 3_000, 150_000, 12_000_000][usize::try_from((seed + turn) % 4).unwrap()];
        let layer = noise(size, seed * 1_000 + turn);
        let config = format!(r#"{{"seed":{seed},"turn":{turn}}}"#).into_bytes();
        for bytes in [&layer, &config] {
            let digest = Digest::sha256(bytes);
            let Ok(begun) = http.post(format!("{url}/v2/{repository}/blobs/uploads/")).send().await
            else {
                return;
            };
            let location = begun.headers()["location"].to_str().unwrap().to_owned();
            let half = bytes.len() / 2;
            let patched =
                http.patch(format!("{url}{location}")).body(bytes[..half].to_vec()).send().await;
            if patched.is_err() {
                return;
            }
            let put = http
                .put(format!("{url}{location}?digest={digest}"))
                .body(bytes[half..].to_vec())
                .send()
                .await;
            match put {
                Ok(response) => assert_eq!(response.status(), 201),
                Err(_) => return,
            }
            acknowledged.lock().unwrap().blobs.push((repository.clone(), digest));
        }
        let body = manifest(&config, &layer).to_string();
        let tag = format!("s{seed}-{turn}");
        let put = http
            .put(format!("{url}/v2/{repository}/manifests/{tag}"))
            .header("content-type", OCI_MANIFEST)
            .body(body.clone())
            .send()
            .await;
        match put {
            Ok(response) => assert_eq!(response.status(), 201),
            Err(_) => return,
        }
        let digest = Digest::sha256(body.as_bytes());
        acknowledged.lock().unwrap().tags.push((repository.clone(), tag, digest));
    }
}

async fn check(url: &str, acknowledged: &Acknowledged) {
    let http = client();
    for (repository, digest) in &acknowledged.blobs {
        let response =
            http.get(format!("{url}/v2/{repository}/blobs/{digest}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "blob {digest} was acknowledged");
        assert_eq!(Digest::sha256(&response.bytes().await.unwrap()), *digest);
    }
    for (repository, tag, digest) in &acknowledged.tags {
        let response =
            http.get(format!("{url}/v2/{repository}/manifests/{tag}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "tag {tag} was acknowledged");
        assert_eq!(Digest::sha256(&response.bytes().await.unwrap()), *digest);
    }
    // Whatever else is listed, acknowledged or not, is whole.
    let catalog: Value =
        http.get(format!("{url}/v2/_catalog")).send().await.unwrap().json().await.unwrap();
    for repository in catalog["repositories"].as_array().unwrap() {
        let repository = repository.as_str().unwrap();
        let list = format!("{url}/v2/{repository}/tags/list");
        let tags: Value = http.get(list).send().await.unwrap().json().await.unwrap();
        for tag in tags["tags"].as_array().unwrap() {
            let tag = tag.as_str().unwrap();
            let response =
                http.get(format!("{url}/v2/{repository}/manifests/{tag}")).send().await.unwrap();
            assert_eq!(response.status(), 200, "{tag} is listed");
            let body: Value = response.json().await.unwrap();
            for digest in [&body["config"]["digest"], &body["layers"][0]["digest"]] {
                let digest = digest.as_str().unwrap();
                let blob = format!("{url}/v2/{repository}/blobs/{digest}");
                assert_eq!(
                    http.head(blob).send().await.unwrap().status(),
                    200,
                    "{tag} needs {digest}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_registry_has_lost_nothing_it_acknowledged() {
    let rounds = std::env::var_os("RREGISTRY_CRASH_ROUNDS")
        .map_or(ROUNDS, |rounds| rounds.to_str().unwrap().parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let root: PathBuf = dir.path().join("root");
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    for round in 0..rounds {
        let process = Process::start(&root);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let seed = round * CLIENTS + number;
                let acknowledged = Arc::clone(&acknowledged);
                tokio::spawn(push_until_it_breaks(process.url.clone(), seed, acknowledged))
            })
            .collect();
        // However slow the machine is, something is acknowledged in each round.
        let before = acknowledged.lock().unwrap().tags.len();
        while acknowledged.lock().unwrap().tags.len() < before + 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 37 % 200)).await;
        process.kill();
        for client in clients {
            client.await.unwrap();
        }
        verify_blobs(&root);
    }
    let process = Process::start(&root);
    let acknowledged = acknowledged.lock().unwrap().take();
    check(&process.url, &acknowledged).await;
}

impl Acknowledged {
    fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

/// An upload continues where the killed process had acknowledged it.
#[tokio::test]
async fn an_upload_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let bytes = noise(3_000_000, 12);
    let digest = Digest::sha256(&bytes);
    let http = client();
    let process = Process::start(&root);
    let begun = http.post(format!("{}/v2/a/blobs/uploads/", process.url)).send().await.unwrap();
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let first = http.patch(format!("{}{location}", process.url)).body(bytes[..1_000_000].to_vec());
    assert_eq!(first.send().await.unwrap().status(), 202);
    // A second chunk is on its way when the process dies.
    let pieces = [Ok::<_, std::io::Error>(bytes[1_000_000..2_000_000].to_vec())];
    let body = futures_util::StreamExt::chain(
        futures_util::stream::iter(pieces),
        futures_util::stream::pending(),
    );
    let url = format!("{}{location}", process.url);
    let second = tokio::spawn(client().patch(url).body(reqwest::Body::wrap_stream(body)).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.kill();
    assert!(second.await.unwrap().is_err());
    let process = Process::start(&root);
    let status = http.get(format!("{}{location}", process.url)).send().await.unwrap();
    assert_eq!(status.headers()["range"], "0-999999");
    let url = format!("{}{location}?digest={digest}", process.url);
    let finished = http
        .put(url)
        .header("content-range", "1000000-2999999")
        .body(bytes[1_000_000..].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(finished.status(), 201);
    assert_eq!(verify_blobs(&root), 1);
}
