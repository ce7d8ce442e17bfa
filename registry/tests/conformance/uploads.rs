//! Uploads: in chunks, as a stream, resumed, cancelled, finished, refused.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci::Digest;
use registry::content::{MAX_UPLOAD_AGE, Options, Registry};
use registry::storage::Local;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Server, expect_error, header, noise, with_query};

#[tokio::test]
async fn an_upload_begins_with_all_its_headers() {
    let server = Server::start().await;
    for path in ["/v2/a/blobs/uploads/", "/v2/a/blobs/uploads"] {
        let response = server.post(path).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = header(&response, "location");
        let uuid = header(&response, "docker-upload-uuid");
        assert_eq!(location, format!("/v2/a/blobs/uploads/{uuid}"));
        assert_eq!(header(&response, "range"), "0-0");
        assert_eq!(header(&response, "content-length"), "0");
        let status = server.get(&location).await;
        assert_eq!(status.status(), StatusCode::NO_CONTENT);
        assert_eq!(header(&status, "range"), "0-0");
        assert_eq!(header(&status, "location"), location);
    }
}

#[tokio::test]
async fn chunks_in_order_become_a_blob() {
    let server = Server::start().await;
    let bytes = noise(1_000_000, 4);
    let digest = Digest::sha256(&bytes);
    let mut location = server.begin("a").await;
    let mut offset = 0;
    for size in [1, 10, 65_536, 700_000] {
        let range = format!("{offset}-{}", offset + size - 1);
        let response = server.patch(&location, Some(&range), &bytes[offset..offset + size]).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        offset += size;
        assert_eq!(header(&response, "range"), format!("0-{}", offset - 1));
        location = header(&response, "location");
        assert_eq!(header(&server.get(&location).await, "range"), format!("0-{}", offset - 1));
    }
    let path = with_query(&location, &format!("digest={digest}"));
    let response = server
        .request(Method::PUT, &path)
        .header("content-range", format!("{offset}-{}", bytes.len() - 1))
        .body(bytes[offset..].to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(header(&response, "location"), format!("/v2/a/blobs/{digest}"));
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), bytes);
    expect_error(server.get(&location).await, (404, "BLOB_UPLOAD_UNKNOWN")).await;
}

/// Large enough to be written past the page cache, in pieces that fit no block.
#[tokio::test]
async fn a_large_blob_in_odd_pieces_is_whole() {
    let server = Server::start().await;
    let bytes = noise(40_000_003, 14);
    let digest = Digest::sha256(&bytes);
    let location = server.begin("a").await;
    let mut offset = 0;
    for size in [9_000_001, 12_345_678, 4_096, 1, 16_000_000, 7] {
        let range = format!("{offset}-{}", offset + size - 1);
        let piece = &bytes[offset..offset + size];
        assert_eq!(server.patch(&location, Some(&range), piece).await.status(), 202);
        offset += size;
    }
    let response = server.put(&location, &digest.to_string(), &bytes[offset..]).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let pulled = server.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap();
    assert_eq!(Digest::sha256(&pulled), digest);
    crate::support::verify_blobs(&server.root());
}

/// A power cut may take bytes that a record counts: then nothing is trusted.
#[tokio::test]
async fn an_upload_that_lost_bytes_begins_again() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    server.patch(&location, None, b"0123456789").await;
    let uuid = location.rsplit('/').next().unwrap();
    let data = server.root().join("up").join(uuid).join("data");
    std::fs::write(data, "01234").unwrap();
    assert_eq!(header(&server.get(&location).await, "range"), "0-0");
    let response = server.patch(&location, Some("10-11"), b"ab").await;
    expect_error(response, (416, "BLOB_UPLOAD_INVALID")).await;
    let digest = Digest::sha256(b"other").to_string();
    assert_eq!(server.put(&location, &digest, b"other").await.status(), 201);
}

/// As docker does: one PATCH without length or range, then an empty PUT.
#[tokio::test]
async fn a_stream_becomes_a_blob() {
    let server = Server::start().await;
    let bytes = noise(3_000_000, 5);
    let digest = Digest::sha256(&bytes);
    let location = server.begin("a").await;
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        bytes.chunks(10_007).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let response = server.request(Method::PATCH, &location).body(body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(header(&response, "range"), "0-2999999");
    let response = server.put(&location, &digest.to_string(), b"").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_416_and_the_upload_lives() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"0123456789");
    let location = server.begin("a").await;
    assert_eq!(server.patch(&location, Some("0-4"), b"01234").await.status(), 202);
    for range in ["0-4", "6-10", "100-104", "4-8"] {
        let response = server.patch(&location, Some(range), b"?????").await;
        assert_eq!(header(&response, "range"), "0-4", "{range}");
        assert_eq!(header(&response, "location"), location);
        expect_error(response, (416, "BLOB_UPLOAD_INVALID")).await;
    }
    // The same on PUT; the suite asks for the status at the very URL it put to.
    let put = with_query(&location, &format!("digest={digest}"));
    let response = server
        .request(Method::PUT, &put)
        .header("content-range", "7-11")
        .body("?????")
        .send()
        .await
        .unwrap();
    expect_error(response, (416, "BLOB_UPLOAD_INVALID")).await;
    let status = server.get(&put).await;
    assert_eq!((status.status().as_u16(), header(&status, "range")), (204, "0-4".to_owned()));
    assert_eq!(server.patch(&location, Some("5-9"), b"56789").await.status(), 202);
    assert_eq!(server.put(&location, &digest.to_string(), b"").await.status(), 201);
}

#[tokio::test]
async fn chunks_that_contradict_themselves_are_refused() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    for range in ["x", "5-1", "-5", "0-"] {
        let response = server.patch(&location, Some(range), b"01234").await;
        expect_error(response, (400, "BLOB_UPLOAD_INVALID")).await;
    }
    let response = server.patch(&location, Some("0-8"), b"01234").await;
    expect_error(response, (400, "SIZE_INVALID")).await;
    // HTTP's own form of the header is understood.
    assert_eq!(server.patch(&location, Some("bytes 0-4/*"), b"01234").await.status(), 202);
    assert_eq!(header(&server.get(&location).await, "range"), "0-4");
}

#[tokio::test]
async fn the_wrong_digest_is_refused_and_leaves_nothing() {
    let server = Server::start().await;
    let promised = Digest::sha256(b"promised");
    let location = server.begin("a").await;
    let response = server.put(&location, &promised.to_string(), b"delivered").await;
    expect_error(response, (400, "DIGEST_INVALID")).await;
    assert_eq!(server.status(&format!("/v2/a/blobs/{promised}")).await, 404);
    assert_eq!(server.root().join("up").read_dir().unwrap().count(), 0);
    let location = server.begin("a").await;
    for digest in ["sha256:baddigeststring", "md5:x", "", "sha256"] {
        expect_error(server.put(&location, digest, b"x").await, (400, "DIGEST_INVALID")).await;
    }
    let response = server.request(Method::PUT, &location).body("x").send().await.unwrap();
    expect_error(response, (400, "DIGEST_INVALID")).await;
    // A digest that cannot be read costs the upload nothing.
    let digest = Digest::sha256(b"x").to_string();
    assert_eq!(server.put(&location, &digest, b"x").await.status(), 201);
}

#[tokio::test]
async fn an_upload_is_cancelled() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    server.patch(&location, None, b"part").await;
    let response = server.delete(&location).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let response = server.request(method, &location).send().await.unwrap();
        expect_error(response, (404, "BLOB_UPLOAD_UNKNOWN")).await;
    }
    assert_eq!(server.root().join("up").read_dir().unwrap().count(), 0);
}

/// Nobody reaches an upload through another repository.
#[tokio::test]
async fn an_upload_belongs_to_its_repository() {
    let server = Server::start().await;
    let location = server.begin("mine").await;
    server.patch(&location, None, b"part").await;
    let foreign = location.replace("/mine/", "/yours/");
    let digest = Digest::sha256(b"part");
    for (method, path) in [
        (Method::GET, foreign.clone()),
        (Method::PATCH, foreign.clone()),
        (Method::PUT, with_query(&foreign, &format!("digest={digest}"))),
        (Method::DELETE, foreign.clone()),
    ] {
        let response = server.request(method, &path).send().await.unwrap();
        expect_error(response, (404, "BLOB_UPLOAD_UNKNOWN")).await;
    }
    assert_eq!(server.put(&location, &digest.to_string(), b"").await.status(), 201);
}

#[tokio::test]
async fn any_replica_continues_any_upload() {
    let server = Server::start().await;
    let other = server.another().await;
    let bytes = noise(500_000, 6);
    let location = server.begin("a").await;
    let mut offset = 0;
    for (turn, piece) in bytes.chunks(99_991).enumerate() {
        let replica = [&server, &other][turn % 2];
        let range = format!("{offset}-{}", offset + piece.len() - 1);
        assert_eq!(replica.patch(&location, Some(&range), piece).await.status(), 202);
        offset += piece.len();
    }
    let digest = Digest::sha256(&bytes);
    assert_eq!(other.put(&location, &digest.to_string(), b"").await.status(), 201);
    assert_eq!(server.get(&format!("/v2/a/blobs/{digest}")).await.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn an_upload_survives_a_restart() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    server.patch(&location, None, b"before ").await;
    let dir = server.stop().await;
    let server = Server::on(dir, Options::default()).await;
    assert_eq!(header(&server.get(&location).await, "range"), "0-6");
    let digest = Digest::sha256(b"before after").to_string();
    assert_eq!(server.put(&location, &digest, b"after").await.status(), 201);
}

/// The connection breaks in the middle of a chunk: what arrived is kept.
#[tokio::test]
async fn a_dropped_connection_is_resumed() {
    let server = Server::start().await;
    let bytes = noise(400_000, 7);
    let location = server.begin("a").await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", bytes.len());
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&bytes[..250_000]).await.unwrap();
    connection.flush().await.unwrap();
    drop(connection);
    let mut received = 0;
    for _ in 0..100 {
        let range = header(&server.get(&location).await, "range");
        received = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
        if received > 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(received, 250_000);
    let range = format!("{received}-{}", bytes.len() - 1);
    assert_eq!(server.patch(&location, Some(&range), &bytes[received..]).await.status(), 202);
    let digest = Digest::sha256(&bytes).to_string();
    assert_eq!(server.put(&location, &digest, b"").await.status(), 201);
}

/// A client that waits for permission gets its refusal instead, at once.
#[tokio::test]
async fn a_refused_upload_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let head = "PATCH /v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000 HTTP/1.1\r\n\
        Host: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 404");
}

fn a_day_later() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the tests' clock")]
    let now = SystemTime::now();
    now + MAX_UPLOAD_AGE + Duration::from_secs(60)
}

#[tokio::test]
async fn abandoned_uploads_expire() {
    let server = Server::start().await;
    let location = server.begin("a").await;
    server.patch(&location, None, &noise(100_000, 8)).await;
    std::fs::create_dir(server.root().join("up/stray")).unwrap();
    let storage = Local::open(&server.root()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the tests' clock")]
    let young = Registry::new(storage.clone(), Options::default(), SystemTime::now).unwrap();
    assert_eq!(young.expire_uploads().await.unwrap(), 0);
    assert_eq!(server.status(&location).await, 204);
    let old = Registry::new(storage, Options::default(), a_day_later).unwrap();
    assert_eq!(old.expire_uploads().await.unwrap(), 1);
    assert_eq!(server.status(&location).await, 404);
}

#[tokio::test]
async fn one_of_two_writers_at_once_wins() {
    let server = Arc::new(Server::start().await);
    let bytes = noise(600_000, 9);
    let digest = Digest::sha256(&bytes);
    let location = server.begin("a").await;
    let tries: Vec<_> = (0..4)
        .map(|_| {
            let (server, location, bytes) = (Arc::clone(&server), location.clone(), bytes.clone());
            tokio::spawn(async move {
                let range = format!("0-{}", bytes.len() - 1);
                server.patch(&location, Some(&range), &bytes).await.status().as_u16()
            })
        })
        .collect();
    let mut statuses = Vec::new();
    for attempt in tries {
        statuses.push(attempt.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 416, 416, 416]);
    assert_eq!(server.put(&location, &digest.to_string(), b"").await.status(), 201);
}
