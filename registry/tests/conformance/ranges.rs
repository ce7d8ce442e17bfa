//! Ranges and conditional requests.

use reqwest::{Method, Response, StatusCode};

use crate::support::{Server, expect_error, header, header_of, noise};

async fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = server.request(Method::GET, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn parts_of_a_blob_are_what_was_asked_for() {
    let server = Server::start().await;
    // One that is copied into memory and one that is sent from its file.
    for size in [2048, 2_000_000] {
        let bytes = noise(size, 3);
        let digest = server.push("a", &bytes).await;
        let path = format!("/v2/a/blobs/{digest}");
        for (range, first, end) in [
            ("bytes=0-".to_owned(), 0, size),
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=100-199".to_owned(), 100, 200),
            ("bytes=-500".to_owned(), size - 500, size),
            (format!("bytes=-{}", size * 2), 0, size),
            (format!("bytes={}-{}", size - 48, size * 3), size - 48, size),
            (format!("bytes=1-{}", size - 2), 1, size - 1),
        ] {
            let response = ask(&server, &path, &[("range", &range)]).await;
            assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
            assert_eq!(
                header(&response, "content-range"),
                format!("bytes {first}-{}/{size}", end - 1)
            );
            assert_eq!(header(&response, "content-length"), (end - first).to_string());
            assert_eq!(response.bytes().await.unwrap(), bytes[first..end], "{range}");
        }
        for range in ["lines=0-5", "bytes=a-b", "bytes=0-1,4-5", "garbage"] {
            let response = ask(&server, &path, &[("range", range)]).await;
            assert_eq!(response.status(), StatusCode::OK, "{range}");
            assert_eq!(response.bytes().await.unwrap(), bytes);
        }
        for range in [format!("bytes={size}-"), format!("bytes={}-{}", size * 2, size * 3)] {
            let response = ask(&server, &path, &[("range", &range)]).await;
            assert_eq!(header(&response, "content-range"), format!("bytes */{size}"));
            expect_error(response, (416, "SIZE_INVALID")).await;
        }
        let response = ask(&server, &path, &[("range", "bytes=500-0")]).await;
        assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
        // The connection survives all of this: 2.8's distribution reset it.
        assert_eq!(server.status(&path).await, 200);
    }
}

#[tokio::test]
async fn a_head_with_a_range_has_no_body() {
    let server = Server::start().await;
    let digest = server.push("a", b"0123456789").await;
    let response = server
        .request(Method::HEAD, &format!("/v2/a/blobs/{digest}"))
        .header("range", "bytes=2-3")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&response, "content-length"), "2");
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let manifest = server.push_image("a", "v1", "x").await;
    let blob = server.push("a", b"blob").await;
    for (path, digest) in [
        (format!("/v2/a/blobs/{blob}"), blob),
        ("/v2/a/manifests/v1".to_owned(), manifest),
        (format!("/v2/a/manifests/{manifest}"), manifest),
    ] {
        let etag = header(&server.get(&path).await, "etag");
        assert_eq!(etag, format!("\"{digest}\""));
        for given in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
            let response = ask(&server, &path, &[("if-none-match", &given)]).await;
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{given}");
            assert_eq!(header(&response, "etag"), etag);
            assert_eq!(response.text().await.unwrap(), "");
        }
        let response = ask(&server, &path, &[("if-none-match", "\"other\"")]).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    server.push_image("a", "v1", "y").await;
    let old = format!("\"{manifest}\"");
    let response = ask(&server, "/v2/a/manifests/v1", &[("if-none-match", &old)]).await;
    assert_eq!(response.status(), StatusCode::OK, "the tag has moved");
}

#[tokio::test]
async fn a_range_of_something_else_is_everything() {
    let server = Server::start().await;
    let digest = server.push("a", b"0123456789").await;
    let path = format!("/v2/a/blobs/{digest}");
    let same = format!("\"{digest}\"");
    for (given, status) in [(same.as_str(), 206), ("\"other\"", 200)] {
        let response = ask(&server, &path, &[("range", "bytes=2-3"), ("if-range", given)]).await;
        assert_eq!(response.status(), status, "{given}");
    }
}

#[tokio::test]
async fn a_range_of_nothing_is_nothing() {
    let server = Server::start().await;
    let digest = server.push("a", b"").await;
    let response = ask(&server, &format!("/v2/a/blobs/{digest}"), &[("range", "bytes=0-")]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header_of(response.headers(), "content-range"), None);
}
