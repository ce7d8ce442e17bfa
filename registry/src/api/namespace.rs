//! The `ns` of a pull: which registry the client of a mirror means
//! (distribution-spec, "Registry Proxying").
//!
//! `/v2/library/app/…?ns=docker.io` is answered from `docker.io/library/app` if
//! that repository exists, and `OCI-Namespace` says so; else `ns` is ignored, as
//! the specification allows. It is never an address to connect to.

use hyper::Method;
use hyper::header::HeaderValue;
use oci::Repository;

use super::error::ApiError;
use super::query::Query;
use super::route::{self, Route};
use crate::content::Registry;

use crate::storage::Storage;

/// Returns the endpoint that a pull means, and its namespace if that was used.
///
/// This comes before the question who may read: what counts is the repository
/// that is read.
pub(super) async fn scope<S: Storage>(
    registry: &Registry<S>,
    method: &Method,
    query: &Query,
    route: Route,
) -> Result<(Route, Option<HeaderValue>), ApiError> {
    let is_pull = matches!(*method, Method::GET | Method::HEAD);
    let Some(namespace) = query.get("ns").filter(|_| is_pull) else { return Ok((route, None)) };
    let within = |name: &Repository| route::repository(&format!("{namespace}/{name}")).ok();
    let scoped = match &route {
        Route::Tags(name) => within(name).map(|name| (name.clone(), Route::Tags(name))),
        Route::Blob(name, digest) => {
            within(name).map(|name| (name.clone(), Route::Blob(name, *digest)))
        }
        Route::Manifest(name, reference) => {
            within(name).map(|name| (name.clone(), Route::Manifest(name, reference.clone())))
        }
        Route::Referrers(name, digest) => {
            within(name).map(|name| (name.clone(), Route::Referrers(name, *digest)))
        }
        Route::Base
        | Route::Live
        | Route::Ready
        | Route::Token
        | Route::Catalog
        | Route::Uploads(_)
        | Route::Upload(..) => None,
    };
    match (scoped, HeaderValue::from_str(namespace)) {
        (Some((name, scoped)), Ok(value)) if registry.has_repository(&name).await? => {
            Ok((scoped, Some(value)))
        }
        _ => Ok((route, None)),
    }
}
