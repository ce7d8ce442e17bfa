//! Tags and repositories in pages.

use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::{OCI_MANIFEST, Server, expect_error, header_of};

async fn page(server: &Server, path: &str) -> (Vec<String>, Option<String>) {
    let response: Response = server.get(path).await;
    assert_eq!(response.status(), 200, "{path}");
    let link = header_of(response.headers(), "link").map(|link| {
        let (target, relation) = link.split_once("; ").unwrap();
        assert_eq!(relation, "rel=\"next\"");
        target.trim_matches(['<', '>']).to_owned()
    });
    let body: Value = response.json().await.unwrap();
    let names = if path.contains("_catalog") { &body["repositories"] } else { &body["tags"] };
    (serde_json::from_value(names.clone()).unwrap(), link)
}

async fn walk(server: &Server, first: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut next = Some(first.to_owned());
    while let Some(path) = next {
        let (names, link) = page(server, &path).await;
        pages.push(names);
        next = link;
    }
    pages
}

async fn tagged(names: &[&str]) -> Server {
    let server = Server::start().await;
    let body = server.image("a/b", "x").await.to_string();
    for name in names {
        let response = server.put_manifest("a/b", name, OCI_MANIFEST, body.as_bytes()).await;
        assert_eq!(response.status(), 201);
    }
    server
}

#[tokio::test]
async fn tags_come_in_order_and_in_pages() {
    let server = tagged(&["b", "a", "B", "a.1", "a-1", "10", "9", "_x"]).await;
    let sorted = ["10", "9", "B", "_x", "a", "a-1", "a.1", "b"];
    let list = "/v2/a/b/tags/list";
    assert_eq!(page(&server, list).await, (sorted.map(str::to_owned).to_vec(), None));
    let body: Value = server.get(list).await.json().await.unwrap();
    assert_eq!(body["name"], "a/b");
    for size in 1..=9 {
        let pages = walk(&server, &format!("{list}?n={size}")).await;
        assert_eq!(pages.len(), sorted.len().div_ceil(size), "pages of {size}");
        assert_eq!(pages.concat(), sorted, "pages of {size}");
    }
    // `last` is exclusive, need not exist, and does not need `n`.
    assert_eq!(page(&server, &format!("{list}?last=a-1")).await.0, ["a.1", "b"]);
    assert_eq!(page(&server, &format!("{list}?last=aaa")).await.0, ["b"]);
    assert_eq!(page(&server, &format!("{list}?last=b")).await, (vec![], None));
    assert_eq!(page(&server, &format!("{list}?n=0")).await, (vec![], None));
    let (names, link) = page(&server, &format!("{list}?n=8")).await;
    assert_eq!((names.len(), link), (8, None), "a full last page has no next");
}

#[tokio::test]
async fn odd_page_sizes_do_no_harm() {
    let server = tagged(&["a", "b"]).await;
    for number in ["99999999999999999999999999", "18446744073709551615", "4294967296"] {
        let (names, link) = page(&server, &format!("/v2/a/b/tags/list?n={number}")).await;
        assert_eq!((names.len(), link), (2, None));
    }
    for number in ["-1", "abc", "", "1.5", "%2B1", "0x10"] {
        let response = server.get(&format!("/v2/a/b/tags/list?n={number}")).await;
        expect_error(response, (400, "UNSUPPORTED")).await;
    }
    assert_eq!(server.status("/v2/a/b/tags/list?last=%00").await, 400);
    assert_eq!(page(&server, "/v2/a/b/tags/list?last=../../..").await.0, ["a", "b"]);
}

#[tokio::test]
async fn a_repository_without_manifests_is_unknown() {
    let server = Server::start().await;
    expect_error(server.get("/v2/nobody/tags/list").await, (404, "NAME_UNKNOWN")).await;
    server.push("blobs-only", b"x").await;
    expect_error(server.get("/v2/blobs-only/tags/list").await, (404, "NAME_UNKNOWN")).await;
    let digest = server.push_image("a", "v1", "x").await;
    assert_eq!(server.delete(&format!("/v2/a/manifests/{digest}")).await.status(), 202);
    assert_eq!(server.tags("a").await, [""; 0]);
}

/// Names that are prefixes of others were dropped by distribution (#4898, #4904).
#[tokio::test]
async fn the_catalog_is_complete_and_in_order() {
    let server = Server::start().await;
    assert_eq!(page(&server, "/v2/_catalog").await, (vec![], None));
    let names = [
        "a",
        "a-b",
        "a.b",
        "a/b",
        "a/b/c",
        "ab",
        "b",
        "b/tags",
        "b/tags/list",
        "library/x",
        "libraryx",
    ];
    for name in names.iter().rev() {
        server.push_image(name, "v1", name).await;
    }
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    assert_eq!(page(&server, "/v2/_catalog").await.0, sorted);
    for size in 1..=names.len() {
        let pages = walk(&server, &format!("/v2/_catalog?n={size}")).await;
        assert_eq!(pages.concat(), sorted, "pages of {size}");
    }
    assert_eq!(page(&server, "/v2/_catalog?last=a/b&n=2").await.0, ["a/b/c", "ab"]);
    for name in names {
        assert_eq!(server.tags(name).await, ["v1"], "{name}");
    }
}

#[tokio::test]
async fn listings_are_only_read() {
    let server = tagged(&["a"]).await;
    for path in ["/v2/a/b/tags/list", "/v2/_catalog", "/v2/"] {
        for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
            let response = server.request(method, path).send().await.unwrap();
            assert_eq!(response.headers()["allow"], "GET, HEAD");
            expect_error(response, (405, "UNSUPPORTED")).await;
        }
    }
}
