//! One request: redirects, tokens and retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::auth::{Credential, Scope, TokenClient};
use super::error::{Error, Result, innermost};
use super::event::{Event, Sink};
use super::hosts::{Host, Hosts};
use super::options::ClientOptions;
use super::retry::{self, Failure, Patience};

/// Blobs come from a storage host after one redirect, or two behind a mirror.
pub(super) const MAX_REDIRECTS: usize = 5;

/// How often one request may be refused for its credentials: without a token, and with an old one.
const MAX_REFUSALS: usize = 2;

/// How many times longer than with reads nothing may happen with writes: a registry that stores
/// large blobs elsewhere takes its time to close an upload.
const PATIENCE_WITH_WRITES: u32 = 5;

/// How long the text of an error may take; it is a few hundred bytes.
const MAX_ERROR_TIME: Duration = Duration::from_secs(10);

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
    /// A stream, which cannot.
    Stream(Stream),
}

/// The body of a request that is read from a file while it is sent.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) body: Body,
    /// How many bytes it has.
    pub(super) length: u64,
    /// How many were taken so far: as long as this grows, the connection is alive.
    pub(super) sent: Arc<AtomicU64>,
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
            let (can_repeat, stream) = take(&mut payload);
            let mut sent_bytes = None;
            if let Some(Stream { body, length, sent }) = stream {
                request = request.header(CONTENT_LENGTH, length).body(body);
                sent_bytes = Some(sent);
            }
            let response = self.answer(request, call, sent_bytes).await.map_err(|error| {
                let name = url.host_str().filter(|_| !is_home).unwrap_or(&host.name);
                Failure::passing(match error {
                    Some(error) => Error::from_request(&error, name, call.what),
                    None => Error::timed_out(name, call.what),
                })
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

    /// Sends a request and waits for the answer, as long as anything happens.
    ///
    /// A client's own limit would count from the beginning of the request, and end long uploads.
    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        call: &Call<'_>,
        sent: Option<Arc<AtomicU64>>,
    ) -> Result<Response, Option<reqwest::Error>> {
        let is_read = [Method::GET, Method::HEAD].contains(&call.method);
        let limit = self.hosts.options().timeout * if is_read { 1 } else { PATIENCE_WITH_WRITES };
        let count = || sent.as_ref().map_or(0, |sent| sent.load(Ordering::Relaxed));
        let mut answer = std::pin::pin!(request.send());
        loop {
            let before = count();
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(result) => return result.map_err(Some),
                Err(_) if count() > before => {}
                Err(_) => return Err(None),
            }
        }
    }

    /// Returns the next piece of an answer, or `None` at its end.
    pub(super) async fn piece(
        &self,
        response: &mut Response,
        call: &Call<'_>,
    ) -> Result<Option<Bytes>, Failure> {
        self.next_piece(response, &call.host.name, call.what).await
    }

    /// Returns the next piece of an answer to any request.
    pub(super) async fn next_piece(
        &self,
        response: &mut Response,
        host: &str,
        what: &str,
    ) -> Result<Option<Bytes>, Failure> {
        match tokio::time::timeout(self.hosts.options().timeout, response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => {
                let (host, what) = (host.to_owned(), what.to_owned());
                let reason = innermost(&error);
                Err(Failure::passing(Error::Interrupted { host, what, reason }))
            }
            Err(_) => Err(Failure::passing(Error::timed_out(host, what))),
        }
    }

    async fn authorization(
        &self,
        call: &Call<'_>,
    ) -> Result<Option<reqwest::header::HeaderValue>, Failure> {
        let tokens = TokenClient {
            client: &|url| self.hosts.client(url),
            is_plain_allowed: &|url| self.hosts.is_plain_allowed(url),
            timeout: self.hosts.options().timeout,
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
fn take(payload: &mut Option<Payload>) -> (bool, Option<Stream>) {
    match payload.take() {
        None => (true, None),
        Some(Payload::Bytes(bytes)) => {
            *payload = Some(Payload::Bytes(bytes.clone()));
            let length = bytes.len() as u64;
            (true, Some(Stream { body: Body::from(bytes), length, sent: Arc::default() }))
        }
        Some(Payload::Stream(stream)) => (false, Some(stream)),
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
pub(super) async fn text_of(mut response: Response) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ERROR_BYTES {
                break;
            }
        }
    };
    // What came in time is better than nothing.
    let _in_time = tokio::time::timeout(MAX_ERROR_TIME, read).await;
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
