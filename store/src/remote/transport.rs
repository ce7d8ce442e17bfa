//! One request: redirects, tokens and retries.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::{Credential, Scope, TokenClient};
use super::error::{Error, Result};
use super::event::{Event, Sink};
use super::hosts::{Host, Hosts};
use super::options::ClientOptions;
use super::retry::{self, Failure, Patience};

/// Blobs come from a storage host after one redirect, or two behind a mirror.
const MAX_REDIRECTS: usize = 5;

/// How often one request may be refused for its credentials: without a token, and with an old one.
const MAX_REFUSALS: usize = 2;

/// How much of an error's text is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Sends requests to registries.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) hosts: Hosts,
}

/// A request, as often as it has to be sent.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) host: &'a Host,
    /// What it is about, for messages: "blob sha256:…".
    pub(super) what: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) scope: &'a Scope,
    /// The answers that the caller understands; all others are errors.
    pub(super) understood: &'a [StatusCode],
}

/// What goes with a request.
#[derive(Debug)]
pub(super) enum Payload {
    /// Bytes that can be sent again.
    Bytes(Bytes),
    /// A stream of so many bytes, which cannot.
    Stream(Body, u64),
}

impl Transport {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self { hosts: Hosts::new(options) }
    }

    /// Sends a request until it is answered, or there is no hope.
    pub(super) async fn call(
        &self,
        call: &Call<'_>,
        body: Option<Bytes>,
        sink: &Sink<'_>,
    ) -> Result<Response> {
        let mut patience = self.patience();
        loop {
            match self.exchange(call, body.clone().map(Payload::Bytes)).await {
                Ok(response) => return Ok(response),
                Err(failure) => self.pause(&mut patience, failure, call, sink).await?,
            }
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new(self.hosts.options().retry)
    }

    /// Waits after a failure, or returns the error if it is time to give up.
    pub(super) async fn pause(
        &self,
        patience: &mut Patience,
        failure: Failure,
        call: &Call<'_>,
        sink: &Sink<'_>,
    ) -> Result<()> {
        let (error, delay) = patience.after(failure, call.host.has_answered())?;
        tracing::debug!(%error, ?delay, what = call.what, "trying again");
        sink(Event::Retrying { what: call.what.to_owned(), reason: error.to_string(), delay });
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Sends a request once, following redirects and answering challenges.
    pub(super) async fn exchange(
        &self,
        call: &Call<'_>,
        payload: Option<Payload>,
    ) -> Result<Response, Failure> {
        let (host, mut url, mut payload) = (call.host, call.url.clone(), payload);
        let (mut redirects, mut refusals) = (0, 0);
        loop {
            let is_home = host.is_home(&url);
            let sent = if is_home { self.authorization(call).await? } else { None };
            let mut request = self
                .hosts
                .client(&url)?
                .request(call.method.clone(), url.clone())
                .headers(call.headers.clone());
            if let Some(header) = &sent {
                request = request.header(AUTHORIZATION, header);
            }
            let (can_repeat, body) = take(&mut payload);
            if let Some((body, length)) = body {
                request = request.header(CONTENT_LENGTH, length).body(body);
            }
            let response = request.send().await.map_err(|error| {
                let name = url.host_str().filter(|_| !is_home).unwrap_or(&host.name);
                Failure::passing(Error::from_request(&error, name, call.what))
            })?;
            host.answered();
            let status = response.status();
            if call.understood.contains(&status) {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && is_home && refusals < MAX_REFUSALS {
                refusals += 1;
                if host.auth.challenged(response.headers(), sent.as_ref(), call.scope).await {
                    if !can_repeat {
                        // The token is renewed when the rest is sent.
                        return Err(Failure::passing(error_of(response, call).await.into_error()));
                    }
                    drop(text_of(response).await);
                    continue;
                }
            }
            match redirect(&response, call, can_repeat)? {
                Some(target) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    drop(text_of(response).await);
                    url = target;
                }
                Some(_) => return Err(protocol(host, "it redirects without end").into()),
                None => return Err(error_of(response, call).await),
            }
        }
    }

    async fn authorization(
        &self,
        call: &Call<'_>,
    ) -> Result<Option<reqwest::header::HeaderValue>, Failure> {
        let tokens = TokenClient {
            client: &|url| self.hosts.client(url),
            is_plain_allowed: &|url| self.hosts.is_plain_allowed(url),
        };
        call.host.auth.header(call.scope, &tokens).await
    }

    /// Returns a registry, to be tried with a credential.
    pub(super) async fn host_with(
        &self,
        api_host: &str,
        credential: Credential,
    ) -> Result<Arc<Host>> {
        self.hosts.with_credential(api_host, Some(credential)).await
    }
}

/// Takes out what is to be sent now, and says whether it could be sent again.
fn take(payload: &mut Option<Payload>) -> (bool, Option<(Body, u64)>) {
    match payload.take() {
        None => (true, None),
        Some(Payload::Bytes(bytes)) => {
            *payload = Some(Payload::Bytes(bytes.clone()));
            let length = bytes.len() as u64;
            (true, Some((Body::from(bytes), length)))
        }
        Some(Payload::Stream(body, length)) => (false, Some((body, length))),
    }
}

/// Returns where an answer redirects to.
fn redirect(response: &Response, call: &Call<'_>, can_repeat: bool) -> Result<Option<Url>> {
    let is_read = [Method::GET, Method::HEAD].contains(&call.method);
    let follows = match response.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => is_read,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => is_read || can_repeat,
        _ => false,
    };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location.filter(|_| follows) else { return Ok(None) };
    let target = call.host.resolve(response.url(), location)?;
    let is_downgrade = response.url().scheme() == "https" && target.scheme() != "https";
    if is_downgrade || !["http", "https"].contains(&target.scheme()) {
        let reason = format!("it redirects from HTTPS to {}", target.scheme());
        return Err(Error::Protocol { host: call.host.name.clone(), reason });
    }
    Ok(Some(target))
}

/// Turns an answer that nobody understands into an error.
pub(super) async fn error_of(response: Response, call: &Call<'_>) -> Failure {
    let status = response.status();
    let retry_after = retry::retry_after(response.headers());
    let reason = reason_of(&text_of(response).await);
    let (host, what) = (call.host.name.clone(), call.what.to_owned());
    match status {
        StatusCode::UNAUTHORIZED => Failure::Final(Error::Unauthorized { host, what, reason }),
        StatusCode::FORBIDDEN => Failure::Final(Error::Denied { host, what, reason }),
        StatusCode::NOT_FOUND => Failure::Final(Error::NotFound { host, what, reason }),
        StatusCode::TOO_MANY_REQUESTS => {
            Failure::Passing { error: Error::RateLimited { host, retry_after }, retry_after }
        }
        _ => {
            let may_pass = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
                || status == StatusCode::REQUEST_TIMEOUT;
            let error = Error::Status { host, what, status: status.as_u16(), reason };
            match may_pass {
                true => Failure::Passing { error, retry_after },
                false => Failure::Final(error),
            }
        }
    }
}

/// Reads what little text an answer has, so that its connection can be used again.
async fn text_of(mut response: Response) -> Vec<u8> {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    text
}

/// Returns the registry's own words: distribution-spec, "Error Codes".
fn reason_of(text: &[u8]) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else {
        return String::new();
    };
    let error = &value["errors"][0];
    let words = [&error["message"], &error["code"]];
    let found = words.iter().find_map(|value| value.as_str().filter(|text| !text.is_empty()));
    // They end up on a terminal.
    found.unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect()
}

pub(super) fn protocol(host: &Host, reason: &str) -> Error {
    Error::Protocol { host: host.name.clone(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::reason_of;

    #[test]
    fn registries_are_quoted_without_control_characters() {
        let quoted = reason_of(br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway"}]}"#);
        assert_eq!(quoted, "no [31mway");
        assert_eq!(reason_of(br#"{"errors":[{"code":"DENIED","message":""}]}"#), "DENIED");
        assert_eq!(reason_of(br#"{"errors":[]}"#), "");
        assert_eq!(reason_of(b"<html>"), "");
    }
}
