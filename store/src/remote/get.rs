//! A file by its address: what `ADD https://…` and build contexts on web servers need.
//!
//! It takes the same way as everything to registries — proxies, certificates, patience — but no
//! credentials except those in the address itself, which a redirect does not carry along.

use std::io::Write as _;
use std::time::{Duration, Instant};

use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, LOCATION};
use reqwest::{Response, StatusCode, Url};

use super::date;
use super::error::{Error, Result};
use super::event::{Event, Sink};
use super::retry::{Failure, Patience};
use super::transport::{MAX_REDIRECTS, Transport, text_of};
use crate::error::IoContext as _;
use crate::ingest::Committed;
use crate::lease::Lease;

/// A server that keeps a download going by a byte now and then is given up after this time.
const MAX_TIME: Duration = Duration::from_secs(6 * 3600);

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Get<'a> {
    /// An `http` or `https` address.
    pub url: &'a str,
    /// The version that is known already, as the server named it.
    pub etag: Option<&'a str>,
    /// How many bytes it may have.
    pub max_bytes: u64,
    /// Told how many bytes there are so far, and how many there will be if the server says so.
    pub progress: &'a (dyn Fn(u64, Option<u64>) + Sync),
}

impl std::fmt::Debug for Get<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Get").field("etag", &self.etag).finish_non_exhaustive()
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The server's name of this version.
    pub etag: Option<String>,
    /// When it was changed last, in seconds since 1970.
    pub last_modified: Option<u64>,
    /// The content, now a blob; `None` when it is still the version that is known.
    pub body: Option<Committed>,
}

/// Gets a file, or learns that the known version is the current one.
pub(super) async fn get(
    transport: &Transport,
    lease: &Lease,
    get: &Get<'_>,
    sink: &Sink<'_>,
) -> Result<Got> {
    let url = address(get.url)?;
    let shown = without_password(&url);
    let mut patience: Patience = transport.patience();
    let mut has_answered = false;
    let end = Instant::now() + MAX_TIME;
    loop {
        let attempt = attempt(transport, lease, get, &url, &shown, &mut has_answered);
        let left = end.saturating_duration_since(Instant::now());
        let failure = match tokio::time::timeout(left, attempt).await {
            Ok(Ok(got)) => return Ok(got),
            Ok(Err(failure)) => failure,
            Err(_) => Error::timed_out(&host_of(&url), &shown).into(),
        };
        let (error, delay) = patience.after(failure, has_answered)?;
        sink(Event::Retrying { what: shown.clone(), reason: error.to_string(), delay });
        tokio::time::sleep(delay).await;
    }
}

async fn attempt(
    transport: &Transport,
    lease: &Lease,
    get: &Get<'_>,
    url: &Url,
    shown: &str,
    has_answered: &mut bool,
) -> Result<Got, Failure> {
    let host = host_of(url);
    let mut response = answer(transport, get, url, shown).await?;
    *has_answered = true;
    let status = response.status();
    let etag = text(response.headers(), &ETAG);
    let last_modified =
        text(response.headers(), &LAST_MODIFIED).and_then(|date| date::parse(&date));
    // Some servers send everything although the version is the known one.
    let is_known = get.etag.is_some_and(|known| {
        status == StatusCode::NOT_MODIFIED
            || (status == StatusCode::OK && etag.as_deref().is_some_and(|now| is_same(now, known)))
    });
    if is_known {
        let etag = etag.or_else(|| get.etag.map(str::to_owned));
        return Ok(Got { etag, last_modified, body: None });
    }
    if status != StatusCode::OK {
        let may_pass = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        // The text of such a page is for browsers.
        drop(text_of(response).await);
        let (what, reason) = (shown.to_owned(), String::new());
        let error = match status {
            StatusCode::NOT_FOUND => Error::NotFound { host, what, reason },
            _ => Error::Status { host, what, status: status.as_u16(), reason },
        };
        return Err(if may_pass { Failure::passing(error) } else { error.into() });
    }
    let too_long = || -> Failure {
        let reason = format!("{shown} has more than {} bytes", get.max_bytes);
        Error::Protocol { host: host.clone(), reason }.into()
    };
    let total = response.content_length();
    if total.is_some_and(|total| total > get.max_bytes) {
        return Err(too_long());
    }
    let mut ingest = lease.ingest().map_err(Error::Store)?;
    loop {
        let piece = transport.next_piece(&mut response, &host, shown).await?;
        let Some(piece) = piece else { break };
        if ingest.size() + piece.len() as u64 > get.max_bytes {
            return Err(too_long());
        }
        ingest.write_all(&piece).doing("write", "a download").map_err(Error::Store)?;
        (get.progress)(ingest.size(), total);
    }
    let body = Some(ingest.commit(None).map_err(Error::Store)?);
    Ok(Got { etag, last_modified, body })
}

/// Sends the request and follows redirects.
async fn answer(
    transport: &Transport,
    get: &Get<'_>,
    url: &Url,
    shown: &str,
) -> Result<Response, Failure> {
    let mut url = url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let host = host_of(&url);
        let mut headers = HeaderMap::new();
        if let Some(etag) = get.etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let request = transport.hosts.client(&url)?.get(url.clone()).headers(headers);
        let limit = transport.hosts.options().timeout;
        let response = match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(Failure::passing(Error::from_request(&error, &host, shown)));
            }
            Err(_) => return Err(Failure::passing(Error::timed_out(&host, shown))),
        };
        let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = text(response.headers(), &LOCATION).filter(|_| is_redirect) else {
            return Ok(response);
        };
        drop(text_of(response).await);
        let broken = |reason: String| Error::Protocol { host: host.clone(), reason };
        let target = url
            .join(&location)
            .map_err(|error| broken(format!("it redirects to {location:?}: {error}")))?;
        let is_safe =
            target.scheme() == "https" || (target.scheme(), url.scheme()) == ("http", "http");
        if !is_safe {
            let (from, to) = (url.scheme(), target.scheme());
            return Err(broken(format!("it redirects from {from} to {to}")).into());
        }
        url = target;
    }
    let reason = format!("it redirects more than {MAX_REDIRECTS} times");
    Err(Error::Protocol { host: host_of(&url), reason }.into())
}

fn address(text: &str) -> Result<Url> {
    let wrong = |reason: String| Error::Setup { what: format!("the address {text:?}"), reason };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(wrong("it is neither http nor https".to_owned()));
    }
    Ok(url)
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Returns an address as it may be shown.
fn without_password(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // Cannot fail for an address that has one.
        let _always_ok = url.set_password(Some("xxxxx"));
    }
    url.to_string()
}

/// Compares as RFC 9110, section 8.8.3.2, "weak comparison" has it.
fn is_same(one: &str, other: &str) -> bool {
    one.trim_start_matches("W/") == other.trim_start_matches("W/")
}

fn text(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_shown_without_passwords() {
        for wrong in ["file:///etc/passwd", "ftp://host/x", "https://", "no address"] {
            assert!(matches!(address(wrong), Err(Error::Setup { .. })), "{wrong}");
        }
        let url = address("https://user:secret@host:8443/a?b=c").unwrap();
        assert_eq!(without_password(&url), "https://user:xxxxx@host:8443/a?b=c");
        assert_eq!(host_of(&url), "host:8443");
    }
}
