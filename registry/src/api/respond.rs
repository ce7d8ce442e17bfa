//! Pieces of responses.

use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use oci::Digest;

use super::Answer;
use super::payload::Payload;

pub(super) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
const WARNING: HeaderName = HeaderName::from_static("warning");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Returns a response without a body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Payload::default());
    *answer.status_mut() = status;
    api_version(&mut answer);
    answer
}

/// Returns a response with a body.
pub(super) fn with_body(content_type: HeaderValue, body: impl Into<Bytes>) -> Answer {
    let body = body.into();
    let length = body.len();
    let mut answer = Response::new(Payload::from(body));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, length.into());
    api_version(&mut answer);
    answer
}

/// Returns a response whose body is JSON.
pub(super) fn json(value: &serde_json::Value) -> Answer {
    with_body(HeaderValue::from_static("application/json"), value.to_string())
}

/// Says, as old clients expect, that this is a registry.
pub(super) fn api_version(answer: &mut Answer) {
    answer.headers_mut().insert(DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
}

/// Adds a header whose value we made.
pub(super) fn set(answer: &mut Answer, name: HeaderName, value: &str) {
    let value = HeaderValue::try_from(value).expect("made of names, numbers and digests");
    answer.headers_mut().insert(name, value);
}

/// Says in which namespace the answer was found, if the client named one.
pub(super) fn within(mut answer: Answer, namespace: Option<HeaderValue>) -> Answer {
    if let Some(namespace) = namespace {
        answer.headers_mut().insert(OCI_NAMESPACE, namespace);
    }
    answer
}

/// Adds a warning that clients show to their users: distribution-spec,
/// "Warnings". `text` is made of names and digests.
///
/// All warnings of an answer may have 4096 bytes; one that lists a few digests
/// has fewer than 1500.
pub(super) fn warn(answer: &mut Answer, text: &str) {
    set(answer, WARNING, &format!("299 - \"{text}\""));
}

/// Returns the answer to something that now exists.
pub(super) fn created(location: &str, digest: &Digest) -> Answer {
    let mut answer = empty(StatusCode::CREATED);
    set(&mut answer, LOCATION, location);
    set(&mut answer, DOCKER_CONTENT_DIGEST, &digest.to_string());
    answer
}
