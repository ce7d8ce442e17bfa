//! From a name to an image in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;

use futures_util::future::try_join_all;
use oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES,
    Manifest, MediaType, Platform, Reference,
};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use super::auth::Scope;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Sink, Task};
use super::retry::Failure;
use super::transport::{Call, Transport, protocol};
use crate::error::IoContext as _;
use crate::lease::Lease;

/// How many indexes may lead to each other before a manifest.
const MAX_INDEX_DEPTH: usize = 4;

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
}

impl Default for PullOptions {
    /// Pulls for this machine, ready to run.
    fn default() -> Self {
        Self { platform: Platform::host(), unpack: true }
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

/// A document of a registry: its bytes are what its descriptor says.
struct Fetched {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    document: Document,
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
    /// Fetches what a name stands for.
    async fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => self.fetch(&digest.to_string(), Some(*digest), None).await,
            (None, Some(tag)) => self.fetch(tag.as_str(), None, None).await,
            (None, None) => unreachable!("a reference has a tag or a digest"),
        }
    }

    /// Follows indexes to the manifest for a platform; returns the indexes on the way as well.
    async fn image(&self, root: Fetched, platform: &Platform) -> Result<(Vec<Fetched>, Fetched)> {
        let (mut indexes, mut current) = (Vec::new(), root);
        while let Document::Index(index) = &current.document {
            if indexes.len() >= MAX_INDEX_DEPTH {
                return Err(protocol(self.host, "its indexes lead to further indexes without end"));
            }
            let entry = index.select(platform).ok_or_else(|| unavailable(index, platform))?.clone();
            indexes.push(current);
            let name = entry.digest.to_string();
            current = self.fetch(&name, Some(entry.digest), Some(&entry)).await?;
            current.descriptor = entry;
        }
        Ok((indexes, current))
    }

    /// Fetches a manifest or index by tag or digest, and verifies it.
    async fn fetch(
        &self,
        name: &str,
        digest: Option<Digest>,
        entry: Option<&Descriptor>,
    ) -> Result<Fetched> {
        let what = format!("manifest {name} of {}", self.repository);
        let (bytes, stated) = match self.stored(digest)? {
            Some(bytes) => (bytes, entry.map(|entry| entry.media_type.clone())),
            None => self.get(name, &what).await?,
        };
        let actual = match digest {
            Some(digest) => Digest::of(digest.algorithm(), &bytes),
            None => Digest::sha256(&bytes),
        };
        let host = || self.host.name.clone();
        if digest.is_some_and(|digest| digest != actual) {
            return Err(Error::Corrupt { host: host(), what, actual });
        }
        if let Some(entry) = entry
            && entry.size != bytes.len() as u64
        {
            let reason = format!("{what} has {} bytes, its index says {}", bytes.len(), entry.size);
            return Err(protocol(self.host, &reason));
        }
        let stated = entry.map(|entry| entry.media_type.clone()).or(stated);
        let document = Document::parse(&bytes, stated.as_ref())
            .map_err(|source| Error::Document { host: host(), what, source })?;
        let descriptor = Descriptor::new(document.media_type(), actual, bytes.len() as u64);
        Ok(Fetched { descriptor, bytes, document })
    }

    /// Returns a document that the store has. It is pinned, so that it stays.
    fn stored(&self, digest: Option<Digest>) -> Result<Option<Vec<u8>>> {
        let Some(digest) = digest else { return Ok(None) };
        self.lease.pin(&digest)?;
        match self.lease.store().blobs().contains(&digest)? {
            true => Ok(Some(self.lease.store().blobs().read(&digest, MAX_MANIFEST_BYTES as u64)?)),
            false => Ok(None),
        }
    }

    /// Downloads a document of limited size into memory.
    async fn get(&self, name: &str, what: &str) -> Result<(Vec<u8>, Option<MediaType>)> {
        let accept = MediaType::MANIFESTS.map(|media_type| media_type.to_string()).join(", ");
        let accept = HeaderValue::try_from(accept).expect("media types are a header");
        let call = Call {
            host: self.host,
            what,
            method: Method::GET,
            url: self.host.url(&format!("{}/manifests/{name}", self.repository)),
            headers: HeaderMap::from_iter([(ACCEPT, accept)]),
            scope: self.scope,
            understood: &[StatusCode::OK],
        };
        let mut patience = self.transport.patience();
        loop {
            match self.get_once(&call).await {
                Ok(found) => return Ok(found),
                Err(failure) => {
                    self.transport.pause(&mut patience, failure, &call, self.sink).await?;
                }
            }
        }
    }

    async fn get_once(&self, call: &Call<'_>) -> Result<(Vec<u8>, Option<MediaType>), Failure> {
        let mut response = self.transport.exchange(call, None).await?;
        let media_type = content_type(&response);
        let mut bytes = Vec::new();
        loop {
            let piece = self.transport.piece(&mut response, call).await?;
            let Some(piece) = piece else { break };
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAX_MANIFEST_BYTES {
                let (size, limit) = (bytes.len(), MAX_MANIFEST_BYTES);
                let source = oci::Error::TooLarge { what: "manifest", size, limit };
                let (host, what) = (self.host.name.clone(), call.what.to_owned());
                return Err(Error::Document { host, what, source }.into());
            }
        }
        let promised = response.headers().get("docker-content-digest");
        let promised = promised.and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        if let Some(promised) = promised {
            let actual = Digest::of(promised.algorithm(), &bytes);
            if actual != promised {
                let (host, what) = (self.host.name.clone(), call.what.to_owned());
                return Err(Error::Corrupt { host, what, actual }.into());
            }
        }
        Ok((bytes, media_type))
    }

    /// Makes sure that the config and all layers are in the store, unpacked if that is wanted.
    /// Returns whether anything was downloaded.
    async fn content(&self, manifest: &Manifest, options: &PullOptions) -> Result<bool> {
        let mut has_downloaded = self.blob(&manifest.config).await?;
        let layers = self.layers(manifest, options)?;
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
        for was_missing in try_join_all(work).await? {
            has_downloaded |= was_missing;
        }
        Ok(has_downloaded)
    }

    /// Lists the different layers of an image, with what they are to be unpacked as.
    ///
    /// What is no container image, such as a chart or a signature, has layers that stay as they
    /// are.
    fn layers<'m>(
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
    async fn blob(&self, blob: &Descriptor) -> Result<bool> {
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

    /// Puts a document into the store, byte for byte as it came.
    fn keep(&self, fetched: &Fetched) -> Result<()> {
        let (digest, size) = (fetched.descriptor.digest, fetched.descriptor.size);
        self.lease.pin(&digest)?;
        if self.lease.store().blobs().contains(&digest)? {
            return Ok(());
        }
        let mut ingest = self.lease.ingest_with(digest.algorithm())?;
        let path = self.lease.store().root().blob(&digest);
        ingest.write_all(&fetched.bytes).doing("write", path)?;
        ingest.commit(Some((digest, size)))?;
        Ok(())
    }
}

fn content_type(response: &Response) -> Option<MediaType> {
    let value = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    MediaType::from_content_type(value).ok()
}

fn unavailable(index: &Index, wanted: &Platform) -> Error {
    let known: Vec<String> = index.platforms().iter().map(ToString::to_string).collect();
    let available =
        if known.is_empty() { "no platform at all".to_owned() } else { known.join(", ") };
    let wanted = Box::new(wanted.clone());
    crate::Error::PlatformUnavailable { wanted, available }.into()
}
