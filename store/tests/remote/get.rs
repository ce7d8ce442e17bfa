//! Files by their address.

use std::sync::atomic::{AtomicUsize, Ordering};

use store::remote::{Client, ClientOptions, Error, Get, Got, Proxies};

use crate::server::{Reply, Server};
use crate::{Local, client, ignore, noise, options};

fn get(client: &Client, local: &Local, url: &str, etag: Option<&str>) -> Result<Got, Error> {
    let lease = local.store.lease().unwrap();
    let get = Get { url, etag, max_bytes: 1_000_000, progress: &|_, _| {} };
    client.get(&lease, &get, &ignore)
}

#[test]
fn a_known_version_is_not_sent_again() {
    let content = noise(300_000, 1);
    let body = content.clone();
    let server = Server::start(move |request| {
        let reply = Reply::new(200)
            .header("etag", "\"v1\"")
            .header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        match (request.path.as_str(), request.header("if-none-match")) {
            ("/good", Some("\"v1\"")) => Reply::new(304),
            // It does not know the header, or calls the version weak.
            ("/old", _) => reply.body(body.clone()),
            ("/weak", _) => Reply::new(200).header("etag", "W/\"v1\"").body(body.clone()),
            _ => reply.body(body.clone()),
        }
    });
    let (local, client) = (Local::new(), client());
    let url = |path: &str| format!("http://{}{path}", server.host());
    let got = get(&client, &local, &url("/good"), None).unwrap();
    assert_eq!((got.etag.as_deref(), got.last_modified), (Some("\"v1\""), Some(784_111_777)));
    assert_eq!(got.body.unwrap().digest, oci::Digest::sha256(&content));
    for path in ["/good", "/old", "/weak"] {
        let got = get(&client, &local, &url(path), Some("\"v1\"")).unwrap();
        assert_eq!(got.body, None, "{path}");
        assert!(got.etag.unwrap().ends_with("\"v1\""));
    }
    let changed = get(&client, &local, &url("/good"), Some("\"v0\"")).unwrap();
    assert!(changed.body.is_some());
}

#[test]
fn redirects_are_followed_so_far_and_carry_no_password() {
    let target = Server::start(|request| match request.path.as_str() {
        "/file" if request.header("authorization").is_none() => Reply::new(200).body("there"),
        _ => Reply::new(500),
    });
    let to = format!("http://{}/file", target.host());
    let server = Server::start(move |request| {
        let is_known = request.header("authorization") == Some("Basic dXNlcjpzZWNyZXQ=");
        match request.path.as_str() {
            "/away" if is_known => Reply::new(302).header("location", &to),
            "/here" => Reply::new(307).header("location", "away"),
            "/loop" => Reply::new(301).header("location", "/loop"),
            "/odd" => Reply::new(302).header("location", "file:///etc/passwd"),
            "/nowhere" => Reply::new(302),
            _ => Reply::new(401),
        }
    });
    let (local, client) = (Local::new(), client());
    let ask = |path: &str| {
        let url = format!("http://user:secret@{}{path}", server.host());
        get(&client, &local, &url, None).map(|got| got.body.unwrap().digest)
    };
    assert_eq!(ask("/away").unwrap(), oci::Digest::sha256(b"there"));
    // What is relative stays at the host, and with who asks.
    assert_eq!(ask("/here").unwrap(), oci::Digest::sha256(b"there"));
    assert!(ask("/loop").unwrap_err().to_string().ends_with("it redirects more than 5 times"));
    assert!(ask("/odd").unwrap_err().to_string().ends_with("it redirects from http to file"));
    let error = ask("/nowhere").unwrap_err();
    assert!(matches!(error, Error::Status { status: 302, .. }), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert!(local.has_nothing_unfinished());
}

#[test]
fn downloads_are_bounded_and_tried_again() {
    let attempts = AtomicUsize::new(0);
    let server = Server::start(move |request| match request.path.as_str() {
        "/announced" => Reply { length: Some(1_000_001), ..Reply::new(200).body("x") },
        "/unannounced" => Reply::new(200).body(vec![0; 1_000_001]),
        "/missing" => Reply::new(404).body("<html>"),
        "/cut" if attempts.fetch_add(1, Ordering::SeqCst) < 2 => {
            Reply { cut_after: Some(10), ..Reply::new(200).body("a longer text than ten") }
        }
        "/cut" => Reply::new(200).body("a longer text than ten"),
        _ => Reply::new(503),
    });
    let (local, client) = (Local::new(), client());
    let ask = |path: &str| get(&client, &local, &format!("http://{}{path}", server.host()), None);
    for path in ["/announced", "/unannounced"] {
        let error = ask(path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{path} has more than 1000000 bytes")), "{error}");
    }
    assert!(matches!(ask("/missing").unwrap_err(), Error::NotFound { .. }));
    let body = ask("/cut").unwrap().body.unwrap();
    assert_eq!(body.digest, oci::Digest::sha256(b"a longer text than ten"));
    assert!(matches!(ask("/down").unwrap_err(), Error::Status { status: 503, .. }));
    assert_eq!(server.count("GET /down"), 4);
    assert!(local.has_nothing_unfinished());
    assert!(matches!(get(&client, &local, "ftp://h/x", None).unwrap_err(), Error::Setup { .. }));
}

#[test]
fn proxies_are_used_for_other_machines_only() {
    let proxy = Server::start(|request| match request.path.as_str() {
        "http://files.example/a" => Reply::new(200).body("through the proxy"),
        _ => Reply::new(500),
    });
    let own = Server::start(|_| Reply::new(200).body("directly"));
    let http = Some(format!("http://{}", proxy.host()));
    let proxies = Proxies { http, ..Proxies::default() };
    let client = Client::new(ClientOptions { proxies, ..options() });
    let local = Local::new();
    let digest = |url: &str| get(&client, &local, url, None).unwrap().body.unwrap().digest;
    assert_eq!(digest("http://files.example/a"), oci::Digest::sha256(b"through the proxy"));
    assert_eq!(digest(&format!("http://{}/a", own.host())), oci::Digest::sha256(b"directly"));
}
