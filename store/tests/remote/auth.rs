//! Who we are: passwords, tokens, and where they must not go.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use oci::Digest;
use store::remote::{AuthFile, Client, ClientOptions, Credential, Error, PullOptions, PushOptions};

use crate::registry::{Registry, State};
use crate::server::{Reply, Request, Server, pairs};
use crate::{Local, amd64, ignore, noise, options, packed, put_image};

/// "joe:secret"
const BASIC: &str = "Basic am9lOnNlY3JldA==";

/// A client with a `config.json` that has an entry for a registry.
fn client_with(host: &str, entry: &str) -> (tempfile::TempDir, Client) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, format!(r#"{{"auths":{{"{host}":{entry}}}}}"#)).unwrap();
    let auth_files = vec![AuthFile::new(path)];
    (directory, Client::new(ClientOptions { auth_files, ..options() }))
}

fn pull(client: &Client, registry: &Registry) -> Result<(), Error> {
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    client.pull(&lease, &registry.name("app:1"), &packed(), &ignore).map(drop)
}

fn unauthorized(challenge: &str) -> Reply {
    Reply::new(401)
        .header("www-authenticate", challenge)
        .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
}

#[test]
fn passwords_are_shown_where_they_are_asked_for() {
    let registry = Registry::interfered(|request, _| {
        (request.header("authorization") != Some(BASIC)).then(|| unauthorized("Basic realm=x"))
    });
    put_image(&registry, &amd64(), &[b"layer"]);
    let host = registry.server.host();
    let (_directory, client) = client_with(&host, r#"{"auth":"am9lOnNlY3JldA=="}"#);
    pull(&client, &registry).unwrap();
    // The first answer told what to show; after that every request shows it at once.
    let refused = registry.server.log().iter().filter(|line| !line.ends_with('+')).count();
    assert_eq!(refused, 1);

    let error = pull(&Client::new(options()), &registry).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{host} wants other credentials for manifest 1 of app: authentication required")
    );
    let (_directory, client) = client_with(&host, r#"{"auth":"am9lOndyb25n"}"#);
    let error = pull(&client, &registry).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

/// A token server that gives out numbered tokens, and writes down what it was asked.
struct Tokens {
    server: Server,
    asked: Arc<Mutex<Vec<String>>>,
    given: Arc<AtomicUsize>,
}

impl Tokens {
    fn start(expires_in: u64) -> Self {
        let (asked, given) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (lines, count) = (Arc::clone(&asked), Arc::clone(&given));
        let server = Server::start(move |request| {
            let form = String::from_utf8(request.body(usize::MAX)).unwrap();
            let values = if form.is_empty() { request.query.clone() } else { pairs(&form) };
            let values: Vec<String> = values
                .iter()
                .map(|(name, values)| format!("{name}={}", values.join(",")))
                .collect();
            let who = request.header("authorization").unwrap_or("nobody");
            lines.lock().unwrap().push(format!("{} {who} {}", request.method, values.join("&")));
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let refresh = if request.method == "POST" { r#","refresh_token":"next""# } else { "" };
            Reply::new(200)
                .body(format!(r#"{{"token":"t{number}","expires_in":{expires_in}{refresh}}}"#))
        });
        Self { server, asked, given }
    }

    fn challenge(&self) -> String {
        format!(r#"Bearer realm="http://{}/token",service="reg""#, self.server.host())
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Starts a registry that wants the newest token of a token server.
fn registry_with(tokens: &Tokens) -> Registry {
    let (challenge, given) = (tokens.challenge(), Arc::clone(&tokens.given));
    Registry::interfered(move |request, _| {
        let newest = format!("Bearer t{}", given.load(Ordering::SeqCst));
        (request.header("authorization") != Some(&newest)).then(|| unauthorized(&challenge))
    })
}

#[test]
fn one_token_serves_a_whole_pull() {
    let tokens = Tokens::start(300);
    let registry = registry_with(&tokens);
    let layers: Vec<Vec<u8>> = (0..8).map(|seed| noise(1000, seed)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    put_image(&registry, &amd64(), &layers);
    pull(&Client::new(options()), &registry).unwrap();
    assert_eq!(tokens.asked(), ["GET nobody scope=repository:app:pull&service=reg"]);
}

#[test]
fn passwords_are_changed_for_tokens() {
    let tokens = Tokens::start(300);
    let registry = registry_with(&tokens);
    put_image(&registry, &amd64(), &[b"layer"]);
    let host = registry.server.host();
    let (_directory, client) = client_with(&host, r#"{"auth":"am9lOnNlY3JldA=="}"#);
    pull(&client, &registry).unwrap();
    let expected = format!("GET {BASIC} account=joe&scope=repository:app:pull&service=reg");
    assert_eq!(tokens.asked(), [expected]);
}

#[test]
fn identity_tokens_are_posted_and_replaced() {
    // Every token is too old at once, so that each request needs a new one.
    let tokens = Tokens::start(1);
    let registry = registry_with(&tokens);
    put_image(&registry, &amd64(), &[]);
    let host = registry.server.host();
    let (_directory, client) = client_with(&host, r#"{"identitytoken":"first"}"#);
    pull(&client, &registry).unwrap();
    let line = |refresh: &str| {
        format!(
            "POST nobody client_id=rbuild&grant_type=refresh_token&refresh_token={refresh}\
             &scope=repository:app:pull&service=reg"
        )
    };
    assert_eq!(tokens.asked()[0], line("first"));
    assert!(tokens.asked()[1..].iter().all(|asked| *asked == line("next")));
    assert!(tokens.asked().len() > 1);
}

#[test]
fn tokens_that_end_early_are_renewed() {
    let tokens = Tokens::start(300);
    let (challenge, given) = (tokens.challenge(), Arc::clone(&tokens.given));
    let uses = AtomicUsize::new(0);
    let registry = Registry::interfered(move |request: &mut Request, _: &mut State| {
        let newest = format!("Bearer t{}", given.load(Ordering::SeqCst));
        let is_valid = request.header("authorization") == Some(&newest)
            // Each token lasts for two requests, whatever its server says.
            && uses.fetch_add(1, Ordering::SeqCst) % 3 != 2;
        (!is_valid).then(|| unauthorized(&challenge))
    });
    let layers: Vec<Vec<u8>> = (0..4).map(|seed| noise(300_000, seed)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    put_image(&registry, &amd64(), &layers);
    let client = Client::new(ClientOptions { parallel: 1, ..options() });
    pull(&client, &registry).unwrap();
    assert!(tokens.asked().len() > 1);
}

#[test]
fn pushes_ask_for_more_and_mounts_for_both() {
    let tokens = Tokens::start(300);
    let registry = registry_with(&tokens);
    put_image(&registry, &amd64(), &[&noise(1_000_000, 1)]);
    let client = Client::new(options());
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let pulled = client.pull(&lease, &registry.name("app:1"), &packed(), &ignore).unwrap();
    let push = PushOptions { platform: amd64(), ..PushOptions::default() };
    client.push(&lease, &pulled.descriptor, &registry.name("b:1"), &push, &ignore).unwrap();
    assert!(registry.has_blob("b", &Digest::sha256(&noise(1_000_000, 1))));
    let asked = tokens.asked().join("\n");
    assert!(asked.contains("scope=repository:b:pull,push&"), "{asked}");
    assert!(asked.contains("scope=repository:b:pull,push,repository:app:pull&"), "{asked}");
}

#[test]
fn refusals_of_the_token_server_are_quoted() {
    let tokens = Server::start(|_| Reply::new(401).body(r#"{"details":"incorrect password"}"#));
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.host());
    let registry = Registry::interfered(move |_, _| Some(unauthorized(&challenge)));
    let error = pull(&Client::new(options()), &registry).unwrap_err();
    assert!(error.to_string().ends_with(": incorrect password"), "{error}");
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
}

#[test]
fn a_busy_token_server_is_asked_again() {
    let times = AtomicUsize::new(0);
    let tokens = Server::start(move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503),
        1 => Reply::silence(),
        _ => Reply::new(200).body(r#"{"access_token":"t"}"#),
    });
    let challenge = format!(r#"Bearer realm="http://{}/token""#, tokens.host());
    let registry = Registry::interfered(move |request, _| {
        (request.header("authorization") != Some("Bearer t")).then(|| unauthorized(&challenge))
    });
    put_image(&registry, &amd64(), &[b"x"]);
    pull(&Client::new(options()), &registry).unwrap();
}

#[test]
fn credentials_do_not_follow_to_another_host() {
    let layer = noise(100_000, 1);
    let stored = layer.clone();
    let storage = Server::start(move |request| {
        assert_eq!(request.header("authorization"), None);
        Reply::new(200).body(&stored[..])
    });
    let (target, digest) = (storage.host(), Digest::sha256(&layer));
    let registry = Registry::interfered(move |request, _| {
        if request.header("authorization") != Some(BASIC) {
            return Some(unauthorized("Basic"));
        }
        let is_layer = request.path.ends_with(&digest.to_string());
        is_layer.then(|| Reply::new(307).header("location", format!("http://{target}/data")))
    });
    put_image(&registry, &amd64(), &[&layer]);
    let host = registry.server.host();
    let (_directory, client) = client_with(&host, r#"{"username":"joe","password":"secret"}"#);
    pull(&client, &registry).unwrap();
    assert_eq!(storage.log(), ["GET /data"]);
}

#[test]
fn circles_of_redirects_end() {
    let registry = Registry::interfered(|request, _| {
        let location = request.path.clone();
        request.path.contains("/manifests/").then(|| Reply::new(302).header("location", location))
    });
    let error = pull(&Client::new(options()), &registry).unwrap_err();
    assert!(error.to_string().ends_with("it redirects without end"), "{error}");
}

#[test]
fn a_token_server_without_tls_gets_no_password() {
    let registry = Registry::interfered(|_, _| {
        Some(unauthorized(r#"Bearer realm="http://token.example/token""#))
    });
    let host = registry.server.host();
    let (_directory, client) = client_with(&host, r#"{"auth":"am9lOnNlY3JldA=="}"#);
    let error = pull(&client, &registry).unwrap_err();
    assert!(error.to_string().ends_with("is not reached over HTTPS"), "{error}");
}

#[test]
fn logins_are_checked() {
    let registry = Registry::interfered(|request, _| {
        (request.header("authorization") != Some(BASIC)).then(|| unauthorized("Basic"))
    });
    let (client, host) = (Client::new(options()), registry.server.host());
    client.login(&host, &Credential::password("joe", "secret"), &ignore).unwrap();
    let error = client.login(&host, &Credential::password("joe", "wrong"), &ignore).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");

    let tokens = Tokens::start(300);
    let registry = registry_with(&tokens);
    let host = registry.server.host();
    client.login(&host, &Credential::password("joe", "secret"), &ignore).unwrap();
    assert_eq!(tokens.asked(), [format!("GET {BASIC} account=joe&service=reg")]);
}

#[test]
fn helpers_are_asked_for_the_registry() {
    let registry = Registry::interfered(|request, _| {
        (request.header("authorization") != Some(BASIC)).then(|| unauthorized("Basic"))
    });
    put_image(&registry, &amd64(), &[b"layer"]);
    let directory = tempfile::tempdir().unwrap();
    let helper = directory.path().join("docker-credential-test");
    let script = r#"#!/bin/sh
echo '{"ServerURL":"x","Username":"joe","Secret":"secret"}'"#;
    // Written by another process: a program that this one has open for writing, even in a child
    // that another test is just starting, cannot be started.
    let mut writer = Command::new("sh")
        .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
        .arg(&helper)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writer.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    let path = directory.path().join("config.json");
    let host = registry.server.host();
    fs::write(&path, format!(r#"{{"credHelpers":{{"{host}":"test"}}}}"#)).unwrap();
    let client = Client::new(ClientOptions {
        auth_files: vec![AuthFile::new(directory.path().join("none")), AuthFile::new(path)],
        helper_directory: Some(directory.path().to_owned()),
        ..options()
    });
    pull(&client, &registry).unwrap();
}

/// Everything goes to the proxy, except what is on this machine.
#[test]
fn proxies_are_used_for_other_hosts_only() {
    let target: Arc<OnceLock<Registry>> = Arc::new(OnceLock::new());
    let behind = Arc::clone(&target);
    let proxy = Server::start(move |request| {
        let absolute = request.path.strip_prefix("http://registry.example").unwrap().to_owned();
        request.path = absolute;
        behind.get().unwrap().state.lock().unwrap().answer(request)
    });
    let registry = target.get_or_init(Registry::start);
    put_image(registry, &amd64(), &[b"layer"]);
    let client = Client::new(ClientOptions {
        insecure_hosts: vec!["registry.example".to_owned()],
        proxies: store::remote::Proxies {
            http: Some(format!("http://{}", proxy.host())),
            ..store::remote::Proxies::default()
        },
        ..options()
    });
    let local = Local::new();
    let lease = local.store.lease().unwrap();
    let name = "registry.example/app:1".parse().unwrap();
    let options = PullOptions { platform: amd64(), unpack: false, ..PullOptions::default() };
    client.pull(&lease, &name, &options, &ignore).unwrap();
    assert!(proxy.count("GET http://registry.example/v2/app/") > 0);

    let before = proxy.log().len();
    client.pull(&lease, &registry.name("app:1"), &options, &ignore).unwrap();
    assert_eq!(proxy.log().len(), before);
}
