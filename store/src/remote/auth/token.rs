//! Bearer tokens: fetched, kept while they last, and renewed.
//!
//! distribution's documents "Token Authentication Specification" (a GET with Basic) and "OAuth2
//! Token Authentication" (a POST with a refresh token).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use oci::Repository;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::{self, Challenge};
use super::secret::{Credential, Secret};
use crate::remote::error::{Error, Result};
use crate::remote::retry::{self, Failure};

/// How long a token lasts whose server does not say, by the token specification.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

/// A token is renewed when it has less than this left: a request takes a while to arrive.
const MARGIN: Duration = Duration::from_secs(5);

/// No token lasts longer for us, whatever its server says; a year would overflow nothing but trust.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Tokens have a few kilobytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What we call ourselves to token servers, which want a name.
const CLIENT_ID: &str = "rbuild";

/// What a token must allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::remote) struct Scope {
    /// The repository that is read or written; none to see whether credentials work.
    pub(in crate::remote) repository: Option<Repository>,
    /// Whether it is written.
    pub(in crate::remote) is_push: bool,
    /// Repositories that blobs are mounted from.
    pub(in crate::remote) sources: BTreeSet<Repository>,
}

impl Scope {
    pub(in crate::remote) fn pull(repository: &Repository) -> Self {
        Self { repository: Some(repository.clone()), ..Self::default() }
    }

    pub(in crate::remote) fn push(repository: &Repository) -> Self {
        Self { repository: Some(repository.clone()), is_push: true, sources: BTreeSet::new() }
    }

    /// Returns the scopes as token servers spell them.
    fn texts(&self) -> Vec<String> {
        let actions = if self.is_push { "pull,push" } else { "pull" };
        let own = self.repository.iter().map(|name| format!("repository:{name}:{actions}"));
        own.chain(self.sources.iter().map(|name| format!("repository:{name}:pull"))).collect()
    }
}

/// What one host wants to see, and what we have to show.
#[derive(Debug)]
pub(in crate::remote) struct HostAuth {
    host: String,
    credential: Option<Credential>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: BTreeMap<Scope, Token>,
    /// A refresh token that the token server gave out in exchange for the one we came with.
    refresh: Option<Secret>,
}

#[derive(Clone, Debug)]
struct Token {
    value: Secret,
    /// When to stop using it.
    until: Instant,
}

impl HostAuth {
    pub(in crate::remote) fn new(host: &str, credential: Option<Credential>) -> Self {
        Self { host: host.to_owned(), credential, state: Mutex::default() }
    }

    /// Returns the `Authorization` header for a request, as far as the host's wishes are known.
    pub(in crate::remote) async fn header(
        &self,
        scope: &Scope,
        http: &TokenClient<'_>,
    ) -> Result<Option<HeaderValue>, Failure> {
        let mut state = self.state.lock().await;
        match &state.challenge {
            None => Ok(match &self.credential {
                Some(Credential::AccessToken(token)) => sensitive(&bearer(token)),
                _ => None,
            }),
            Some(Challenge::Basic) => Ok(self.basic().and_then(|secret| sensitive(&secret))),
            Some(Challenge::Bearer { .. }) => {
                let kept = state.tokens.get(scope).filter(|token| token.until > Instant::now());
                let token = match kept {
                    Some(token) => token.value.clone(),
                    None => self.fetch(&mut state, scope, http).await?,
                };
                Ok(sensitive(&bearer(&token)))
            }
        }
    }

    /// Notes what the host wants, after it refused a request that went out with `sent`.
    ///
    /// Returns whether there is now something else to show than was sent.
    pub(in crate::remote) async fn challenged(
        &self,
        headers: &HeaderMap,
        sent: Option<&HeaderValue>,
        scope: &Scope,
    ) -> bool {
        let mut state = self.state.lock().await;
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|h| h.to_str().ok());
        let Some(challenge) = challenge::preferred(challenge::parse(texts)) else { return false };
        state.challenge = Some(challenge.clone());
        match challenge {
            Challenge::Basic => {
                let ours = self.basic().and_then(|secret| sensitive(&secret));
                ours.is_some() && ours.as_ref() != sent
            }
            Challenge::Bearer { .. } => {
                if let Some(Credential::AccessToken(_)) = self.credential {
                    return sent.is_none();
                }
                // Another request may have fetched a newer token in the meantime, which stays.
                let current = state.tokens.get(scope).map(|token| bearer(&token.value));
                if current.and_then(|secret| sensitive(&secret)).as_ref() == sent {
                    state.tokens.remove(scope);
                }
                true
            }
        }
    }

    fn basic(&self) -> Option<Secret> {
        match &self.credential {
            Some(Credential::Password { username, password }) => {
                Some(Credential::basic(username, password))
            }
            _ => None,
        }
    }

    /// Fetches a token and keeps it. The lock on the state is held, so that requests that need
    /// the same token wait for it rather than fetching their own.
    async fn fetch(
        &self,
        state: &mut State,
        scope: &Scope,
        http: &TokenClient<'_>,
    ) -> Result<Secret, Failure> {
        if let Some(Credential::AccessToken(token)) = &self.credential {
            return Ok(token.clone());
        }
        let Some(Challenge::Bearer { realm, service, scope: asked }) = state.challenge.clone()
        else {
            unreachable!("tokens are fetched for Bearer only")
        };
        let mut scopes = scope.texts();
        if scopes.is_empty() {
            scopes.extend(asked);
        }
        let refresh = match (&state.refresh, &self.credential) {
            (Some(refresh), _) | (None, Some(Credential::IdentityToken(refresh))) => Some(refresh),
            _ => None,
        };
        let realm = self.realm(&realm, http)?;
        let client = (http.client)(&realm)?;
        let request = match refresh {
            Some(refresh) => post(&client, realm, service.as_deref(), &scopes, refresh),
            None => get(&client, realm, service.as_deref(), &scopes, self.credential.as_ref()),
        };
        let (answer, lifetime) = self.ask(request, scope, http.timeout).await?;
        if let Some(refresh) = answer.refresh_token.filter(|_| refresh.is_some()) {
            state.refresh = Some(Secret::new(refresh));
        }
        let Some(value) = answer.token.or(answer.access_token).filter(|token| !token.is_empty())
        else {
            return Err(self.protocol("its token server sends no token".to_owned()).into());
        };
        let token = Token { value: Secret::new(value), until: Instant::now() + lifetime };
        state.tokens.insert(scope.clone(), token.clone());
        Ok(token.value)
    }

    /// Checks the address of a token server: credentials must not leave unprotected.
    fn realm(&self, realm: &str, http: &TokenClient<'_>) -> Result<Url> {
        let url = Url::parse(realm)
            .map_err(|error| self.protocol(format!("its token server is {realm:?}: {error}")))?;
        let is_safe = match url.scheme() {
            "https" => true,
            "http" => (http.is_plain_allowed)(&url),
            _ => false,
        };
        if !is_safe {
            let reason = format!("its token server {realm} is not reached over HTTPS");
            return Err(self.protocol(reason));
        }
        Ok(url)
    }

    async fn ask(
        &self,
        request: reqwest::RequestBuilder,
        scope: &Scope,
        timeout: Duration,
    ) -> Result<(Answer, Duration), Failure> {
        let what = scope.texts().join(" ");
        let late = |_| Failure::passing(Error::timed_out(&self.host, "a token"));
        let answer = tokio::time::timeout(timeout, request.send()).await.map_err(late)?;
        let response = answer.map_err(|error| {
            Failure::passing(Error::from_request(&error, &self.host, "a token"))
        })?;
        let status = response.status();
        let retry_after = retry::retry_after(response.headers());
        let host = response.url().host_str().unwrap_or_default().to_owned();
        let body = tokio::time::timeout(timeout, bounded(response)).await.map_err(late)?;
        match status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                let error = Error::RateLimited { host, retry_after };
                return Err(Failure::Passing { error, retry_after });
            }
            status if status.is_server_error() => {
                let reason = String::new();
                let what = "a token".to_owned();
                let error = Error::Status { host, what, status: status.as_u16(), reason };
                return Err(Failure::Passing { error, retry_after });
            }
            _ => {
                let reason = refusal(body.as_deref().unwrap_or_default());
                return Err(Error::Unauthorized { host: self.host.clone(), what, reason }.into());
            }
        }
        let answer: Answer = body
            .and_then(|body| serde_json::from_slice(&body).ok())
            .ok_or_else(|| self.protocol("its token server's answer is not understood".into()))?;
        let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
        Ok((answer, lifetime.min(MAX_LIFETIME).saturating_sub(MARGIN)))
    }

    fn protocol(&self, reason: String) -> Error {
        Error::Protocol { host: self.host.clone(), reason }
    }
}

/// How token servers are reached.
pub(in crate::remote) struct TokenClient<'a> {
    /// The client for an address.
    pub(in crate::remote) client: &'a (dyn Fn(&Url) -> Result<Client> + Sync),
    /// Whether plain HTTP is allowed to an address.
    pub(in crate::remote) is_plain_allowed: &'a (dyn Fn(&Url) -> bool + Sync),
    /// How long an answer may take.
    pub(in crate::remote) timeout: Duration,
}

/// A token server's answer; `token` and `access_token` mean the same.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<u64>,
}

fn get(
    client: &Client,
    mut realm: Url,
    service: Option<&str>,
    scopes: &[String],
    credential: Option<&Credential>,
) -> reqwest::RequestBuilder {
    let mut query = realm.query_pairs_mut();
    query.extend_pairs(service.map(|service| ("service", service)));
    query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    let mut authorization = None;
    if let Some(Credential::Password { username, password }) = credential {
        query.append_pair("account", username);
        authorization = sensitive(&Credential::basic(username, password));
    }
    drop(query);
    let request = client.request(Method::GET, realm);
    match authorization {
        Some(header) => request.header(AUTHORIZATION, header),
        None => request,
    }
}

fn post(
    client: &Client,
    realm: Url,
    service: Option<&str>,
    scopes: &[String],
    refresh: &Secret,
) -> reqwest::RequestBuilder {
    // An address knows how to encode a form.
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("scope", &scopes.join(" "))
        .append_pair("refresh_token", refresh.reveal());
    client
        .request(Method::POST, realm)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.query().unwrap_or_default().to_owned())
}

async fn bounded(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

/// Returns a token server's own words, in any of the forms they have.
fn refusal(body: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return String::new();
    };
    let words = [
        &value["errors"][0]["message"],
        &value["error_description"],
        &value["details"],
        &value["message"],
        &value["error"],
    ];
    words.iter().find_map(|value| value.as_str()).unwrap_or_default().chars().take(300).collect()
}

fn bearer(token: &Secret) -> Secret {
    Secret::new(format!("Bearer {}", token.reveal()))
}

/// Returns a header that HTTP libraries neither print nor index; `None` if it cannot be a header.
fn sensitive(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.reveal()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_spelled_as_token_servers_want_them() {
        let repository = |text: &str| text.parse::<Repository>().unwrap();
        assert_eq!(Scope::pull(&repository("a/b")).texts(), ["repository:a/b:pull"]);
        let mut push = Scope::push(&repository("a/b"));
        push.sources.insert(repository("c"));
        assert_eq!(push.texts(), ["repository:a/b:pull,push", "repository:c:pull"]);
        assert!(Scope::default().texts().is_empty());
    }

    #[test]
    fn refusals_are_found_in_every_form() {
        for (body, words) in [
            (r#"{"errors":[{"code":"X","message":"no such user"}]}"#, "no such user"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (r#"{"error":"invalid_grant","error_description":"expired"}"#, "expired"),
            (r#"{"error":"invalid_grant"}"#, "invalid_grant"),
            ("<html>", ""),
        ] {
            assert_eq!(refusal(body.as_bytes()), words);
        }
    }
}
