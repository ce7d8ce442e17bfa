//! The service: version, health, stopping.

use std::time::Duration;

use oci::Digest;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, expect_error, header, noise, with_query};

#[tokio::test]
async fn it_says_that_it_is_a_registry() {
    let server = Server::start().await;
    for path in ["/v2/", "/v2"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(response.text().await.unwrap(), "{}");
        assert_eq!(server.head(path).await.status(), 200);
    }
}

#[tokio::test]
async fn it_says_that_it_is_well() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.get(path).await.text().await.unwrap(), "ok\n", "{path}");
    }
    std::fs::rename(server.root().join("cat"), server.root().join("gone")).unwrap();
    std::fs::write(server.root().join("cat"), "not a directory").unwrap();
    assert_eq!(server.status("/livez").await, 200);
}

#[tokio::test]
async fn unknown_methods_are_405_and_say_what_is_allowed() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"");
    for (method, path, allow) in [
        (Method::PUT, format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        (Method::GET, "/v2/a/blobs/uploads/".to_owned(), "POST"),
        (Method::POST, "/v2/a/manifests/x".to_owned(), "GET, HEAD, PUT, DELETE"),
        (Method::DELETE, format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        (Method::OPTIONS, "/v2/".to_owned(), "GET, HEAD"),
    ] {
        let response = server.request(method, &path).send().await.unwrap();
        assert_eq!(header(&response, "allow"), allow, "{path}");
        expect_error(response, (405, "UNSUPPORTED")).await;
    }
}

/// Over HTTP/2 blobs take another way: the same bytes must come.
#[tokio::test]
async fn http_2_gives_the_same_bytes() {
    let server = Server::start().await;
    let bytes = noise(3_000_000, 2);
    let digest = Digest::sha256(&bytes);
    let client = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    let path = format!("/v2/a/blobs/uploads/?digest={digest}");
    let pushed = client.post(server.url(&path)).body(bytes.clone()).send().await.unwrap();
    assert_eq!((pushed.version(), pushed.status().as_u16()), (reqwest::Version::HTTP_2, 201));
    let url = server.url(&format!("/v2/a/blobs/{digest}"));
    assert_eq!(client.get(&url).send().await.unwrap().bytes().await.unwrap(), bytes);
    let part = client.get(&url).header("range", "bytes=1000000-2999998").send().await.unwrap();
    assert_eq!(part.bytes().await.unwrap(), bytes[1_000_000..2_999_999]);
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), "3000000");
    let missing = client.get(server.url("/v2/a/manifests/x")).send().await.unwrap();
    expect_error(missing, (404, "MANIFEST_UNKNOWN")).await;
}

/// A stop lets the upload in progress end and takes no new connection.
#[tokio::test]
async fn a_stop_waits_for_requests_in_progress() {
    let server = Server::start().await;
    let bytes = noise(200_000, 1);
    let digest = Digest::sha256(&bytes);
    let location = server.begin("a").await;
    let path = with_query(&location, &format!("digest={digest}"));
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&bytes[..100_000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(address).await.is_err(), "a stopping server accepts");
    assert!(!stopping.is_finished());
    connection.write_all(&bytes[100_000..]).await.unwrap();
    let mut answer = vec![0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 201");
    let dir = stopping.await.unwrap();
    assert_eq!(crate::support::verify_blobs(&dir.path().join("root")), 1);
}
