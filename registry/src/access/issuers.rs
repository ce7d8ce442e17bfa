//! Tokens of other issuers, checked by the keys that they publish (RFC 7517).

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use futures_util::StreamExt as _;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header, Validation};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use super::scope::{MAX_SCOPES, Scope};
use super::tokens::LEEWAY_S;
use super::{Caller, Refusal, jws, read};

/// How often keys are fetched at most: a token with a key that nobody knows is
/// easily made.
const MIN_REFETCH: Duration = Duration::from_secs(60);

/// After how long keys are fetched again, so that those withdrawn do not count.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How large a set of keys may be.
const MAX_KEYS_BYTES: usize = 256 << 10;

/// An issuer of tokens whom the registry trusts to say who may do what.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IssuerConfig {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// The `aud` of its tokens; the service of our own when not given.
    pub audience: Option<String>,
    /// Its public keys, a JWK set: a file, or an `https` URL.
    pub keys: String,
}

/// Keys, and when they were fetched.
#[derive(Debug, Default)]
struct Known {
    keys: Arc<Vec<Jwk>>,
    fetched: Option<Instant>,
    /// When a fetch was tried last, whatever came of it.
    tried: Option<Instant>,
}

/// An issuer.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    audience: String,
    /// Where its keys are fetched; those from a file are read with the
    /// configuration.
    url: Option<Url>,
    known: Mutex<Known>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// What a token of theirs says that matters to us.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    access: Vec<Scope>,
}

impl Issuer {
    /// Reads the keys if they are in a file.
    pub(super) fn load(
        config: &IssuerConfig,
        directory: &Path,
        service: &str,
    ) -> anyhow::Result<Self> {
        jws::install();
        let IssuerConfig { issuer, audience, keys } = config;
        let mut known = Known::default();
        let url = match keys.parse::<Url>() {
            Ok(url) if url.scheme() == "https" || crate::storage_args::is_loopback(&url) => {
                Some(url)
            }
            Ok(url) if url.scheme() == "http" => {
                bail!("issuer {issuer}: keys from {url} could be anybody's: use https")
            }
            _ => {
                let path = directory.join(keys);
                known.keys = Arc::new(
                    parse(&read(&path)?)
                        .with_context(|| format!("cannot use {}", path.display()))?,
                );
                None
            }
        };
        Ok(Self {
            name: issuer.clone(),
            audience: audience.clone().unwrap_or_else(|| service.to_owned()),
            url,
            known: Mutex::new(known),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns who a token stands for.
    pub(super) async fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::InvalidToken)?;
        // What must be understood, we do not understand (RFC 7515, section 4.1.11).
        // A key that the token brings along proves nothing: `jwk`, `x5c` are not read.
        if header.crit.is_some() || header.alg.family() == AlgorithmFamily::Hmac {
            return Err(Refusal::InvalidToken);
        }
        let keys = self.keys_for(&header).await;
        for key in keys.iter().filter(|key| may_have_signed(key, &header)) {
            let Ok(decoding) = DecodingKey::from_jwk(key) else { continue };
            let Ok(token) =
                jsonwebtoken::decode::<Claims>(token, &decoding, &self.validation(header.alg))
            else {
                continue;
            };
            let Claims { sub, access } = token.claims;
            if access.len() > MAX_SCOPES || sub.chars().any(char::is_control) {
                return Err(Refusal::InvalidToken);
            }
            return Ok(Caller::of_issuer(&self.name, &sub, access));
        }
        Err(Refusal::InvalidToken)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.name]);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation
    }

    /// Returns the keys, fetched anew if they are old or lack the token's.
    async fn keys_for(&self, header: &Header) -> Arc<Vec<Jwk>> {
        let Some(url) = &self.url else { return self.known().keys.clone() };
        if !self.must_fetch(header) {
            return self.known().keys.clone();
        }
        let _one = self.fetching.lock().await;
        // Somebody else may have fetched them meanwhile.
        if self.must_fetch(header) {
            self.known().tried = Some(Instant::now());
            match fetch(url).await {
                Ok(keys) => {
                    let mut known = self.known();
                    known.keys = Arc::new(keys);
                    known.fetched = Some(Instant::now());
                }
                // Old keys stay: an issuer that is down for a moment locks nobody out.
                Err(error) => tracing::warn!(
                    issuer = self.name,
                    error = &*error as &dyn std::error::Error,
                    "cannot fetch an issuer's keys"
                ),
            }
        }
        self.known().keys.clone()
    }

    fn must_fetch(&self, header: &Header) -> bool {
        let known = self.known();
        let has_key = known.keys.iter().any(|key| may_have_signed(key, header));
        let is_fresh = known.fetched.is_some_and(|at| at.elapsed() < MAX_AGE);
        let was_tried = known.tried.is_some_and(|at| at.elapsed() < MIN_REFETCH);
        !(was_tried || has_key && is_fresh)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the lock")
    }
}

/// Whether a key can have made the token's signature.
fn may_have_signed(key: &Jwk, header: &Header) -> bool {
    let common = &key.common;
    let is_named = header.kid.is_none() || common.key_id == header.kid;
    let is_for_signing =
        common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let algorithm: Option<Algorithm> =
        common.key_algorithm.and_then(|algorithm: KeyAlgorithm| algorithm.to_string().parse().ok());
    let fits = match common.key_algorithm {
        Some(_) => algorithm == Some(header.alg),
        None => true,
    };
    is_named && is_for_signing && fits
}

/// Parses a set of keys. Kinds that are not known are left out; secrets are
/// refused: whoever can read the set could sign.
fn parse(bytes: &[u8]) -> anyhow::Result<Vec<Jwk>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes).context("this is no JWK set")?;
    if set.keys.iter().any(|key| key["kty"] == "oct") {
        bail!("the set has symmetric keys");
    }
    let keys: Vec<Jwk> =
        set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect();
    match keys.is_empty() {
        true => bail!("the set has no key that can be used"),
        false => Ok(JwkSet { keys }.keys),
    }
}

async fn fetch(url: &Url) -> anyhow::Result<Vec<Jwk>> {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder()
        .timeout(FETCH_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let answer = client.get(url.clone()).send().await?.error_for_status()?;
    let mut body = answer.bytes_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > MAX_KEYS_BYTES {
            bail!("{url} has more than {MAX_KEYS_BYTES} bytes");
        }
    }
    parse(&bytes)
}

/// Returns the `iss` that a token claims, unverified.
pub(super) fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claimed>(&claims).ok().map(|claimed| claimed.iss)
}
