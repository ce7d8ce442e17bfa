//! Reading and deleting blobs.

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue,
    LOCATION, RANGE,
};
use oci::{Digest, Repository};
use url::Url;

use super::error::{ApiError, ErrorCode};
use super::payload::Payload;
use super::range::{self, Wanted};
use super::respond::{self, DOCKER_CONTENT_DIGEST};
use super::{Answer, Call, conditional};
use crate::content::{self, Registry};
use crate::storage::{self, Content, Storage};

/// What a digest names never changes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// distribution-spec, "Pulling blobs".
pub(super) async fn get<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Answer, ApiError> {
    let blob = match call.may_precede_push(repository) {
        true => registry.assure_blob(repository, digest).await?,
        false => registry.blob(repository, digest).await?,
    };
    let etag = conditional::etag(digest);
    let headers = &call.parts.headers;
    let part = match call.header(RANGE) {
        _ if conditional::is_current(headers, &etag) => None,
        Some(range) if conditional::may_continue(headers, &etag) => {
            Some(range::wanted(range, blob.size))
        }
        _ => Some(Wanted::Full),
    };
    let (status, part) = match part {
        None => (StatusCode::NOT_MODIFIED, 0..0),
        Some(Wanted::Full) => (StatusCode::OK, 0..blob.size),
        Some(Wanted::Part(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(Wanted::Unsatisfiable) => {
            let range = HeaderValue::try_from(format!("bytes */{}", blob.size));
            let message = format!("the blob has {} bytes", blob.size);
            return Err(ApiError::new(ErrorCode::SizeInvalid, message)
                .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
                .with(CONTENT_RANGE, range.expect("a number and ASCII")));
        }
    };
    if let Content::Segments(segments) = &blob.content
        && !call.is_head()
        && !part.is_empty()
        && let Some(url) = segments.redirect().await.map_err(content::Error::from)?
    {
        return Ok(elsewhere(&url, digest));
    }
    let length = part.end - part.start;
    let mut answer = respond::empty(status);
    let headers = answer.headers_mut();
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{}", part.start, part.end - 1, blob.size);
        headers.insert(CONTENT_RANGE, HeaderValue::try_from(range).expect("numbers and ASCII"));
    }
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(CONTENT_LENGTH, length.into());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    headers.insert(ETAG, etag);
    headers.insert(CACHE_CONTROL, IMMUTABLE);
    respond::set(&mut answer, DOCKER_CONTENT_DIGEST, &digest.to_string());
    if length > 0 && !call.is_head() {
        *answer.body_mut() = match &blob.content {
            Content::File(file) => call
                .transfers
                .body(file, blob.size, part)
                .map_err(|source| {
                    let place = digest.to_string();
                    content::Error::from(storage::Error::from_io("read", place, source))
                })?
                .into(),
            Content::Segments(segments) => Payload::stream(segments.read(&part), length),
        };
    }
    Ok(answer)
}

/// Returns an answer that sends the client to the bucket. What it asked for, be it a
/// part, it asks for there.
fn elsewhere(url: &Url, digest: &Digest) -> Answer {
    let mut answer = respond::empty(StatusCode::TEMPORARY_REDIRECT);
    respond::set(&mut answer, LOCATION, url.as_str());
    respond::set(&mut answer, DOCKER_CONTENT_DIGEST, &digest.to_string());
    // The address counts for minutes.
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// distribution-spec, "Deleting blobs".
pub(super) async fn delete<S: Storage>(
    registry: &Registry<S>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Answer, ApiError> {
    registry.delete_blob(repository, digest).await?;
    Ok(respond::empty(StatusCode::ACCEPTED))
}
