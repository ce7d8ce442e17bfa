//! Whether this is a registry, and whether it works.

use std::sync::atomic::Ordering;

use hyper::header::HeaderValue;

use super::error::ApiError;
use super::{Answer, respond};
use crate::server::Shared;
use crate::storage::Storage;

/// distribution-spec, "Determining Support".
pub(super) fn version() -> Answer {
    respond::json(&serde_json::json!({}))
}

/// The process answers.
pub(super) fn live() -> Answer {
    respond::with_body(HeaderValue::from_static("text/plain"), "ok\n")
}

/// The process takes requests and its storage answers.
pub(super) async fn ready<S: Storage>(shared: &Shared<S>) -> Result<Answer, ApiError> {
    if shared.is_draining.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable());
    }
    shared.registry.check().await?;
    Ok(live())
}
