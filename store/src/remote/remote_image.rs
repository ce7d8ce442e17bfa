//! An image that stays in its registry: what it is, without its layers.

use oci::{
    Descriptor, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, MediaType, Platform, Reference,
};

use super::auth::Scope;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Sink};
use super::retry::Failure;
use super::source::Source;
use super::transport::{Transport, protocol};
use crate::lease::Lease;

/// What a name in a registry stands for.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The same, byte for byte.
    pub bytes: Vec<u8>,
    /// The same, understood.
    pub document: Document,
}

/// Looks up what a name stands for.
pub(super) async fn look_up(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    sink: &Sink<'_>,
) -> Result<RemoteImage> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let fetched = journey.manifest(reference).await?;
    sink(Event::Resolved { reference: reference.clone(), digest: fetched.descriptor.digest });
    let (descriptor, bytes, document) = (fetched.descriptor, fetched.bytes, fetched.document);
    Ok(RemoteImage { descriptor, bytes, document })
}

/// Fetches the manifest for a platform and its config, into memory only.
pub(super) async fn image(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    platform: &Platform,
    sink: &Sink<'_>,
) -> Result<(crate::Image, Vec<u8>)> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = journey.manifest(reference).await?;
    let (_, image) = journey.image(root, platform).await?;
    let Document::Manifest(manifest) = image.document else {
        unreachable!("an image's document is a manifest")
    };
    let bytes = journey.config(&manifest).await?;
    let config = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
        host: host.name.clone(),
        what: format!("image config {}", manifest.config.digest),
        source,
    })?;
    let config_digest = manifest.config.digest;
    let manifest_descriptor = image.descriptor;
    Ok((crate::Image { manifest_descriptor, manifest, config_digest, config }, bytes))
}

/// Lists what refers to the manifest or index that a name stands for.
pub(super) async fn referrers(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    sink: &Sink<'_>,
) -> Result<Vec<Descriptor>> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = journey.manifest(reference).await?;
    journey.referrers(&root.descriptor.digest).await
}

impl Journey<'_> {
    /// Fetches an image's config, or what an artifact has in its place, from the store or registry.
    async fn config(&self, manifest: &Manifest) -> Result<Vec<u8>> {
        let config = &manifest.config;
        let what = format!("image config {}", config.digest);
        if ![MediaType::OCI_CONFIG, MediaType::DOCKER_CONFIG].contains(&config.media_type) {
            let (digest, reason) =
                (config.digest, format!("its config is of type {}", config.media_type));
            return Err(crate::Error::NotAnImage { digest, reason }.into());
        }
        if config.size > MAX_CONFIG_BYTES as u64 {
            return Err(protocol(self.host, &format!("{what} has {} bytes", config.size)));
        }
        self.lease.pin(&config.digest)?;
        let source = match self.lease.store().blobs().contains(&config.digest)? {
            true => Source::Store(self.lease),
            false => Source::Registry(*self),
        };
        let call = self.blob_call(&config.digest, &what);
        let mut patience = self.transport.patience();
        loop {
            let failure: Failure = match source.read(config).await {
                Ok(bytes) => return Ok(bytes.to_vec()),
                Err(failure) => failure,
            };
            self.transport.pause(&mut patience, failure, &call, self.sink).await?;
        }
    }
}
