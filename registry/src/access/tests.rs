use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const SECRET: [u8; 32] = [9; 32];
const SERVICE: &str = "rregistry";

struct World {
    directory: tempfile::TempDir,
    access: Access,
}

/// An issuer's key: P-256, made by ring.
struct Key {
    pair: ring::signature::EcdsaKeyPair,
    id: &'static str,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let random = ring::rand::SystemRandom::new();
        let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random);
        Self { pair: pair.unwrap(), id }
    }

    fn jwk(&self) -> Value {
        use ring::signature::KeyPair as _;
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": base64url(&point[1..33]), "y": base64url(&point[33..65]),
        })
    }

    /// Signs a token with that header, whatever it says.
    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let random = ring::rand::SystemRandom::new();
        let signature = self.pair.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", base64url(signature.as_ref()))
    }
}

fn base64url(bytes: &[u8]) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn now_s() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn world(keys: &[&Key]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let hash = hash_password("wonder", &[1; 16]).unwrap();
    std::fs::write(directory.path().join("users"), format!("alice:{hash}\nbob:{hash}\n")).unwrap();
    let jwks = json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() });
    std::fs::write(directory.path().join("jwks"), jwks.to_string()).unwrap();
    let mut config = r#"
        users-file = "users"
        policies = [
            { users = ["@anyone"], repositories = ["library/*"], actions = ["pull"] },
            { users = ["bob"], repositories = ["team/**"], actions = ["pull", "create"] },
            { users = ["alice"], repositories = ["**"], actions = ["pull", "push", "delete"] },
        ]
        "#
    .to_owned();
    if !keys.is_empty() {
        config += "[[issuers]]\nissuer = \"https://ci.example\"\nkeys = \"jwks\"\n";
    }
    let config: AccessConfig = toml::from_str(&config).unwrap();
    let access = Access::load(&config, directory.path(), &SECRET).unwrap();
    World { directory, access }
}

impl World {
    async fn bearer(&self, token: &str) -> Result<Caller, Refusal> {
        self.access.identify(Some(&format!("Bearer {token}"))).await
    }

    fn decide(&self, caller: &Caller, repository: &str, action: Action) -> Decision {
        self.access.decide(caller, &repository.parse().unwrap(), action)
    }

    fn token(&self, user: Option<&str>, scopes: &[&str]) -> String {
        let user: Option<UserName> = user.map(|user| user.parse().unwrap());
        let wanted: Vec<Scope> = scopes.iter().map(|text| Scope::parse(text).unwrap()).collect();
        let granted = self.access.grant(user.as_ref(), &wanted);
        self.access.tokens().issue(user.as_ref(), granted, now_s())
    }
}

#[tokio::test]
async fn a_password_gives_what_the_policies_give() {
    let world = world(&[]);
    let basic =
        |text: &str| format!("basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    let bob = world.access.identify(Some(&basic("bob:wonder"))).await.unwrap();
    assert_eq!((bob.principal(), bob.is_named()), ("bob", true));
    assert_eq!(world.decide(&bob, "team/app", Action::Create), Decision::Allowed);
    assert_eq!(world.decide(&bob, "team/app", Action::Push), Decision::Denied);
    assert_eq!(world.decide(&bob, "library/app", Action::Pull), Decision::Allowed);
    assert_eq!(world.decide(&bob, "other", Action::Pull), Decision::Denied);
    for (header, expected) in [
        (basic("bob:wander"), Refusal::InvalidPassword { tried: Some("bob".parse().unwrap()) }),
        (basic("carol:wonder"), Refusal::InvalidPassword { tried: None }),
        (basic("bob"), Refusal::InvalidHeader),
        ("Basic !!".to_owned(), Refusal::InvalidHeader),
        ("Basic".to_owned(), Refusal::InvalidHeader),
        ("Digest abc".to_owned(), Refusal::InvalidHeader),
        (String::new(), Refusal::InvalidHeader),
    ] {
        let refused = world.access.identify(Some(&header)).await.unwrap_err();
        assert_eq!(refused, expected, "{header}");
    }
    let nobody = world.access.identify(None).await.unwrap();
    assert!(nobody.is_nobody());
    assert_eq!(world.decide(&nobody, "library/app", Action::Pull), Decision::Allowed);
    assert_eq!(world.decide(&nobody, "library/app", Action::Push), Decision::Denied);
}

#[tokio::test]
async fn a_token_narrows_and_never_widens() {
    let world = world(&[]);
    let token =
        world.token(Some("alice"), &["repository:team/app:pull,push", "repository:b:delete"]);
    let alice = world.bearer(&token).await.unwrap();
    assert_eq!(alice.principal(), "alice");
    assert_eq!(world.decide(&alice, "team/app", Action::Push), Decision::Allowed);
    assert_eq!(world.decide(&alice, "team/app", Action::Delete), Decision::NeedsScope);
    assert_eq!(world.decide(&alice, "team/app2", Action::Pull), Decision::NeedsScope);
    assert_eq!(world.decide(&alice, "b", Action::Delete), Decision::Allowed);
    // Bob asks for more than he has: `push` is granted, but only to create.
    let token = world.token(Some("bob"), &["repository:team/app:*", "repository:b:pull"]);
    let bob = world.bearer(&token).await.unwrap();
    assert_eq!(world.decide(&bob, "team/app", Action::Create), Decision::Allowed);
    assert_eq!(world.decide(&bob, "team/app", Action::Push), Decision::Denied);
    assert_eq!(world.decide(&bob, "team/app", Action::Delete), Decision::Denied);
    assert_eq!(world.decide(&bob, "b", Action::Pull), Decision::Denied);
    // A token without a name is no name, but more than nothing.
    let token = world.token(None, &["repository:library/app:pull,push"]);
    let anonymous = world.bearer(&token).await.unwrap();
    assert!(!anonymous.is_named() && !anonymous.is_nobody());
    assert_eq!(world.decide(&anonymous, "library/app", Action::Pull), Decision::Allowed);
    assert_eq!(world.decide(&anonymous, "library/app", Action::Push), Decision::Denied);
}

#[tokio::test]
async fn a_user_who_was_removed_has_no_token() {
    let world = world(&[]);
    let token = world.access.tokens().issue(Some(&"carol".parse().unwrap()), Vec::new(), now_s());
    assert_eq!(world.bearer(&token).await.unwrap_err(), Refusal::InvalidToken);
}

/// Forged, over, early, for others: distribution CVE-2025-24976, "none", a
/// signature by another algorithm, `crit`.
#[tokio::test]
async fn tokens_of_ours_that_do_not_count() {
    let world = world(&[]);
    let claims = |change: Value| {
        let now = now_s();
        let mut claims = json!({
            "iss": SERVICE, "aud": SERVICE, "sub": "alice", "iat": now, "nbf": now,
            "exp": now + 300, "access": [],
        });
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    };
    let sign = |secret: &[u8], claims: &Value| {
        jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let good = sign(&SECRET, &claims(json!({})));
    assert_eq!(world.bearer(&good).await.unwrap().principal(), "alice");
    let mut bad = vec![
        ("another secret", sign(&[8; 32], &claims(json!({})))),
        ("an empty secret", sign(b"", &claims(json!({})))),
    ];
    for (what, change) in [
        ("over", json!({ "exp": now_s() - 60 })),
        ("early", json!({ "nbf": now_s() + 60 })),
        ("without end", json!({ "exp": null })),
        ("without beginning", json!({ "nbf": null })),
        ("for another service", json!({ "aud": "other" })),
        ("for nobody", json!({ "aud": null })),
        ("by another issuer", json!({ "iss": "https://ci.example" })),
        ("by nobody", json!({ "iss": null })),
        ("without a subject", json!({ "sub": null })),
        ("a subject that is no name", json!({ "sub": "@users" })),
        ("access of another shape", json!({ "access": "all" })),
        (
            "access without end",
            json!({ "access": vec![json!({ "type": "repository", "name": "a", "actions": ["*"] }); 65] }),
        ),
    ] {
        bad.push((what, sign(&SECRET, &claims(change))));
    }
    let body = base64url(claims(json!({})).to_string().as_bytes());
    let raw = |header: Value| base64url(header.to_string().as_bytes());
    let signature = good.rsplit('.').next().unwrap();
    bad.extend([
        ("none", format!("{}.{body}.", raw(json!({ "alg": "none", "typ": "JWT" })))),
        ("None", format!("{}.{body}.{signature}", raw(json!({ "alg": "None" })))),
        ("no signature", format!("{}.", &good[..good.rfind('.').unwrap()])),
        ("two parts", good[..good.rfind('.').unwrap()].to_owned()),
        ("four parts", format!("{good}.x")),
        ("no parts", "x".to_owned()),
        ("too long", format!("{good}{}", "A".repeat(20_000))),
    ]);
    let critical = json!({ "alg": "HS256", "crit": ["exp"], "exp": 1 });
    let message = format!("{}.{body}", raw(critical));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &SECRET);
    let signed = ring::hmac::sign(&key, message.as_bytes());
    bad.push(("critical", format!("{message}.{}", base64url(signed.as_ref()))));
    for (what, token) in bad {
        let refused = world.bearer(&token).await.map(|caller| caller.principal().to_owned());
        assert_eq!(refused, Err(Refusal::InvalidToken), "{what}");
    }
}

fn external(change: &[(&str, Value)]) -> Value {
    let now = now_s();
    let mut claims = json!({
        "iss": "https://ci.example", "aud": SERVICE, "sub": "repo:team/app", "exp": now + 300,
        "access": [{ "type": "repository", "name": "team/app", "actions": ["pull", "push"] }],
    });
    for (name, value) in change {
        claims[*name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn a_token_of_an_issuer_is_taken_at_its_word() {
    let key = Key::new("first");
    let world = world(&[&Key::new("other"), &key]);
    let token = key.sign(&json!({ "alg": "ES256", "kid": "first" }), &external(&[]));
    let caller = world.bearer(&token).await.unwrap();
    assert_eq!(caller.principal(), "repo:team/app@https://ci.example");
    assert_eq!(world.decide(&caller, "team/app", Action::Push), Decision::Allowed);
    assert_eq!(world.decide(&caller, "team/app", Action::Delete), Decision::NeedsScope);
    // What the policies give everybody is not in the token.
    assert_eq!(world.decide(&caller, "library/app", Action::Pull), Decision::NeedsScope);
    assert!(world.access.may_see(&caller, &"team/app".parse().unwrap()));
    assert!(!world.access.may_see(&caller, &"library/app".parse().unwrap()));
}

#[tokio::test]
async fn tokens_of_issuers_that_do_not_count() {
    let (key, stranger) = (Key::new("first"), Key::new("first"));
    let world = world(&[&key]);
    let header = json!({ "alg": "ES256", "kid": "first" });
    let now = now_s();
    let public = std::fs::read(world.directory.path().join("jwks")).unwrap();
    let hs256 = |secret: &[u8]| {
        let header = Header { kid: Some("first".to_owned()), ..Header::default() };
        let key = EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &external(&[]), &key).unwrap()
    };
    for (what, token) in [
        // distribution CVE-2025-24976: the name of a key is no proof of it.
        ("another key of that name", stranger.sign(&header, &external(&[]))),
        (
            "a key that it brings along",
            stranger.sign(&json!({ "alg": "ES256", "jwk": stranger.jwk() }), &external(&[])),
        ),
        (
            "a key that nobody knows",
            key.sign(&json!({ "alg": "ES256", "kid": "x" }), &external(&[])),
        ),
        ("another algorithm", key.sign(&json!({ "alg": "ES384", "kid": "first" }), &external(&[]))),
        (
            "critical",
            key.sign(&json!({ "alg": "ES256", "kid": "first", "crit": ["b64"] }), &external(&[])),
        ),
        // The public key as a secret.
        ("symmetric", hs256(&public)),
        ("our secret", hs256(&SECRET)),
        ("over", key.sign(&header, &external(&[("exp", json!(now - 60))]))),
        ("early", key.sign(&header, &external(&[("nbf", json!(now + 60))]))),
        ("for others", key.sign(&header, &external(&[("aud", json!("other"))]))),
        ("by others", key.sign(&header, &external(&[("iss", json!("https://evil.example"))]))),
        (
            "as if ours",
            key.sign(&header, &external(&[("iss", json!(SERVICE)), ("nbf", json!(now))])),
        ),
        ("a subject for the log", key.sign(&header, &external(&[("sub", json!("a\nb"))]))),
    ] {
        assert_eq!(world.bearer(&token).await.map(|_| ()), Err(Refusal::InvalidToken), "{what}");
    }
}

#[test]
fn what_would_open_the_door_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        std::fs::write(directory.path().join(name), text).unwrap();
    };
    write("users", b"alice:plain\n");
    write("short", b"secret");
    write("oct", br#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#);
    write("none", br#"{"keys":[]}"#);
    for (text, expected) in [
        ("", "nobody may do anything"),
        (
            r#"policies = [{ users = ["bob"], repositories = ["**"], actions = ["pull"] }]"#,
            "there is no `users-file`",
        ),
        (r#"users-file = "missing""#, "cannot read"),
        (r#"users-file = "users""#, "line 1"),
        (r#"issuers = [{ issuer = "a", keys = "oct" }]"#, "symmetric"),
        (r#"issuers = [{ issuer = "a", keys = "none" }]"#, "no key"),
        (r#"issuers = [{ issuer = "a", keys = "http://ci.example/jwks" }]"#, "use https"),
        (
            r#"policies = [{ users = ["@anyone"], repositories = ["**"], actions = ["pull"] }]
            tokens = { key-file = "short" }"#,
            "fewer than 32 bytes",
        ),
        (
            r#"policies = [{ users = ["@anyone"], repositories = ["**"], actions = ["pull"] }]
            tokens = { lifetime-seconds = 5 }"#,
            "between 60 and 86400",
        ),
        (
            r#"policies = [{ users = ["@anyone"], repositories = ["**"], actions = ["pull"] }]
            tokens = { service = "a\"b" }"#,
            "without quotes",
        ),
    ] {
        let config: AccessConfig = toml::from_str(text).unwrap();
        let error = Access::load(&config, directory.path(), &SECRET).unwrap_err();
        assert!(format!("{error:#}").contains(expected), "{text}: {error:#}");
    }
}

#[test]
fn debugging_shows_no_secret() {
    let world = world(&[]);
    let shown = format!("{:?}", world.access);
    assert!(!shown.contains("argon2") && !shown.contains("9, 9"), "{shown}");
}
