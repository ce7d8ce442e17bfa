//! Pushing blobs: distribution-spec, "Pushing blobs".
//!
//! Locations are paths without a host, so that they hold behind any proxy.

use hyper::StatusCode;
use hyper::header::{CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use oci::{Algorithm, Digest, Repository};

use super::body::Body;
use super::error::{ApiError, ErrorCode};
use super::respond::{self, DOCKER_UPLOAD_UUID};
use super::{Answer, Call, range, route};
use crate::access::Action;
use crate::content::{Error, Registry, UploadRef};
use crate::storage::{Storage, UploadId};

/// `POST /v2/<name>/blobs/uploads/`: mounts, takes a whole blob, or begins an
/// upload.
pub(super) async fn begin<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
    body: &mut Body,
) -> Result<Answer, ApiError> {
    let owner = call.permit.principal();
    if let Some(digest) = call.query.get("mount") {
        let digest = route::digest(digest)?;
        let from = call.query.get("from").map(route::repository).transpose()?;
        let may_read = |from: &Repository| call.permit.may(from, Action::Pull);
        if registry.mount(repository, &digest, from.as_ref(), may_read).await? {
            return Ok(respond::created(&blob_path(repository, &digest), &digest));
        }
        // What cannot be mounted is to be uploaded.
        let id = registry.begin_upload(repository, owner, Some(digest.algorithm())).await?;
        return Ok(progress(StatusCode::ACCEPTED, repository, id, 0));
    }
    if let Some(digest) = call.query.get("digest") {
        let digest = route::digest(digest)?;
        let id = registry.begin_upload(repository, owner, Some(digest.algorithm())).await?;
        let upload = UploadRef { id, repository, owner };
        let pushed = registry.finish_upload(upload, &digest, None, body).await;
        if let Err(error) = pushed {
            // The client never learned the upload's name.
            registry.cancel_upload(upload).await.unwrap_or_default();
            return Err(error.into());
        }
        return Ok(respond::created(&blob_path(repository, &digest), &digest));
    }
    let algorithm = match call.query.get("digest-algorithm") {
        Some(name) => Some(name.parse::<Algorithm>().map_err(|_| {
            let message = format!("digests are sha256 or sha512, not {name:?}");
            ApiError::new(ErrorCode::DigestInvalid, message)
        })?),
        None => None,
    };
    let id = registry.begin_upload(repository, owner, algorithm).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, id, 0))
}

/// `GET`: how far the upload has come.
pub(super) async fn status<S: Storage>(
    registry: &Registry<S>,
    upload: UploadRef<'_>,
) -> Result<Answer, ApiError> {
    let size = registry.upload_size(upload).await?;
    Ok(progress(StatusCode::NO_CONTENT, upload.repository, upload.id, size))
}

/// `PATCH`: a chunk, or a stream without a range.
pub(super) async fn append<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    upload: UploadRef<'_>,
    body: &mut Body,
) -> Result<Answer, ApiError> {
    let start = chunk_start(call)?;
    let size = registry
        .append(upload, start, body)
        .await
        .map_err(|error| with_progress(error, upload.repository, upload.id))?;
    Ok(progress(StatusCode::ACCEPTED, upload.repository, upload.id, size))
}

/// `PUT`: the last chunk, which may be empty or everything.
pub(super) async fn finish<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    upload: UploadRef<'_>,
    body: &mut Body,
) -> Result<Answer, ApiError> {
    let Some(digest) = call.query.get("digest") else {
        let message = "the parameter `digest` is missing";
        return Err(ApiError::new(ErrorCode::DigestInvalid, message));
    };
    let digest = route::digest(digest)?;
    let start = chunk_start(call)?;
    registry
        .finish_upload(upload, &digest, start, body)
        .await
        .map_err(|error| with_progress(error, upload.repository, upload.id))?;
    Ok(respond::created(&blob_path(upload.repository, &digest), &digest))
}

/// `DELETE`: ends the upload.
pub(super) async fn cancel<S: Storage>(
    registry: &Registry<S>,
    upload: UploadRef<'_>,
) -> Result<Answer, ApiError> {
    registry.cancel_upload(upload).await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// Returns where a chunk says it begins, after checking that it agrees with
/// itself.
fn chunk_start(call: &Call<'_>) -> Result<Option<u64>, ApiError> {
    let Some(header) = call.parts.headers.get(CONTENT_RANGE) else { return Ok(None) };
    let Some((first, last)) = header.to_str().ok().and_then(range::chunk) else {
        let message = "the content range is not <first>-<last>";
        return Err(ApiError::new(ErrorCode::BlobUploadInvalid, message));
    };
    let announced = last - first + 1;
    match call.content_length() {
        Some(received) if received != announced => {
            Err(Error::SizeMismatch { announced, received }.into())
        }
        _ => Ok(Some(first)),
    }
}

/// Returns an answer that says where an upload is and how far it has come.
fn progress(status: StatusCode, repository: &Repository, id: UploadId, size: u64) -> Answer {
    let mut answer = respond::empty(status);
    respond::set(&mut answer, LOCATION, &upload_path(repository, id));
    respond::set(&mut answer, RANGE, &received(size));
    respond::set(&mut answer, DOCKER_UPLOAD_UUID, &id.to_string());
    answer
}

/// A client whose chunk does not fit is told where the upload stands.
fn with_progress(error: Error, repository: &Repository, id: UploadId) -> ApiError {
    let Error::OutOfOrder { size, .. } = error else { return error.into() };
    let value = |text: String| HeaderValue::try_from(text).expect("names and numbers");
    ApiError::from(error)
        .with(LOCATION, value(upload_path(repository, id)))
        .with(RANGE, value(received(size)))
        .with(DOCKER_UPLOAD_UUID, value(id.to_string()))
}

/// Returns the range received so far. Nothing and one byte look the same; all
/// registries agree on that.
fn received(size: u64) -> String {
    format!("0-{}", size.saturating_sub(1))
}

fn blob_path(repository: &Repository, digest: &Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

fn upload_path(repository: &Repository, id: UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}
