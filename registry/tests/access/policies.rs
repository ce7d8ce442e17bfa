//! What each caller may do, endpoint by endpoint.

use oci::Digest;
use registry::config::Config;
use registry::content::Options;
use reqwest::Method;
use serde_json::Value;

use crate::support::{expect_error, header, manifest};
use crate::world::{by, push, put, start, start_with};

/// Every endpoint and every kind of caller. A delete is no push
/// (GHSA-qg67-7m6v-qg25), and tags are no exception to it (CVE-2026-41888).
#[tokio::test]
async fn each_caller_may_do_what_the_policies_say() {
    let server = start().await;
    for repository in ["library/app", "team/app"] {
        assert_eq!(push(&server, "admin", repository, "old", "one").await.status(), 201);
    }
    let image = manifest(br#"{"seed":"one"}"#, b"layer one");
    let digest = Digest::sha256(image.to_string().as_bytes());
    let layer = Digest::sha256(b"layer one");
    // Of nobody, maker and admin: in library, then in team.
    let cases = [
        (Method::GET, "tags/list".to_owned(), [[200, 200, 200], [401, 200, 200]]),
        (Method::GET, "manifests/old".to_owned(), [[200, 200, 200], [401, 200, 200]]),
        (Method::HEAD, format!("manifests/{digest}"), [[200, 200, 200], [401, 200, 200]]),
        (Method::GET, format!("blobs/{layer}"), [[200, 200, 200], [401, 200, 200]]),
        (Method::GET, format!("referrers/{digest}"), [[200, 200, 200], [401, 200, 200]]),
        (Method::POST, "blobs/uploads/".to_owned(), [[401, 403, 202], [401, 202, 202]]),
        (Method::GET, "blobs/uploads/x".to_owned(), [[401, 403, 404], [401, 404, 404]]),
        (
            Method::DELETE,
            format!("blobs/{}", Digest::sha256(b"")),
            [[401, 403, 404], [401, 403, 404]],
        ),
        (Method::DELETE, "manifests/none".to_owned(), [[401, 403, 404], [401, 403, 404]]),
        (
            Method::DELETE,
            format!("manifests/{}", Digest::sha256(b"")),
            [[401, 403, 404], [401, 403, 404]],
        ),
        // What is not there looks the same to those who may not know.
        (Method::GET, "manifests/none".to_owned(), [[404, 404, 404], [401, 404, 404]]),
    ];
    for (method, path, expected) in &cases {
        for (repository, expected) in ["library/app", "team/app"].into_iter().zip(expected) {
            for (user, expected) in ["", "maker", "admin"].into_iter().zip(expected) {
                let path = format!("/v2/{repository}/{path}");
                let answer = by(&server, user, method.clone(), &path).send().await.unwrap();
                let status = answer.status().as_u16();
                // An upload that cannot be named is unknown before anything else is.
                let is_odd = path.ends_with("uploads/x") && status == 404;
                assert!(
                    status == *expected || is_odd,
                    "{user:?} {method} {path}: {status}, not {expected}"
                );
            }
        }
    }
    for user in ["", "maker"] {
        let answer = put(&server, user, "library/app", "new", &image).await;
        let expected = if user.is_empty() { (401, "UNAUTHORIZED") } else { (403, "DENIED") };
        expect_error(answer, expected).await;
    }
}

/// CVE-2026-31801: `latest` is a tag like any other.
#[tokio::test]
async fn who_may_create_cannot_move_a_tag() {
    let server = start().await;
    assert_eq!(push(&server, "maker", "team/app", "latest", "one").await.status(), 201);
    // The same again changes nothing; a client that lost the answer sends it again.
    assert_eq!(push(&server, "maker", "team/app", "latest", "one").await.status(), 201);
    expect_error(push(&server, "maker", "team/app", "latest", "two").await, (403, "DENIED")).await;
    let two = manifest(br#"{"seed":"two"}"#, b"layer two");
    let digest = Digest::sha256(two.to_string().as_bytes());
    let reference = format!("{digest}?tag=new&tag=latest");
    expect_error(put(&server, "maker", "team/app", &reference, &two).await, (403, "DENIED")).await;
    // What was refused has left nothing, not even the tag that was free.
    let path = "/v2/team/app/manifests/new";
    assert_eq!(by(&server, "admin", Method::GET, path).send().await.unwrap().status(), 404);
    let reference = format!("{digest}?tag=new&tag=newer");
    assert_eq!(put(&server, "maker", "team/app", &reference, &two).await.status(), 201);
    assert_eq!(push(&server, "admin", "team/app", "latest", "two").await.status(), 201);
}

/// CVE-2024-39897: bytes are stored once, rights are not.
#[tokio::test]
async fn a_blob_cannot_be_had_through_another_repository() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "secret/app", "v1", "one").await.status(), 201);
    let layer = Digest::sha256(b"layer one");
    for from in ["&from=secret/app", ""] {
        let path = format!("/v2/team/app/blobs/uploads/?mount={layer}{from}");
        let answer = by(&server, "maker", Method::POST, &path).send().await.unwrap();
        assert_eq!(answer.status(), 202, "mounted with {from:?}");
        let path = format!("/v2/team/app/blobs/{layer}");
        let answer = by(&server, "maker", Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    // Where it may be read it can be mounted.
    assert_eq!(push(&server, "admin", "library/app", "v1", "one").await.status(), 201);
    for (name, from) in [("a", "&from=library/app"), ("b", "")] {
        let path = format!("/v2/team/{name}/blobs/uploads/?mount={layer}{from}");
        let answer = by(&server, "maker", Method::POST, &path).send().await.unwrap();
        assert_eq!(answer.status(), 201, "not mounted with {from:?}");
    }
}

/// harbor#1308: the catalog shows what its reader may pull.
#[tokio::test]
async fn the_catalog_shows_what_may_be_read() {
    let server = start().await;
    for repository in ["library/a", "library/b", "other", "secret/a", "team/a", "team/b"] {
        assert_eq!(push(&server, "admin", repository, "v1", "one").await.status(), 201);
    }
    for (user, expected) in [
        ("", vec!["library/a", "library/b"]),
        ("maker", vec!["library/a", "library/b", "team/a", "team/b"]),
        ("admin", vec!["library/a", "library/b", "other", "secret/a", "team/a", "team/b"]),
    ] {
        // Page by page, as large as they may be.
        for size in [1, 2, 10] {
            let mut names: Vec<String> = Vec::new();
            let mut path = Some(format!("/v2/_catalog?n={size}"));
            while let Some(next) = path.take() {
                let answer = by(&server, user, Method::GET, &next).send().await.unwrap();
                let link =
                    answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
                path = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
                let body: Value = answer.json().await.unwrap();
                let page: Vec<String> =
                    serde_json::from_value(body["repositories"].clone()).unwrap();
                assert!(page.len() <= size);
                names.extend(page);
            }
            assert_eq!(names, expected, "{user:?} in pages of {size}");
        }
    }
}

#[tokio::test]
async fn an_upload_belongs_to_who_began_it() {
    let server = start().await;
    let begun = by(&server, "maker", Method::POST, "/v2/team/app/blobs/uploads/");
    let location = header(&begun.send().await.unwrap(), "location");
    let digest = Digest::sha256(b"bytes");
    for (method, path) in [
        (Method::GET, location.clone()),
        (Method::PATCH, location.clone()),
        (Method::PUT, format!("{location}?digest={digest}")),
        (Method::DELETE, location.clone()),
    ] {
        let answer =
            by(&server, "admin", method.clone(), &path).body("bytes").send().await.unwrap();
        expect_error(answer, (404, "BLOB_UPLOAD_UNKNOWN")).await;
        let answer = by(&server, "", method, &path).body("bytes").send().await.unwrap();
        expect_error(answer, (401, "UNAUTHORIZED")).await;
    }
    let answer = by(&server, "maker", Method::PUT, &format!("{location}?digest={digest}"));
    assert_eq!(answer.body("bytes").send().await.unwrap().status(), 201);
}

/// harbor#12377: what cannot be moved cannot be deleted and made anew either.
#[tokio::test]
async fn immutable_tags_stay_whoever_asks() {
    let rules = r#"
        [[immutable-tags]]
        repositories = ["team/**"]
        tags = ["v*"]
        except = ["v*-rc*"]
    "#;
    let immutable_tags = Config::parse(rules).unwrap().immutable_tags;
    let server = start_with(Options { immutable_tags, ..Options::default() }).await;
    let push = async |reference: &str, seed: &str| {
        push(&server, "admin", "team/app", reference, seed).await
    };
    assert_eq!(push("v1", "one").await.status(), 201);
    assert_eq!(push("v1", "one").await.status(), 201);
    expect_error(push("v1", "two").await, (403, "DENIED")).await;
    assert_eq!(push("v1-rc1", "one").await.status(), 201);
    assert_eq!(push("v1-rc1", "two").await.status(), 201);
    let delete = async |reference: &str| {
        let path = format!("/v2/team/app/manifests/{reference}");
        by(&server, "admin", Method::DELETE, &path).send().await.unwrap()
    };
    expect_error(delete("v1").await, (403, "DENIED")).await;
    let one = manifest(br#"{"seed":"one"}"#, b"layer one");
    let digest = Digest::sha256(one.to_string().as_bytes());
    expect_error(delete(&digest.to_string()).await, (403, "DENIED")).await;
    assert_eq!(delete("v1-rc1").await.status(), 202);
    let two = manifest(br#"{"seed":"two"}"#, b"layer two");
    let digest = Digest::sha256(two.to_string().as_bytes());
    assert_eq!(delete(&digest.to_string()).await.status(), 202);
}

#[tokio::test]
async fn a_read_only_registry_changes_nothing() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "team/app", "v1", "one").await.status(), 201);
    let dir = server.stop().await;
    let options = Options { read_only: true, ..Options::default() };
    let server = crate::support::Server::on(dir, options).await;
    assert_eq!(server.status("/v2/team/app/manifests/v1").await, 200);
    for (method, path) in [
        (Method::POST, "/v2/team/app/blobs/uploads/"),
        (Method::PUT, "/v2/team/app/manifests/v2"),
        (Method::DELETE, "/v2/team/app/manifests/v1"),
    ] {
        let answer = server.request(method, path).body("{}").send().await.unwrap();
        expect_error(answer, (405, "UNSUPPORTED")).await;
    }
    assert_eq!(server.tags("team/app").await, ["v1"]);
}

/// A collector need not wait for those who can only read.
#[tokio::test]
async fn who_only_pulls_leaves_no_mark() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "library/app", "v1", "one").await.status(), 201);
    let layer = Digest::sha256(b"layer one");
    let blob = server.root().join("blob/sha256").join(&layer.hex()[..2]).join(layer.hex());
    let count = || walk(&blob).len();
    // As if all had been pushed long ago.
    for file in walk(&server.root()) {
        let file = std::fs::File::open(file).unwrap();
        let then = file.metadata().unwrap().modified().unwrap();
        file.set_modified(then - std::time::Duration::from_secs(7 * 24 * 3600)).unwrap();
    }
    let before = count();
    let path = format!("/v2/library/app/blobs/{layer}");
    for user in ["", "maker"] {
        assert_eq!(by(&server, user, Method::HEAD, &path).send().await.unwrap().status(), 200);
    }
    assert_eq!(count(), before);
    assert_eq!(by(&server, "admin", Method::HEAD, &path).send().await.unwrap().status(), 200);
    assert_eq!(count(), before + 1);
}

/// All files below a directory.
fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in directory.read_dir().unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}
