//! Listings in pages: tags and repositories.

use hyper::header::LINK;
use oci::Repository;
use serde_json::json;

use super::error::{ApiError, ErrorCode};
use super::query::percent_encode;
use super::{Answer, Call, respond};
use crate::content::{Page, PageRequest, Registry};
use crate::storage::Storage;

/// How many names a page has at most, and where the client names no number: a
/// page of the longest tags stays below 1.5 MiB.
const MAX_PAGE: usize = 10_000;

/// distribution-spec, "Listing Tags".
pub(super) async fn tags<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
) -> Result<Answer, ApiError> {
    let request = request(call)?;
    let page = registry.tags(repository, &request).await?;
    let mut answer = respond::json(&json!({ "name": repository, "tags": page.names }));
    link(&mut answer, &format!("/v2/{repository}/tags/list"), &request, &page);
    Ok(answer)
}

/// `/v2/_catalog`: not in the specification, but in every registry.
pub(super) async fn catalog<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
) -> Result<Answer, ApiError> {
    let request = request(call)?;
    let page = registry.repositories(&request, |name| call.permit.may_see(name)).await?;
    let mut answer = respond::json(&json!({ "repositories": page.names }));
    link(&mut answer, "/v2/_catalog", &request, &page);
    Ok(answer)
}

/// Reads `n` and `last`. A number larger than a page gives a page.
fn request(call: &Call<'_>) -> Result<PageRequest, ApiError> {
    let limit = match call.query.get("n") {
        None => MAX_PAGE,
        Some(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().unwrap_or(MAX_PAGE).min(MAX_PAGE)
        }
        Some(text) => {
            let message = format!("`n` is a number of names, not {text:?}");
            return Err(ApiError::new(ErrorCode::Unsupported, message).bad_request());
        }
    };
    Ok(PageRequest { limit, last: call.query.get("last").map(str::to_owned) })
}

/// Points to the next page, if there is one.
fn link(answer: &mut Answer, path: &str, request: &PageRequest, page: &Page) {
    if let Some(last) = page.names.last().filter(|_| page.has_more) {
        let (limit, last) = (request.limit, percent_encode(last));
        respond::set(answer, LINK, &format!("<{path}?n={limit}&last={last}>; rel=\"next\""));
    }
}
