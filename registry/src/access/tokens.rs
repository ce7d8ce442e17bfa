//! Tokens of our own: docker's token specification (distribution, "Token
//! Authentication Specification"), signed by HS256 with a secret of ours.
//!
//! A token says who asked for it and for what. It never widens what the policies
//! give: they are looked at again with each request.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::scope::{MAX_SCOPES, Scope};
use super::{Caller, Refusal, UserName, jws};

/// The longest token that is looked at, in bytes.
pub(super) const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How long a token counts when the configuration does not say: docker asks for
/// at least 60 seconds.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);

/// How far clocks may differ.
pub(super) const LEEWAY_S: u64 = 30;

/// What a token of ours says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// Empty for a caller without a name.
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    access: Vec<Scope>,
}

/// Makes and checks tokens.
pub(crate) struct Tokens {
    service: String,
    lifetime: Duration,
    sign: EncodingKey,
    verify: DecodingKey,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Tokens {
    /// `service` names this registry, or all its replicas; `secret` is theirs.
    pub(crate) fn new(service: String, lifetime: Duration, secret: &[u8]) -> Self {
        jws::install();
        Self {
            service,
            lifetime,
            sign: EncodingKey::from_secret(secret),
            verify: DecodingKey::from_secret(secret),
        }
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns a token that lets `user` use `scopes`.
    pub(crate) fn issue(&self, user: Option<&UserName>, scopes: Vec<Scope>, now_s: u64) -> String {
        let claims = Claims {
            iss: self.service.clone(),
            aud: self.service.clone(),
            sub: user.map(ToString::to_string).unwrap_or_default(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + self.lifetime.as_secs(),
            access: scopes,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.sign)
            .expect("text and numbers always serialize, and any secret signs")
    }

    /// Returns who a token of ours stands for.
    pub(super) fn verify(&self, token: &str) -> Result<Caller, Refusal> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Refusal::InvalidToken)?;
        // What must be understood, we do not understand (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(Refusal::InvalidToken);
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.service]);
        validation.set_issuer(&[&self.service]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verify, &validation)
            .map_err(|_| Refusal::InvalidToken)?
            .claims;
        let user = match claims.sub.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|_| Refusal::InvalidToken)?),
        };
        match claims.access.len() <= MAX_SCOPES {
            true => Ok(Caller::with_token(user, claims.access)),
            false => Err(Refusal::InvalidToken),
        }
    }
}
