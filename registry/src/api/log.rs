//! One line per request: `access` for whoever looks for what happened, `audit` for
//! whoever must know who changed what and who was refused.

use std::net::SocketAddr;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};

use super::respond::DOCKER_CONTENT_DIGEST;
use super::{Answer, is_read};
use crate::metrics::Metrics;

/// What is known of a request when it comes.
pub(super) struct Record {
    begun: Instant,
    peer: SocketAddr,
    method: Method,
    uri: Uri,
    agent: Option<HeaderValue>,
}

/// Who sent a request.
#[derive(Default)]
pub(super) struct Who {
    /// Whom a password or a token has shown, `""` for somebody without a name.
    pub(super) user: String,
    /// Whose password was wrong.
    pub(super) tried: Option<String>,
}

impl Record {
    pub(super) fn begin(request: &Request<Incoming>, peer: SocketAddr) -> Self {
        Self {
            begun: Instant::now(),
            peer,
            method: request.method().clone(),
            uri: request.uri().clone(),
            agent: request.headers().get(USER_AGENT).cloned(),
        }
    }

    /// Writes the lines and counts the request.
    pub(super) fn end(self, answer: &Answer, who: &Who, metrics: &Metrics) {
        let Self { begun, peer, method, uri, agent } = self;
        let duration = begun.elapsed();
        let status = answer.status();
        metrics.count_request(&method, status, duration);
        // Queries may come to hold secrets; the path says what was asked.
        let path = uri.path();
        let caller = (!who.user.is_empty()).then_some(&*who.user);
        let number = |value: &HeaderValue| value.to_str().ok()?.parse::<u64>().ok();
        tracing::info!(
            target: "access",
            %peer,
            user = caller,
            %method,
            path,
            status = status.as_u16(),
            bytes = answer.headers().get(CONTENT_LENGTH).and_then(number),
            agent = agent.as_ref().and_then(|value| str::from_utf8(value.as_bytes()).ok()),
            micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        );
        let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_refused || !is_read(&method) {
            let digest = answer.headers().get(DOCKER_CONTENT_DIGEST);
            tracing::info!(
                target: "audit",
                %peer,
                user = caller,
                tried = who.tried.as_deref(),
                %method,
                path,
                tags = tags(&uri),
                status = status.as_u16(),
                digest = digest.and_then(|value| value.to_str().ok()),
            );
        }
    }
}

/// Returns the tags that a push by digest sets, which only its query says.
fn tags(uri: &Uri) -> Option<String> {
    let query = super::Query::parse(uri.query()?).ok()?;
    let tags: Vec<&str> = query.all("tag").collect();
    (!tags.is_empty()).then(|| tags.join(","))
}
