//! TLS: a certificate and its key, read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::access::read;

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsConfig {
    /// The certificate and those that vouch for it, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Reads a certificate and its key.
///
/// # Errors
/// When they cannot be read, or do not belong together.
pub(crate) fn load(config: &TlsConfig, directory: &Path) -> anyhow::Result<rustls::ServerConfig> {
    let path = directory.join(&config.certificate);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&path)?)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} holds no certificates in PEM", path.display()))?;
    let path = directory.join(&config.key);
    let key = PrivateKeyDer::from_pem_slice(&read(&path)?)
        .with_context(|| format!("{} holds no private key in PEM", path.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| {
            format!("{} and {} do not fit", config.certificate.display(), config.key.display())
        })?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}
