//! From a name to an image in the store.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, Platform,
    Reference,
};
use tokio::sync::Semaphore;

use super::auth::Scope;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Sink, Task};
use super::transport::{Transport, protocol};
use crate::lease::Lease;

/// How many layers are unpacked at once: unpacking is decompression and small files, so more than
/// the processors gain little.
const MAX_UNPACKING: usize = 4;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// What the image is to run on.
    pub platform: Platform,
    /// Whether the layers are unpacked as they arrive, so that the image is ready to run.
    pub unpack: bool,
    /// Whether what refers to the image, such as its signatures, is pulled as well.
    pub referrers: bool,
}

impl Default for PullOptions {
    /// Pulls for this machine, ready to run.
    fn default() -> Self {
        Self { platform: Platform::host(), unpack: true, referrers: false }
    }
}

/// What was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What the name stands for: a manifest, or an index of several platforms.
    pub descriptor: Descriptor,
    /// The manifest of the image for the platform asked for.
    pub manifest: Descriptor,
    /// Whether the name already led here, and nothing had to be downloaded.
    pub is_up_to_date: bool,
}

/// Pulls an image and gives it its name in the store.
pub(super) async fn pull(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    options: &PullOptions,
    sink: &Sink<'_>,
) -> Result<Pulled> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = journey.manifest(reference).await?;
    let descriptor = root.descriptor.clone();
    sink(Event::Resolved { reference: reference.clone(), digest: descriptor.digest });
    let known = lease.store().images().get(reference)?;
    let was_known = known.is_some_and(|known| known.digest == descriptor.digest);

    let (indexes, image) = journey.image(root, &options.platform).await?;
    let Document::Manifest(manifest) = &image.document else {
        unreachable!("an image's document is a manifest")
    };
    let has_downloaded = journey.content(manifest, options).await?;
    // From the bottom up, so that whoever finds one finds what it lists.
    journey.keep(&image)?;
    for index in indexes.iter().rev() {
        journey.keep(index)?;
    }
    if options.referrers {
        for digest in BTreeSet::from([descriptor.digest, image.descriptor.digest]) {
            journey.pull_referrers(reference, &digest).await?;
        }
    }
    lease.store().images().set(lease, reference, &descriptor)?;
    let is_up_to_date = was_known && !has_downloaded;
    Ok(Pulled { descriptor, manifest: image.descriptor, is_up_to_date })
}

/// Looks a name up, without downloading what it stands for.
pub(super) async fn resolve(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    sink: &Sink<'_>,
) -> Result<Descriptor> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    Ok(journey.manifest(reference).await?.descriptor)
}

impl Journey<'_> {
    /// Makes sure that the config and all layers are in the store, unpacked if that is wanted.
    /// Returns whether anything was downloaded.
    async fn content(&self, manifest: &Manifest, options: &PullOptions) -> Result<bool> {
        let has_config = self.take_config(manifest).await?;
        let has_layers = self.transfer(self.layers(manifest, options)?).await?;
        Ok(has_config || has_layers)
    }

    /// Makes sure that the config is in the store; that of an image is not downloaded if it is longer
    /// than any is. Returns whether it was downloaded.
    pub(super) async fn take_config(&self, manifest: &Manifest) -> Result<bool> {
        let config = &manifest.config;
        if config.media_type.is_config() && config.size > MAX_CONFIG_BYTES as u64 {
            let reason = format!("image config {} has {} bytes", config.digest, config.size);
            return Err(protocol(self.host, &reason));
        }
        self.blob(config).await
    }

    /// Makes sure that blobs are in the store, and that those with a diff id are unpacked.
    /// Returns whether anything was downloaded.
    pub(super) async fn transfer(
        &self,
        layers: Vec<(&Descriptor, Option<DiffId>)>,
    ) -> Result<bool> {
        let parallel = self.transport.hosts.options().parallel.max(1);
        let (downloading, unpacking) = (Semaphore::new(parallel), Semaphore::new(MAX_UNPACKING));
        let work = layers.into_iter().map(|(layer, diff_id)| {
            let (downloading, unpacking) = (&downloading, &unpacking);
            async move {
                let permit = downloading.acquire().await.expect("the semaphore is not closed");
                let was_missing = self.blob(layer).await?;
                drop(permit);
                if let Some(diff_id) = diff_id {
                    let _permit = unpacking.acquire().await.expect("the semaphore is not closed");
                    self.unpack(layer, diff_id).await?;
                }
                Ok::<_, Error>(was_missing)
            }
        });
        Ok(try_join_all(work).await?.contains(&true))
    }

    /// Lists the different layers of an image, with what they are to be unpacked as.
    ///
    /// What is no container image, such as a chart or a signature, has layers that stay as they
    /// are.
    pub(super) fn layers<'m>(
        &self,
        manifest: &'m Manifest,
        options: &PullOptions,
    ) -> Result<Vec<(&'m Descriptor, Option<DiffId>)>> {
        if !manifest.config.media_type.is_config() {
            let layers: BTreeMap<Digest, &Descriptor> =
                manifest.layers.iter().map(|layer| (layer.digest, layer)).collect();
            return Ok(layers.into_values().map(|layer| (layer, None)).collect());
        }
        let bytes =
            self.lease.store().blobs().read(&manifest.config.digest, MAX_CONFIG_BYTES as u64)?;
        let what = format!("image config {}", manifest.config.digest);
        let config = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
            host: self.host.name.clone(),
            what: what.clone(),
            source,
        })?;
        if !config.platform.matches(&options.platform) {
            let (wanted, available) =
                (Box::new(options.platform.clone()), config.platform.to_string());
            return Err(crate::Error::PlatformUnavailable { wanted, available }.into());
        }
        if config.rootfs_diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs_diff_ids.len());
            let reason = format!("{what} has {diff_ids} layers, its manifest {layers}");
            return Err(protocol(self.host, &reason));
        }
        let mut seen = BTreeSet::new();
        Ok(manifest
            .layers
            .iter()
            .zip(&config.rootfs_diff_ids)
            .filter(|(layer, _)| seen.insert(layer.digest))
            .map(|(layer, diff_id)| (layer, options.unpack.then_some(*diff_id)))
            .collect())
    }

    /// Makes sure that a blob is in the store; returns whether it had to be downloaded.
    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<bool> {
        self.lease.pin(&blob.digest)?;
        if self.lease.store().blobs().contains(&blob.digest)? {
            (self.sink)(Event::Exists { digest: blob.digest, task: Task::Download });
            return Ok(false);
        }
        self.download(blob).await?;
        Ok(true)
    }

    async fn unpack(&self, layer: &Descriptor, diff_id: DiffId) -> Result<()> {
        let (digest, task) = (layer.digest, Task::Unpack);
        (self.sink)(Event::Started { digest, task, size: layer.size });
        let (lease, layer) = (self.lease.clone(), layer.clone());
        tokio::task::spawn_blocking(move || lease.unpack(&layer, diff_id))
            .await
            .expect("unpacking does not panic")?;
        (self.sink)(Event::Finished { digest, task });
        Ok(())
    }
}
