//! Pushing, pulling and deleting manifests.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue};
use oci::{MAX_MANIFEST_BYTES, Repository, Tag};

use super::body::Body;
use super::error::{ApiError, ErrorCode};
use super::respond::{self, DOCKER_CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG};
use super::{Answer, Call, conditional};
use crate::access::Action;
use crate::content::{MAX_TAGS_PER_PUT, ManifestReference, PushedManifest, PutManifest, Registry};
use crate::storage::Storage;

/// distribution-spec, "Pulling manifests". The stored type is returned whatever
/// the client accepts: it may only be refused, not converted.
pub(super) async fn get<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
    reference: &ManifestReference,
) -> Result<Answer, ApiError> {
    let manifest = match call.may_precede_push(repository) {
        true => registry.assure_manifest(repository, reference).await?,
        false => registry.manifest(repository, reference).await?,
    };
    let etag = conditional::etag(&manifest.digest);
    let mut answer;
    if conditional::is_current(&call.parts.headers, &etag) {
        answer = respond::empty(StatusCode::NOT_MODIFIED);
    } else {
        let media_type = HeaderValue::try_from(&manifest.media_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        answer = respond::with_body(media_type, manifest.body.clone());
    }
    answer.headers_mut().insert(ETAG, etag);
    if matches!(reference, ManifestReference::Tag(_)) {
        // A tag moves; whoever keeps its answer must ask again.
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    respond::set(&mut answer, DOCKER_CONTENT_DIGEST, &manifest.digest.to_string());
    Ok(answer)
}

/// distribution-spec, "Pushing manifests".
pub(super) async fn put<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
    reference: ManifestReference,
    body: &mut Body,
) -> Result<Answer, ApiError> {
    let tags = tags(call, &reference)?;
    let too_large = || {
        let message = format!("a manifest may have {MAX_MANIFEST_BYTES} bytes");
        ApiError::new(ErrorCode::ManifestInvalid, message)
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    if call.header(CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok())
        > Some(MAX_MANIFEST_BYTES)
    {
        return Err(too_large());
    }
    let body = match body.read(MAX_MANIFEST_BYTES).await {
        Ok(body) => body.ok_or_else(too_large)?,
        Err(error) => {
            let message = format!("the manifest did not arrive: {error}");
            return Err(ApiError::new(ErrorCode::ManifestInvalid, message));
        }
    };
    let put = PutManifest {
        reference: reference.clone(),
        tags: tags.clone(),
        content_type: call.header(CONTENT_TYPE).map(str::to_owned),
        conditions: conditional::conditions(&call.parts.headers),
        may_move_tags: call.permit.may(repository, Action::Push),
        body,
    };
    let pushed = registry.put_manifest(repository, put).await?;
    let PushedManifest { digest, subject, missing } = pushed;
    let mut answer = respond::created(&format!("/v2/{repository}/manifests/{digest}"), &digest);
    if let Some(subject) = subject {
        respond::set(&mut answer, OCI_SUBJECT, &subject.to_string());
    }
    if !tags.is_empty() {
        let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        respond::set(&mut answer, OCI_TAG, &names.join(", "));
    }
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let list = missing.join(", ");
        respond::warn(&mut answer, &format!("{repository} does not have {list}"));
    }
    Ok(answer)
}

/// Returns the tags that a push by digest sets.
fn tags(call: &Call<'_>, reference: &ManifestReference) -> Result<Vec<Tag>, ApiError> {
    let invalid = |message: String| ApiError::new(ErrorCode::ManifestInvalid, message);
    let mut tags = Vec::new();
    for text in call.query.all("tag") {
        if matches!(reference, ManifestReference::Tag(_)) {
            return Err(invalid("`?tag=` is for pushes by digest".to_owned()));
        }
        let tag: Tag = text.parse().map_err(|error: oci::Error| invalid(error.to_string()))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS_PER_PUT {
            return Err(invalid(format!("one push sets at most {MAX_TAGS_PER_PUT} tags"))
                .with_status(StatusCode::URI_TOO_LONG));
        }
    }
    Ok(tags)
}

/// distribution-spec, "Deleting tags" and "Deleting manifests".
pub(super) async fn delete<S: Storage>(
    registry: &Registry<S>,
    repository: &Repository,
    reference: &ManifestReference,
) -> Result<Answer, ApiError> {
    match reference {
        ManifestReference::Tag(tag) => registry.delete_tag(repository, tag).await?,
        ManifestReference::Digest(digest) => registry.delete_manifest(repository, digest).await?,
    }
    Ok(respond::empty(StatusCode::ACCEPTED))
}
