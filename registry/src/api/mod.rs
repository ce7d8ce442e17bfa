//! The OCI distribution API: requests become calls, results become responses.
//!
//! Names are parsed from the right (`route`), because a repository may be
//! called `a/blobs/uploads`. Every error is one of the specification's codes in
//! its JSON form (`error`). Changes run to their end even where the client
//! goes away in the middle.

mod base;
mod blobs;
mod body;
mod conditional;
mod error;
mod forwarded;
mod manifests;
mod namespace;
mod page;
mod payload;
mod query;
mod range;
mod referrers;
mod respond;
mod route;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, EXPECT, HeaderValue, USER_AGENT};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::server::Shared;
use crate::socket::Transfers;
use crate::storage::Storage;

use body::Body;
use error::ApiError;
use payload::Payload;
use query::Query;
use route::Route;

/// What handlers return.
pub(crate) type Answer = Response<Payload>;

/// A request without its body.
struct Call<'a> {
    parts: &'a Parts,
    query: Query,
    transfers: &'a Transfers,
}

impl Call<'_> {
    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// Returns a header if it is there once, as text.
    fn header(&self, name: impl hyper::header::AsHeaderName) -> Option<&str> {
        self.parts.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns how long the body says it is.
    fn content_length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH)?.parse().ok()
    }
}

/// Answers one request.
pub(crate) async fn serve<S: Storage>(
    shared: Arc<Shared<S>>,
    request: Request<Incoming>,
    transfers: Arc<Transfers>,
    peer: SocketAddr,
) -> Answer {
    let begun = shared.options.access_log.then(|| {
        let agent = request.headers().get(USER_AGENT).cloned();
        (Instant::now(), request.method().clone(), request.uri().clone(), agent)
    });
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let answer = if is_read {
        respond(&shared, request, &transfers).await
    } else {
        let task = {
            let shared = Arc::clone(&shared);
            async move { respond(&shared, request, &transfers).await }
        };
        match shared.tasks.spawn(task).await {
            Ok(answer) => answer,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => ApiError::unavailable().into_answer(),
            },
        }
    };
    if let Some((begun, method, uri, agent)) = begun {
        tracing::info!(
            target: "access",
            %peer,
            %method,
            // Queries may come to hold secrets; the path says what was asked.
            path = uri.path(),
            status = answer.status().as_u16(),
            bytes = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok()),
            agent = agent.as_ref().map(HeaderValue::as_bytes).and_then(|value| str::from_utf8(value).ok()),
            micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
    }
    answer
}

async fn respond<S: Storage>(
    shared: &Shared<S>,
    request: Request<Incoming>,
    transfers: &Transfers,
) -> Answer {
    let (parts, incoming) = request.into_parts();
    let mut body = Body::new(incoming);
    let result = dispatch(shared, &parts, &mut body, transfers).await;
    let mut answer = result.unwrap_or_else(|error| {
        error.log(&parts);
        error.into_answer()
    });
    forwarded::publish(&parts.headers, &mut answer);
    // A client that is still sending would not read the answer. One that waits
    // for permission to send must not get it.
    let is_refused = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refused && !parts.headers.contains_key(EXPECT) {
        body.drain().await;
    }
    match parts.method == Method::HEAD {
        true => answer.map(|_| Payload::default()),
        false => answer,
    }
}

async fn dispatch<S: Storage>(
    shared: &Shared<S>,
    parts: &Parts,
    body: &mut Body,
    transfers: &Transfers,
) -> Result<Answer, ApiError> {
    let route = Route::parse(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let registry = &shared.registry;
    let (route, namespace) = namespace::scope(registry, &parts.method, &query, route).await?;
    let call = Call { parts, query, transfers };
    let answer = match (route, parts.method.as_str()) {
        (Route::Base, "GET" | "HEAD") => Ok(base::version()),
        (Route::Live, "GET" | "HEAD") => Ok(base::live()),
        (Route::Ready, "GET" | "HEAD") => base::ready(shared).await,
        (Route::Catalog, "GET" | "HEAD") => page::catalog(registry, &call).await,
        (Route::Tags(repository), "GET" | "HEAD") => page::tags(registry, &call, &repository).await,
        (Route::Blob(repository, digest), "GET" | "HEAD") => {
            blobs::get(registry, &call, &repository, &digest).await
        }
        (Route::Blob(repository, digest), "DELETE") => {
            blobs::delete(registry, &repository, &digest).await
        }
        (Route::Uploads(repository), "POST") => {
            uploads::begin(registry, &call, &repository, body).await
        }
        (Route::Upload(repository, id), "GET" | "HEAD") => {
            uploads::status(registry, &repository, id).await
        }
        (Route::Upload(repository, id), "PATCH") => {
            uploads::append(registry, &call, &repository, id, body).await
        }
        (Route::Upload(repository, id), "PUT") => {
            uploads::finish(registry, &call, &repository, id, body).await
        }
        (Route::Upload(repository, id), "DELETE") => {
            uploads::cancel(registry, &repository, id).await
        }
        (Route::Manifest(repository, reference), "GET" | "HEAD") => {
            manifests::get(registry, &call, &repository, &reference).await
        }
        (Route::Manifest(repository, reference), "PUT") => {
            manifests::put(registry, &call, &repository, reference, body).await
        }
        (Route::Manifest(repository, reference), "DELETE") => {
            manifests::delete(registry, &repository, &reference).await
        }
        (Route::Referrers(repository, digest), "GET" | "HEAD") => {
            referrers::get(registry, &call, &repository, &digest).await
        }
        (route, _) => Err(ApiError::method(route.methods())),
    };
    answer.map(|answer| respond::within(answer, namespace))
}
