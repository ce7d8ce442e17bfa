//! Whether a registry accepts a credential.

use oci::DEFAULT_REGISTRY;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::auth::{Credential, Scope};
use super::error::{Error, Result};
use super::event::Sink;
use super::transport::{Call, Transport};

/// Where the API of Docker Hub answers.
const HUB_API_HOST: &str = "registry-1.docker.io";

/// Asks for the root of a registry's API with a credential.
///
/// distribution-spec, "Determining Support": whoever may use the registry gets a 200.
pub(super) async fn check(
    transport: &Transport,
    registry: &str,
    credential: Credential,
    sink: &Sink<'_>,
) -> Result<()> {
    let api_host = if registry == DEFAULT_REGISTRY { HUB_API_HOST } else { registry };
    let host = transport.host_with(api_host, credential).await?;
    let call = Call {
        host: &host,
        what: "a login",
        method: Method::GET,
        url: host.url(""),
        headers: HeaderMap::new(),
        scope: &Scope::default(),
        understood: &[StatusCode::OK],
    };
    match transport.call(&call, None, sink).await {
        Ok(_) => Ok(()),
        Err(Error::NotFound { host, .. }) => {
            let reason = "it has no API for images".to_owned();
            Err(Error::Protocol { host, reason })
        }
        Err(error) => Err(error),
    }
}
