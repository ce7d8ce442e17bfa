//! Tokens, as docker's clients ask for them.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Server, expect_error, header};
use crate::world::{by, password, push, start};

async fn token(server: &Server, user: &str, query: &str) -> (StatusCode, Value) {
    let answer = by(server, user, Method::GET, &format!("/token?{query}")).send().await.unwrap();
    let status = answer.status();
    (status, answer.json().await.unwrap())
}

async fn status_with(server: &Server, token: &str, method: Method, path: &str) -> u16 {
    server.request(method, path).bearer_auth(token).send().await.unwrap().status().as_u16()
}

/// Docker's road: refused at `/v2/`, told where tokens are, let in with one.
#[tokio::test]
async fn a_client_finds_its_way_to_a_token() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "team/app", "v1", "one").await.status(), 201);
    let refused = server.get("/v2/").await;
    assert_eq!(refused.status(), 401);
    let realm = format!("http://{}/token", server.address);
    let challenge = format!("Bearer realm=\"{realm}\",service=\"rregistry\"");
    assert_eq!(header(&refused, "www-authenticate"), challenge);
    assert_eq!(header(&refused, "docker-distribution-api-version"), "registry/2.0");
    let refused = server.get("/v2/team/app/manifests/v1").await;
    let scope = format!("{challenge},scope=\"repository:team/app:pull\"");
    assert_eq!(header(&refused, "www-authenticate"), scope);
    let refused = server.post("/v2/team/app/blobs/uploads/").await;
    let scope = format!("{challenge},scope=\"repository:team/app:pull,push\"");
    assert_eq!(header(&refused, "www-authenticate"), scope);

    // `docker login` asks without a scope.
    let query = "account=maker&client_id=docker&offline_token=true&service=rregistry";
    let (status, body) = token(&server, "maker", query).await;
    assert_eq!(status, 200);
    assert_eq!(body["token"], body["access_token"]);
    assert_eq!(body["expires_in"], 300);
    let login = body["token"].as_str().unwrap();
    assert_eq!(status_with(&server, login, Method::GET, "/v2/").await, 200);
    // It is good for nothing but the proof.
    let answer = server.request(Method::GET, "/v2/team/app/manifests/v1").bearer_auth(login);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(header(&answer, "www-authenticate").ends_with(",error=\"insufficient_scope\""));

    let query = "service=rregistry&scope=repository:team/app:pull,push&scope=repository:b:pull";
    let (_, body) = token(&server, "maker", query).await;
    assert_eq!(body["scope"], "repository:team/app:pull,push");
    let token = body["token"].as_str().unwrap();
    assert_eq!(status_with(&server, token, Method::GET, "/v2/team/app/manifests/v1").await, 200);
    assert_eq!(status_with(&server, token, Method::POST, "/v2/team/app/blobs/uploads/").await, 202);
    assert_eq!(status_with(&server, token, Method::POST, "/v2/team/b/blobs/uploads/").await, 401);
    assert_eq!(status_with(&server, token, Method::DELETE, "/v2/team/app/manifests/v1").await, 403);
    assert_eq!(status_with(&server, token, Method::GET, "/v2/b/tags/list").await, 403);
}

#[tokio::test]
async fn nobody_gets_a_token_for_what_is_open() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "library/app", "v1", "one").await.status(), 201);
    let query =
        "service=rregistry&scope=repository:library/app:pull,push%20repository:team/app:pull";
    let (status, body) = token(&server, "", query).await;
    assert_eq!(
        (status.as_u16(), &body["scope"]),
        (200, &Value::from("repository:library/app:pull"))
    );
    let token = body["token"].as_str().unwrap();
    assert_eq!(status_with(&server, token, Method::GET, "/v2/").await, 200);
    assert_eq!(status_with(&server, token, Method::GET, "/v2/library/app/manifests/v1").await, 200);
    assert_eq!(
        status_with(&server, token, Method::POST, "/v2/library/app/blobs/uploads/").await,
        401
    );
    assert_eq!(status_with(&server, token, Method::GET, "/v2/team/app/tags/list").await, 401);
}

#[tokio::test]
async fn a_form_is_as_good_as_a_header() {
    let server = start().await;
    let post = async |form: &str| {
        let request = server.request(Method::POST, "/token").body(form.to_owned());
        let form_type = "application/x-www-form-urlencoded";
        request.header("content-type", form_type).send().await.unwrap()
    };
    let secret = password("maker");
    let form = format!(
        "grant_type=password&username=maker&password={secret}&client_id=c&service=rregistry\
         &scope=repository%3Ateam%2Fapp%3Apull+repository%3Ateam%2Fb%3Apull"
    );
    let answer = post(&form).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "cache-control"), "no-store");
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["scope"], "repository:team/app:pull repository:team/b:pull");
    for (form, expected) in [
        ("grant_type=password&username=maker&password=wrong", (401, "UNAUTHORIZED")),
        ("grant_type=refresh_token&refresh_token=x", (400, "UNSUPPORTED")),
        ("grant_type=password&username=maker", (400, "UNSUPPORTED")),
        ("", (400, "UNSUPPORTED")),
        (&"a=b&".repeat(5000), (400, "UNSUPPORTED")),
    ] {
        expect_error(post(form).await, expected).await;
    }
}

#[tokio::test]
async fn wrong_credentials_never_become_nobody() {
    let server = start().await;
    assert_eq!(push(&server, "admin", "library/app", "v1", "one").await.status(), 201);
    let open = "/v2/library/app/manifests/v1";
    assert_eq!(server.status(open).await, 200);
    for authorization in ["Basic bWFrZXI6d3Jvbmc=", "Bearer x.y.z", "Bearer ", "Digest a", "x"] {
        for path in [open, "/v2/", "/v2/_catalog"] {
            let request = server.request(Method::GET, path).header("authorization", authorization);
            let answer = request.send().await.unwrap();
            assert!(answer.headers().contains_key("www-authenticate"), "{authorization} at {path}");
            expect_error(answer, (401, "UNAUTHORIZED")).await;
        }
    }
    let twice = server
        .request(Method::GET, open)
        .header("authorization", "Basic bWFrZXI6d3Jvbmc=")
        .header("authorization", "Bearer x");
    expect_error(twice.send().await.unwrap(), (401, "UNAUTHORIZED")).await;
    let wrong = server.request(Method::GET, "/token").basic_auth("maker", Some("wrong"));
    let answer = wrong.send().await.unwrap();
    assert!(header(&answer, "www-authenticate").starts_with("Basic "));
    expect_error(answer, (401, "UNAUTHORIZED")).await;
    expect_error(
        by(&server, "maker", Method::GET, "/token?service=other").send().await.unwrap(),
        (400, "UNSUPPORTED"),
    )
    .await;
}

/// Health is for whoever watches the process; it says nothing about content.
#[tokio::test]
async fn health_needs_no_token() {
    let server = start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(server.status(path).await, 200);
    }
    assert_eq!(Server::start().await.status("/token").await, 404);
}

#[tokio::test]
async fn the_realm_is_where_the_client_came_in() {
    let server = start().await;
    let realm = async |name: &'static str, value: &str, host: &str| {
        let request = server.request(Method::GET, "/v2/").header(name, value);
        let answer = request.header("host", host).send().await.unwrap();
        header(&answer, "www-authenticate")
    };
    let expected = "Bearer realm=\"https://images.example/token\",service=\"rregistry\"";
    assert_eq!(realm("x-forwarded-proto", "https", "images.example").await, expected);
    let expected = "Bearer realm=\"http://images.example/reg/token\",service=\"rregistry\"";
    assert_eq!(realm("x-forwarded-prefix", "/reg", "images.example").await, expected);
    // What is no host does not get into the header.
    let expected = "Bearer realm=\"http://localhost/token\",service=\"rregistry\"";
    assert_eq!(realm("x-forwarded-proto", "ftp\"", "a\"b").await, expected);
}
