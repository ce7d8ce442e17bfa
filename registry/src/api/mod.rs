//! The OCI distribution API: requests become calls, results become responses.
//!
//! Names are parsed from the right (`route`), because a repository may be
//! called `a/blobs/uploads`. Every error is one of the specification's codes in
//! its JSON form (`error`). Changes run to their end even where the client
//! goes away in the middle.

mod authorization;
mod base;
mod blobs;
mod body;
mod conditional;
mod error;
mod forwarded;
mod log;
mod manifests;
mod namespace;
mod page;
mod payload;
mod query;
mod range;
mod referrers;
mod respond;
mod route;
mod token;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, EXPECT};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use oci::Repository;

use crate::content::UploadRef;
use crate::server::{Scheme, Shared};
use crate::socket::Transfers;
use crate::storage::Storage;

use authorization::Permit;
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
    permit: &'a Permit,
}

impl Call<'_> {
    fn is_head(&self) -> bool {
        self.parts.method == Method::HEAD
    }

    /// Whether a client asks for what it may rely on in a push.
    fn may_precede_push(&self, repository: &Repository) -> bool {
        self.is_head() && self.permit.may_come_to_push(repository)
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

/// What a request came over.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) peer: SocketAddr,
    pub(crate) scheme: Scheme,
}

/// Answers one request.
pub(crate) async fn serve<S: Storage>(
    shared: Arc<Shared<S>>,
    request: Request<Incoming>,
    connection: Connection,
) -> Answer {
    let record = log::Record::begin(&request, connection.peer);
    let (answer, who) = if is_read(request.method()) {
        respond(&shared, request, &connection).await
    } else {
        let task = {
            let shared = Arc::clone(&shared);
            async move { respond(&shared, request, &connection).await }
        };
        match shared.tasks.spawn(task).await {
            Ok(answered) => answered,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => (ApiError::unavailable().into_answer(), log::Who::default()),
            },
        }
    };
    record.end(&answer, &who, &shared.metrics);
    answer
}

/// Returns the answer, and who asked.
async fn respond<S: Storage>(
    shared: &Shared<S>,
    request: Request<Incoming>,
    connection: &Connection,
) -> (Answer, log::Who) {
    let (parts, incoming) = request.into_parts();
    let mut body = Body::new(incoming);
    let mut who = log::Who::default();
    let result = dispatch(shared, &parts, &mut body, connection, &mut who.user).await;
    let mut answer = result.unwrap_or_else(|error| {
        error.log(&parts);
        who.tried = error.tried().map(ToString::to_string);
        error.into_answer()
    });
    forwarded::publish(&parts.headers, &mut answer);
    // A client that is still sending would not read the answer. One that waits
    // for permission to send must not get it.
    let is_refused = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refused && !parts.headers.contains_key(EXPECT) {
        body.drain().await;
    }
    let answer = match parts.method == Method::HEAD {
        true => answer.map(|_| Payload::default()),
        false => answer,
    };
    (answer, who)
}

/// Returns whether a request's target names an endpoint.
pub(crate) fn understands(method: &Method, path: &str, query: &str) -> bool {
    Route::parse(method, path).is_ok() & Query::parse(query).is_ok()
}

/// Returns whether a `Range` asks for a part of `size` bytes, which then lies
/// within them.
pub(crate) fn understands_range(header: &str, size: u64) -> bool {
    match range::wanted(header, size) {
        range::Wanted::Part(part) => {
            assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
            true
        }
        range::Wanted::Full | range::Wanted::Unsatisfiable => false,
    }
}

/// Returns whether a `Content-Range` says where a chunk lies.
pub(crate) fn understands_chunk(header: &str) -> bool {
    range::chunk(header).is_some_and(|(first, last)| {
        assert!(first <= last && last < u64::MAX, "{first}-{last}");
        true
    })
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

async fn dispatch<S: Storage>(
    shared: &Shared<S>,
    parts: &Parts,
    body: &mut Body,
    connection: &Connection,
    caller: &mut String,
) -> Result<Answer, ApiError> {
    let route = Route::parse(&parts.method, parts.uri.path())?;
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let registry = &shared.registry;
    let access = shared.access();
    if let (Route::Token, Some(access), "GET" | "POST") = (&route, &access, parts.method.as_str()) {
        return token::issue(access, parts, query, body, registry.now_s(), caller).await;
    }
    let permit = Permit::of(access, parts, connection.scheme).await?;
    permit.principal().clone_into(caller);
    let (route, namespace) = namespace::scope(registry, &parts.method, &query, route).await?;
    permit.check(&parts.method, &route)?;
    if !is_read(&parts.method) {
        registry.allow_change()?;
    }
    let upload = |repository, id| UploadRef { id, repository, owner: permit.principal() };
    let call = Call { parts, query, transfers: &connection.transfers, permit: &permit };
    let answer = match (&route, parts.method.as_str()) {
        (Route::Base, "GET" | "HEAD") => Ok(base::version()),
        (Route::Live, "GET" | "HEAD") => Ok(base::live()),
        (Route::Ready, "GET" | "HEAD") => base::ready(shared).await,
        (Route::Token, "GET" | "POST") => {
            Err(ApiError::not_found("this registry needs no tokens".to_owned()))
        }
        (Route::Catalog, "GET" | "HEAD") => page::catalog(registry, &call).await,
        (Route::Tags(repository), "GET" | "HEAD") => page::tags(registry, &call, repository).await,
        (Route::Blob(repository, digest), "GET" | "HEAD") => {
            blobs::get(registry, &call, repository, digest).await
        }
        (Route::Blob(repository, digest), "DELETE") => {
            blobs::delete(registry, repository, digest).await
        }
        (Route::Uploads(repository), "POST") => {
            uploads::begin(registry, &call, repository, body).await
        }
        (Route::Upload(repository, id), "GET" | "HEAD") => {
            uploads::status(registry, upload(repository, *id)).await
        }
        (Route::Upload(repository, id), "PATCH") => {
            uploads::append(registry, &call, upload(repository, *id), body).await
        }
        (Route::Upload(repository, id), "PUT") => {
            uploads::finish(registry, &call, upload(repository, *id), body).await
        }
        (Route::Upload(repository, id), "DELETE") => {
            uploads::cancel(registry, upload(repository, *id)).await
        }
        (Route::Manifest(repository, reference), "GET" | "HEAD") => {
            manifests::get(registry, &call, repository, reference).await
        }
        (Route::Manifest(repository, reference), "PUT") => {
            manifests::put(registry, &call, repository, reference.clone(), body).await
        }
        (Route::Manifest(repository, reference), "DELETE") => {
            manifests::delete(registry, repository, reference).await
        }
        (Route::Referrers(repository, digest), "GET" | "HEAD") => {
            referrers::get(registry, &call, repository, digest).await
        }
        (route, _) => Err(ApiError::method(route.methods())),
    };
    answer.map(|answer| respond::within(answer, namespace))
}
