//! A registry with three kinds of callers.

use std::path::Path;
use std::process::{Command, Stdio};

use registry::content::Options;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::support::Server;

/// `admin` may do all, `maker` may make new things below `team`, everybody may
/// pull from `library`.
pub(crate) const CONFIG: &str = r#"
[access]
users-file = "users"
policies = [
    { users = ["@anyone"], repositories = ["library/**"], actions = ["pull"] },
    { users = ["maker"], repositories = ["team/**"], actions = ["pull", "create"] },
    { users = ["admin"], repositories = ["**"], actions = ["pull", "push", "delete"] },
]
"#;

/// Adds a user as an operator does; the password is the name, backwards.
pub(crate) fn add_user(file: &Path, name: &str) {
    use std::io::Write as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_rregistry"))
        .args(["user", "add", "--password-stdin", name, "--file"])
        .arg(file)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", password(name)).unwrap();
    assert!(child.wait().unwrap().success());
}

pub(crate) fn password(name: &str) -> String {
    name.chars().rev().collect()
}

pub(crate) async fn start() -> Server {
    start_with(Options::default()).await
}

pub(crate) async fn start_with(options: Options) -> Server {
    let directory = tempfile::tempdir().unwrap();
    for name in ["admin", "maker"] {
        add_user(&directory.path().join("users"), name);
    }
    Server::configured(directory, CONFIG, options).await
}

/// Sends a request with a password; `""` is nobody.
pub(crate) fn by(server: &Server, user: &str, method: Method, path: &str) -> RequestBuilder {
    let request = server.request(method, path);
    match user {
        "" => request,
        user => request.basic_auth(user, Some(password(user))),
    }
}

/// Pushes an image as `user` and returns the answer to its manifest.
pub(crate) async fn push(
    server: &Server,
    user: &str,
    repository: &str,
    reference: &str,
    seed: &str,
) -> Response {
    let config = format!(r#"{{"seed":"{seed}"}}"#);
    let layer = format!("layer {seed}");
    for bytes in [&config, &layer] {
        let digest = oci::Digest::sha256(bytes.as_bytes());
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer =
            by(server, user, Method::POST, &path).body(bytes.clone()).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    }
    let manifest = crate::support::manifest(config.as_bytes(), layer.as_bytes());
    put(server, user, repository, reference, &manifest).await
}

pub(crate) async fn put(
    server: &Server,
    user: &str,
    repository: &str,
    reference: &str,
    manifest: &Value,
) -> Response {
    by(server, user, Method::PUT, &format!("/v2/{repository}/manifests/{reference}"))
        .header("content-type", manifest["mediaType"].as_str().unwrap())
        .body(manifest.to_string())
        .send()
        .await
        .unwrap()
}
