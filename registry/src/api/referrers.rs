//! distribution-spec, "Listing Referrers".

use hyper::header::{HeaderValue, LINK};
use oci::{Digest, Repository};

use super::error::ApiError;
use super::query::percent_encode;
use super::respond::{self, OCI_FILTERS_APPLIED};
use super::{Answer, Call, route};
use crate::content::Registry;
use crate::storage::Storage;

/// Lists what refers to a digest. A digest that nobody knows has no referrers:
/// that is an empty list, never an error.
pub(super) async fn get<S: Storage>(
    registry: &Registry<S>,
    call: &Call<'_>,
    repository: &Repository,
    subject: &Digest,
) -> Result<Answer, ApiError> {
    let artifact_type = call.query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let last = call.query.get("last").map(route::digest).transpose()?;
    let page = registry.referrers(repository, subject, artifact_type, last.as_ref()).await?;
    let media_type = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    let mut answer = respond::with_body(media_type, page.index.to_bytes());
    if artifact_type.is_some() {
        respond::set(&mut answer, OCI_FILTERS_APPLIED, "artifactType");
    }
    if let Some(next) = page.next {
        let filter = artifact_type
            .map(|wanted| format!("&artifactType={}", percent_encode(wanted)))
            .unwrap_or_default();
        let link =
            format!("</v2/{repository}/referrers/{subject}?last={next}{filter}>; rel=\"next\"");
        respond::set(&mut answer, LINK, &link);
    }
    Ok(answer)
}
