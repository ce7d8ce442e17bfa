//! Many clients, two processes, one folder.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::Digest;

use crate::support::{OCI_MANIFEST, Server, header, noise, verify_blobs};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_blob_from_everywhere_is_stored_once() {
    let servers = two_on_one_folder().await;
    let bytes = Arc::new(noise(700_000, 21));
    let digest = Digest::sha256(&bytes);
    let pushes: Vec<_> = (0..16)
        .map(|number| {
            let (servers, bytes) = (Arc::clone(&servers), Arc::clone(&bytes));
            tokio::spawn(async move {
                servers[number % 2].push(&format!("team/app{number}"), &bytes).await;
            })
        })
        .collect();
    for push in pushes {
        push.await.unwrap();
    }
    for number in 0..16 {
        let path = format!("/v2/team/app{number}/blobs/{digest}");
        assert_eq!(servers[0].get(&path).await.bytes().await.unwrap(), *bytes);
    }
    assert_eq!(verify_blobs(&servers[0].root()), 1);
    assert_eq!(servers[0].root().join("up").read_dir().unwrap().count(), 0);
    assert_eq!(servers[0].root().join("tmp").read_dir().unwrap().count(), 0);
}

async fn two_on_one_folder() -> Arc<[Server; 2]> {
    let first = Server::start().await;
    let second = first.another().await;
    Arc::new([first, second])
}

/// A tag that is moved all the time always names one of what it was given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moving_tag_is_always_whole() {
    let servers = two_on_one_folder().await;
    let mut bodies = Vec::new();
    for seed in 0..4 {
        bodies.push(servers[0].image("a", &seed.to_string()).await.to_string());
    }
    let bodies = Arc::new(bodies);
    let digests: BTreeSet<Digest> =
        bodies.iter().map(|body| Digest::sha256(body.as_bytes())).collect();
    let writers: Vec<_> = (0..4)
        .map(|number| {
            let (servers, bodies) = (Arc::clone(&servers), Arc::clone(&bodies));
            tokio::spawn(async move {
                for turn in 0..25 {
                    let body = &bodies[(number + turn) % bodies.len()];
                    let response = servers[number % 2]
                        .put_manifest("a", "moving", OCI_MANIFEST, body.as_bytes())
                        .await;
                    assert_eq!(response.status(), 201);
                }
            })
        })
        .collect();
    let mut seen = 0;
    while writers.iter().any(|writer| !writer.is_finished()) || seen == 0 {
        let response = servers[seen % 2].get("/v2/a/manifests/moving").await;
        if response.status() == 404 && seen == 0 {
            continue; // not yet pushed
        }
        assert_eq!(response.status(), 200);
        let digest: Digest = header(&response, "docker-content-digest").parse().unwrap();
        assert!(digests.contains(&digest));
        assert_eq!(Digest::sha256(&response.bytes().await.unwrap()), digest);
        seen += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Pushes and deletes of one manifest cross: after a last push it is there,
/// with its tag, on every replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_and_deletes_may_cross() {
    let servers = two_on_one_folder().await;
    let body = Arc::new(servers[0].image("a", "x").await.to_string());
    let digest = Digest::sha256(body.as_bytes());
    let path = format!("/v2/a/manifests/{digest}");
    for round in 0..15 {
        let others: Vec<_> = (0..4)
            .map(|number| {
                let (servers, body, path) = (Arc::clone(&servers), Arc::clone(&body), path.clone());
                tokio::spawn(async move {
                    let server = &servers[number % 2];
                    let status = if number < 2 {
                        server.put_manifest("a", "v1", OCI_MANIFEST, body.as_bytes()).await.status()
                    } else {
                        server.delete(&path).await.status()
                    };
                    assert!(!status.is_server_error(), "{status}");
                })
            })
            .collect();
        for other in others {
            other.await.unwrap();
        }
        let response =
            servers[round % 2].put_manifest("a", "v1", OCI_MANIFEST, body.as_bytes()).await;
        assert_eq!(response.status(), 201);
        for server in servers.iter() {
            assert_eq!(server.status(&path).await, 200, "round {round}");
            assert_eq!(server.status("/v2/a/manifests/v1").await, 200, "round {round}");
            assert_eq!(server.tags("a").await, ["v1"], "round {round}");
        }
    }
}
