//! Clients that mean harm.

use std::path::Path;
use std::time::Duration;

use oci::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, expect_error};

/// Sends bytes as they are and returns the status, if there is one.
async fn raw(server: &Server, request: &str) -> Option<u16> {
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(5), read).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok())
}

fn files(dir: &Path) -> usize {
    dir.read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| if entry.file_type().unwrap().is_dir() { files(&entry.path()) } else { 1 })
        .sum()
}

#[tokio::test]
async fn hostile_paths_leave_no_trace() {
    let server = Server::start().await;
    let before = files(&server.root());
    std::fs::write(server.dir.path().join("secret"), "secret").unwrap();
    let digest = Digest::sha256(b"");
    for path in [
        "/v2/../../secret",
        "/v2/..%2f..%2fsecret/tags/list",
        "/v2/a/../../../secret/manifests/x",
        "/v2/a/manifests/../../../secret",
        "/v2/a/manifests/..%2F..%2Fsecret",
        "/v2/a/blobs/sha256:..%2f..%2fsecret",
        "/v2/a/blobs/../../../../secret:",
        "/v2/a/blobs/uploads/..",
        "/v2/a/blobs/uploads/../../version",
        "/v2/a/blobs/uploads/%2e%2e",
        "/v2/a%00b/manifests/x",
        "/v2/a!t/manifests/x",
        "/v2/a!m/sha256/manifests/x",
        "/v2/.hidden/manifests/x",
        "/v2/a/manifests/.x",
        "/v2/a//manifests/x",
        "/v2/A/manifests/x",
        "/v2/a/manifests/x%0d%0aSet-Cookie:y",
        &format!("/v2/a/blobs/{}", digest.to_string().to_uppercase()),
        &format!("/v2/a/blobs/sha512:{}", digest.hex()),
        &format!("/v2/{}/manifests/x", "a/".repeat(200)),
        &format!("/v2/{}/manifests/x", "a".repeat(251)),
        &format!("/v2/a/manifests/{}", "x".repeat(129)),
    ] {
        for method in ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}"
            );
            let status = raw(&server, &request).await.expect("an answer");
            assert!((400..500).contains(&status), "{method} {path} gave {status}");
        }
    }
    assert_eq!(files(&server.root()), before);
}

#[tokio::test]
async fn names_have_one_spelling() {
    let server = Server::start().await;
    for name in ["A", "a__-b", "a..b", "-a", "a-", "a_", "a/", "a//b", "é"] {
        let response = server.get(&format!("/v2/{name}/tags/list")).await;
        expect_error(response, (400, "NAME_INVALID")).await;
    }
    let long = "a".repeat(251);
    expect_error(server.get(&format!("/v2/{long}/tags/list")).await, (400, "NAME_INVALID")).await;
    // The longest name works with everything the storage puts around it.
    let longest = format!("{}/{}", "a".repeat(100), "b".repeat(149));
    let digest = server.push_image(&longest, &"t".repeat(128), "x").await;
    assert_eq!(server.tags(&longest).await, ["t".repeat(128)]);
    assert_eq!(server.status(&format!("/v2/{longest}/manifests/{digest}")).await, 200);
    let flat = "c".repeat(250);
    server.push_image(&flat, "v1", "x").await;
    assert_eq!(server.tags(&flat).await, ["v1"]);
}

#[tokio::test]
async fn headers_have_limits() {
    let server = Server::start().await;
    let many: String = (0..200).map(|number| format!("X-{number}: y\r\n")).collect();
    let status = raw(&server, &format!("GET /v2/ HTTP/1.1\r\nHost: x\r\n{many}\r\n")).await;
    assert_eq!(status, Some(431));
    let huge = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "y".repeat(300_000));
    assert!(matches!(raw(&server, &huge).await, Some(431) | None));
    assert_eq!(server.status("/v2/").await, 200);
}

#[tokio::test]
async fn slow_clients_do_not_keep_others_waiting() {
    let server = Server::start().await;
    let digest = server.push("a", &vec![7; 4 << 20]).await;
    let mut slow = Vec::new();
    for number in 0..64 {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        let request = match number % 2 {
            // A head that never ends, and a blob that is never read.
            0 => "GET /v2/ HTTP/1.1\r\nHost:".to_owned(),
            _ => format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n"),
        };
        connection.write_all(request.as_bytes()).await.unwrap();
        slow.push(connection);
    }
    let asked = tokio::time::timeout(Duration::from_secs(2), async {
        for _ in 0..50 {
            assert_eq!(server.status("/v2/").await, 200);
        }
    });
    asked.await.expect("quick answers");
    drop(slow);
}

#[tokio::test]
async fn two_lengths_are_refused() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    let request = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456"
    );
    assert_eq!(raw(&server, &request).await, Some(400));
    assert_eq!(server.status(&location).await, 204);
}
