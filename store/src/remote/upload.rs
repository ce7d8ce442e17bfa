//! One blob to a registry: asked for, mounted, or sent; resumed after a drop.
//!
//! ```text
//! HEAD blob ──200──► nothing to do
//!   │404
//! POST uploads/[?mount&from] ──201──► mounted
//!   │202 Location
//! PATCH Location (the bytes) ──drop──► GET Location: Range 0-N ──► PATCH from N+1
//!   │202 Location
//! PUT Location?digest ──201──► there
//! ```
//!
//! A small blob goes in the body of the PUT. distribution-spec, "Pushing blobs".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use oci::{Descriptor, Repository};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::auth::Scope;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Task};
use super::retry::Failure;
use super::source::Source;
use super::transport::{Call, Payload, Stream, protocol};

/// A blob up to this size goes in one request, in memory: configs and tiny layers.
const SMALL_BYTES: u64 = 256 << 10;

/// How often there is an event while a blob is being sent.
const EVENT_INTERVAL: Duration = Duration::from_millis(100);

/// How many upload sessions are tried for one blob: registries lose sessions when they restart.
const MAX_SESSIONS: usize = 4;

/// What came of the wish to send a blob.
enum Start {
    Mounted(Repository),
    Upload(Url),
}

impl Journey<'_> {
    /// Makes sure that the registry has a blob in this repository.
    ///
    /// `mount` is another repository of the registry that may have the blob; where it has not, the
    /// blob is sent from `source`.
    pub(super) async fn upload(
        &self,
        blob: &Descriptor,
        mount: Option<&Repository>,
        source: Source<'_>,
    ) -> Result<()> {
        let (digest, task) = (blob.digest, Task::Upload);
        let what = format!("blob {digest}");
        if self.has(blob, &what).await? {
            (self.sink)(Event::Exists { digest, task });
            return Ok(());
        }
        let mut start = match mount {
            Some(mount) => self.mount(blob, mount, &what).await,
            None => None,
        };
        for _ in 0..MAX_SESSIONS {
            let start = match start.take() {
                Some(start) => start,
                None => Start::Upload(self.session(&what).await?),
            };
            let url = match start {
                Start::Mounted(from) => {
                    (self.sink)(Event::Mounted { digest, from });
                    return Ok(());
                }
                Start::Upload(url) => url,
            };
            (self.sink)(Event::Started { digest, task, size: blob.size });
            if self.send(blob, source, url, &what).await? {
                (self.sink)(Event::Finished { digest, task });
                return Ok(());
            }
        }
        Err(protocol(self.host, "it forgets uploads before they are complete"))
    }

    fn call<'a>(
        &'a self,
        what: &'a str,
        method: Method,
        url: Url,
        understood: &'a [StatusCode],
    ) -> Call<'a> {
        let (host, headers, scope) = (self.host, HeaderMap::new(), self.scope);
        Call { host, what, method, url, headers, scope, understood }
    }

    /// Asks whether the repository has a blob.
    async fn has(&self, blob: &Descriptor, what: &str) -> Result<bool> {
        let url = self.host.url(&format!("{}/blobs/{}", self.repository, blob.digest));
        let understood = [StatusCode::OK, StatusCode::NOT_FOUND];
        let call = self.call(what, Method::HEAD, url, &understood);
        let response = self.transport.call(&call, None, self.sink).await?;
        Ok(response.status() == StatusCode::OK)
    }

    fn uploads(&self) -> Url {
        self.host.url(&format!("{}/blobs/uploads/", self.repository))
    }

    /// Asks the registry to take a blob from another repository.
    ///
    /// `None` if that is not possible, for whatever reason: then the blob is sent.
    async fn mount(&self, blob: &Descriptor, source: &Repository, what: &str) -> Option<Start> {
        let mut url = self.uploads();
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", source.as_str());
        let mut scope = self.scope.clone();
        scope.sources.insert(source.clone());
        let understood = [StatusCode::CREATED, StatusCode::ACCEPTED];
        let mut call = self.call(what, Method::POST, url, &understood);
        call.scope = &scope;
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        match self.transport.exchange(&call, None).await {
            Ok(response) if response.status() == StatusCode::CREATED => {
                Some(Start::Mounted(source.clone()))
            }
            // It does not want to mount, and has begun an upload instead.
            Ok(response) => self.location(&response).ok().map(Start::Upload),
            Err(failure) => {
                tracing::debug!(error = %failure.into_error(), %source, what, "cannot mount");
                None
            }
        }
    }

    /// Begins an upload, and returns where to send it.
    async fn session(&self, what: &str) -> Result<Url> {
        let mut call = self.call(what, Method::POST, self.uploads(), &[StatusCode::ACCEPTED]);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.transport.call(&call, None, self.sink).await?;
        self.location(&response)
    }

    fn location(&self, response: &Response) -> Result<Url> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| {
            protocol(self.host, "its answer to an upload does not say where to go on")
        })?;
        self.host.resolve(response.url(), location)
    }

    /// Sends a blob in one session; `false` if the registry has lost the session.
    async fn send(
        &self,
        blob: &Descriptor,
        source: Source<'_>,
        mut url: Url,
        what: &str,
    ) -> Result<bool> {
        let mut patience = self.transport.patience();
        let (mut offset, mut furthest) = (0, 0);
        loop {
            let failure = match self.send_rest(blob, source, &mut url, offset, what).await {
                Ok(()) => return Ok(true),
                Err(failure) => failure,
            };
            let call = self.call(what, Method::PATCH, url.clone(), &[]);
            if is_lost(&failure) {
                return Ok(false);
            }
            self.transport.pause(&mut patience, failure, &call, self.sink).await?;
            // The blob may be complete, and only the answer was lost.
            if self.has(blob, what).await? {
                return Ok(true);
            }
            let Some((arrived, next)) = self.status(&url, what).await? else { return Ok(false) };
            (offset, url) = (arrived.min(blob.size), next);
            if offset > furthest {
                furthest = offset;
                patience.progress();
            }
        }
    }

    /// Sends what is missing, and closes the upload.
    async fn send_rest(
        &self,
        blob: &Descriptor,
        source: Source<'_>,
        url: &mut Url,
        mut offset: u64,
        what: &str,
    ) -> Result<(), Failure> {
        let mut small = None;
        if offset == 0 && blob.size <= SMALL_BYTES {
            small = Some(source.read(blob).await?);
        } else {
            while offset < blob.size {
                let response = self.patch(blob, source, url, offset, what).await?;
                *url = self.location(&response)?;
                let arrived = arrived(response.headers()).unwrap_or(blob.size);
                if arrived <= offset {
                    return Err(Failure::passing(protocol(self.host, "it takes no bytes")));
                }
                offset = arrived;
            }
        }
        let mut closing = url.clone();
        closing.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let understood = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        let mut call = self.call(what, Method::PUT, closing, &understood);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if small.is_none() {
            call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.transport.exchange(&call, small.map(Payload::Bytes)).await?;
        self.tell(blob, blob.size);
        Ok(())
    }

    /// Streams the rest of a blob.
    async fn patch(
        &self,
        blob: &Descriptor,
        source: Source<'_>,
        url: &Url,
        offset: u64,
        what: &str,
    ) -> Result<Response, Failure> {
        let sent = Arc::new(AtomicU64::new(offset));
        let body = source.body(blob, offset, Arc::clone(&sent)).await?;
        let mut call = self.call(what, Method::PATCH, url.clone(), &[StatusCode::ACCEPTED]);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if offset > 0 {
            // At the beginning it says nothing, and docker's own client leaves it out.
            let range = format!("{offset}-{}", blob.size - 1);
            let range = HeaderValue::try_from(range).expect("digits and signs are a header");
            call.headers.insert(CONTENT_RANGE, range);
        }
        let length = blob.size - offset;
        let stream = Stream { body, length, sent: Arc::clone(&sent) };
        let exchange = self.transport.exchange(&call, Some(Payload::Stream(stream)));
        let mut exchange = std::pin::pin!(exchange);
        let mut ticks = tokio::time::interval(EVENT_INTERVAL);
        loop {
            tokio::select! {
                result = &mut exchange => return result,
                _ = ticks.tick() => self.tell(blob, sent.load(Ordering::Relaxed)),
            }
        }
    }

    /// Asks how much of an upload has arrived; `None` if the registry does not know it any more.
    async fn status(&self, url: &Url, what: &str) -> Result<Option<(u64, Url)>> {
        let understood =
            [StatusCode::NO_CONTENT, StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NOT_FOUND];
        let call = self.call(what, Method::GET, url.clone(), &understood);
        let response = match self.transport.call(&call, None, self.sink).await {
            Ok(response) => response,
            // Some registries cannot tell; then the blob is sent from its beginning.
            Err(Error::Status { .. } | Error::Denied { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let next = self.location(&response).unwrap_or_else(|_| url.clone());
        Ok(Some((arrived(response.headers()).unwrap_or(0), next)))
    }

    fn tell(&self, blob: &Descriptor, done: u64) {
        (self.sink)(Event::Progress { digest: blob.digest, task: Task::Upload, done });
    }
}

/// Whether a failure means that the session is gone, or is in a state that cannot be mended.
fn is_lost(failure: &Failure) -> bool {
    match failure {
        Failure::Final(Error::NotFound { .. }) => true,
        Failure::Final(Error::Status { status, .. }) => *status == 416,
        Failure::Final(_) | Failure::Passing { .. } => false,
    }
}

/// Returns how many bytes have arrived, by the `Range: 0-<last>` of an answer.
///
/// `0-0` is what registries say where there is nothing as well as where there is one byte. It is
/// taken as nothing: if that is wrong, the registry refuses and a new session starts.
fn arrived(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(RANGE)?.to_str().ok()?;
    let value = value.strip_prefix("bytes=").unwrap_or(value);
    match value.split_once('-')?.1.trim().parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Returns what a push to a repository must be allowed.
pub(super) fn scope(repository: &Repository) -> Scope {
    Scope::push(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_arrived_is_read() {
        let range = |text: &'static str| {
            arrived(&HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]))
        };
        assert_eq!(range("0-99"), Some(100));
        assert_eq!(range("bytes=0-99"), Some(100));
        assert_eq!(range("0-0"), Some(0));
        assert_eq!(range("0-18446744073709551615"), None);
        assert_eq!(range("x"), None);
        assert_eq!(arrived(&HeaderMap::new()), None);
    }
}
