//! Behind a proxy: what a client is told to ask next must reach us again. As a
//! mirror: clients say whose content they mean.

use oci::Digest;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode};

use crate::support::{Server, expect_error, header, header_of, with_query};

async fn send(server: &Server, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = server.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

/// Whatever host and scheme the client used, a path holds for all of them: there
/// is nothing to configure, and nothing for a client to forge.
#[tokio::test]
async fn locations_name_no_host() {
    let server = Server::start().await;
    let forwarded = [
        ("host", "registry.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "8443"),
        ("forwarded", "host=evil.example;proto=https"),
    ];
    let begun = send(&server, Method::POST, "/v2/a/blobs/uploads/", &forwarded).await;
    let location = header(&begun, "location");
    assert!(location.starts_with("/v2/a/blobs/uploads/"), "{location}");
    let digest = Digest::sha256(b"");
    let put = with_query(&location, &format!("digest={digest}"));
    let pushed = send(&server, Method::PUT, &put, &forwarded).await;
    assert_eq!(header(&pushed, "location"), format!("/v2/a/blobs/{digest}"));
    for tag in ["1", "2"] {
        server.push_image("a", tag, "x").await;
    }
    let listed = send(&server, Method::GET, "/v2/a/tags/list?n=1", &forwarded).await;
    assert_eq!(header(&listed, "link"), "</v2/a/tags/list?n=1&last=1>; rel=\"next\"");
}

/// A whole push and a listing below the path of a proxy that takes it off.
#[tokio::test]
async fn a_prefix_that_a_proxy_took_off_comes_back() {
    let server = Server::start().await;
    for (prefix, public) in [("/images", "/images/v2/"), ("/v2/team", "/v2/team/")] {
        let headers = [("x-forwarded-prefix", prefix)];
        let inside = |path: &str| {
            let rest = path.strip_prefix(public).unwrap_or_else(|| panic!("{path} misses it"));
            format!("/v2/{rest}")
        };
        let begun = send(&server, Method::POST, "/v2/a/blobs/uploads/", &headers).await;
        let location = inside(&header(&begun, "location"));
        let status = send(&server, Method::GET, &location, &headers).await;
        assert_eq!(inside(&header(&status, "location")), location);
        // A chunk that does not fit is answered by an error, with a location too.
        let refused = server
            .request(Method::PATCH, &location)
            .header("x-forwarded-prefix", prefix)
            .header("content-range", "5-6")
            .body("xy")
            .send()
            .await
            .unwrap();
        assert_eq!(refused.status(), 416);
        assert_eq!(inside(&header(&refused, "location")), location);
        let digest = Digest::sha256(b"");
        let put = with_query(&location, &format!("digest={digest}"));
        let pushed = send(&server, Method::PUT, &put, &headers).await;
        assert_eq!(inside(&header(&pushed, "location")), format!("/v2/a/blobs/{digest}"));
        for tag in ["1", "2"] {
            server.push_image("a", tag, "x").await;
        }
        for path in ["/v2/a/tags/list?n=1", "/v2/_catalog?n=1"] {
            let listed = send(&server, Method::GET, path, &headers).await;
            let link = link_of(listed.headers());
            assert_eq!(link.is_some(), path.contains("tags"), "one repository has no next page");
            if let Some(link) = link {
                assert_eq!(inside(&link), "/v2/a/tags/list?n=1&last=1");
            }
        }
    }
}

/// `ns` says which registry a mirror's client means. It is a key among what we
/// hold and never an address to dial.
#[tokio::test]
async fn a_namespace_finds_what_was_pushed_for_it() {
    let server = Server::start().await;
    let scoped = server.push_image("docker.io/library/app", "v1", "theirs").await;
    let plain = server.push_image("library/app", "v1", "ours").await;
    let layer = Digest::sha256(b"layer theirs");
    let namespace = |headers: &HeaderMap| header_of(headers, "oci-namespace");
    for (path, found) in [
        ("/v2/library/app/manifests/v1?ns=docker.io".to_owned(), true),
        (format!("/v2/library/app/manifests/{scoped}?ns=docker.io"), true),
        (format!("/v2/library/app/blobs/{layer}?ns=docker.io"), true),
        ("/v2/library/app/tags/list?ns=docker.io".to_owned(), true),
        (format!("/v2/library/app/referrers/{scoped}?ns=docker.io"), true),
        // Where nothing was pushed for the namespace, it is not looked at.
        ("/v2/library/app/manifests/v1?ns=quay.io".to_owned(), false),
        ("/v2/library/app/manifests/v1?ns=127.0.0.1:1".to_owned(), false),
        ("/v2/library/app/manifests/v1?ns=".to_owned(), false),
        ("/v2/library/app/manifests/v1?ns=../docker.io".to_owned(), false),
    ] {
        let (get, head) = (server.get(&path).await, server.head(&path).await);
        assert_eq!((get.status(), head.status()), (StatusCode::OK, StatusCode::OK), "{path}");
        let expected = found.then(|| "docker.io".to_owned());
        assert_eq!(namespace(get.headers()), expected, "{path}");
        assert_eq!(namespace(head.headers()), expected, "{path}");
        if path.contains("/v1") {
            let digest = if found { scoped } else { plain };
            assert_eq!(header(&get, "docker-content-digest"), digest.to_string(), "{path}");
        }
    }
    // What the namespace lacks is not taken from elsewhere.
    let path = format!("/v2/library/app/manifests/{plain}?ns=docker.io");
    expect_error(server.get(&path).await, (404, "MANIFEST_UNKNOWN")).await;
    // Only pulls have a namespace.
    let response = server.delete("/v2/library/app/manifests/v1?ns=docker.io").await;
    assert_eq!((response.status().as_u16(), namespace(response.headers())), (202, None));
    assert_eq!(server.tags("docker.io/library/app").await, ["v1"]);
    assert_eq!(server.tags("library/app").await, [""; 0]);
}

fn link_of(headers: &HeaderMap) -> Option<String> {
    header_of(headers, "link").map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned())
}
