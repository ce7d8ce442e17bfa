//! From an image in the store to a registry.
//!
//! Blobs first, then the manifests they belong to, then the indexes these belong to, and the name
//! last: whoever finds a manifest in the registry finds what it lists.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use oci::{
    Compression, Descriptor, DiffId, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES, Manifest, MediaType, Platform, Reference, Repository,
};
use tokio::sync::Semaphore;

use super::auth::Scope;
use super::documents::MAX_INDEX_DEPTH;
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Sink, Task};
use super::source::Source;
use super::transport::Transport;
use super::upload;
use crate::lease::Lease;
use crate::store::Store;

/// How to push.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Which image of an index to push, where the store has not all of them.
    pub platform: Platform,
    /// How layers that are plain tars are compressed before they leave.
    pub compression: Compression,
    /// The level of compression; `None` for the codec's default.
    pub level: Option<u32>,
    /// Whether layers that are compressed differently are compressed again.
    pub force_compression: bool,
    /// Whether the manifest is put under its digest only, and the name's tag is left alone.
    pub by_digest: bool,
    /// Whether what refers to the image, such as its signatures, is pushed as well.
    pub referrers: bool,
}

impl Default for PushOptions {
    /// Pushes for this machine, with layers that every client can read.
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            compression: Compression::Gzip,
            level: None,
            force_compression: false,
            by_digest: false,
            referrers: false,
        }
    }
}

/// Pushes an image, and returns the manifest or index that the registry now has under the name.
pub(super) async fn push(
    transport: &Transport,
    lease: &Lease,
    image: &Descriptor,
    to: &Reference,
    options: &PushOptions,
    sink: &Sink<'_>,
) -> Result<Descriptor> {
    let host = transport.hosts.of(to).await?;
    let (repository, scope) = (to.repository(), &upload::scope(to.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    Push::new(journey, to, options)?.publish(image, to).await
}

/// What travels to one repository.
pub(super) struct Push<'a> {
    pub(super) journey: Journey<'a>,
    options: &'a PushOptions,
    /// Where in the registry blobs may be found.
    sources: BTreeMap<Digest, Repository>,
    uploading: Semaphore,
    /// What the repository has by now.
    present: Mutex<BTreeSet<Digest>>,
}

impl<'a> Push<'a> {
    pub(super) fn new(
        journey: Journey<'a>,
        to: &Reference,
        options: &'a PushOptions,
    ) -> Result<Self> {
        let sources = sources(journey.lease.store(), to)?;
        let uploading = Semaphore::new(journey.transport.hosts.options().parallel.max(1));
        Ok(Self { journey, options, sources, uploading, present: Mutex::default() })
    }
}

impl Push<'_> {
    /// Pushes an image and gives it a name, which must be one of the repository.
    pub(super) async fn publish(&self, image: &Descriptor, to: &Reference) -> Result<Descriptor> {
        self.journey.lease.pin(&image.digest)?;
        let (descriptor, bytes) = self.content(image, 0).await?;
        let name = match (to.tag(), to.digest()) {
            _ if self.options.by_digest => descriptor.digest.to_string(),
            (Some(tag), _) => tag.to_string(),
            (None, Some(digest)) if *digest == descriptor.digest => digest.to_string(),
            (None, Some(digest)) => {
                let reason = format!("its manifest is {}, not {digest}", descriptor.digest);
                return Err(Error::NotPushable { reason });
            }
            (None, None) => unreachable!("a reference has a tag or a digest"),
        };
        if self.options.referrers {
            self.referrers(&descriptor).await?;
        }
        self.journey.put_manifest(&name, &descriptor, bytes).await?;
        Ok(descriptor)
    }

    /// Pushes what refers to an image, or to the images of an index, and what refers to that.
    async fn referrers(&self, root: &Descriptor) -> Result<()> {
        let store = self.journey.lease.store();
        let (mut queue, mut seen) = (vec![root.clone()], BTreeSet::new());
        while let Some(subject) = queue.pop() {
            if let Ok(document) = store.document(&subject) {
                queue.extend_from_slice(document.manifests());
            }
            for referrer in store.referrers(&subject.digest)? {
                if !seen.insert(referrer.digest) {
                    continue;
                }
                let (pushed, bytes) = self.content(&referrer, 0).await?;
                self.journey.put_manifest(&pushed.digest.to_string(), &pushed, bytes).await?;
                queue.push(referrer);
            }
        }
        Ok(())
    }

    /// Makes sure that the registry has everything that a manifest or index lists; returns it as it
    /// is to be pushed.
    async fn content(&self, image: &Descriptor, depth: usize) -> Result<(Descriptor, Bytes)> {
        let store = self.journey.lease.store();
        match store.document(image)? {
            Document::Manifest(manifest) => self.image(image, manifest).await,
            Document::Index(_) if depth >= MAX_INDEX_DEPTH => {
                let reason = "its indexes lead to further indexes without end".to_owned();
                Err(Error::NotPushable { reason })
            }
            Document::Index(index) => {
                if self.is_whole(&index)? {
                    return Box::pin(self.index(image, index, depth)).await;
                }
                // Of an image that was pulled for one platform, this platform is pushed.
                let selected = store.image(image, &self.options.platform)?;
                self.image(&selected.manifest_descriptor, selected.manifest).await
            }
        }
    }

    /// Whether the store has all manifests of an index.
    fn is_whole(&self, index: &Index) -> Result<bool> {
        let store = self.journey.lease.store();
        for entry in &index.manifests {
            self.journey.lease.pin(&entry.digest)?;
            if !store.blobs().contains(&entry.digest)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn index(
        &self,
        descriptor: &Descriptor,
        mut index: Index,
        depth: usize,
    ) -> Result<(Descriptor, Bytes)> {
        let mut is_changed = false;
        for entry in &mut index.manifests {
            let (pushed, bytes) = self.content(entry, depth + 1).await?;
            self.journey.put_manifest(&pushed.digest.to_string(), &pushed, bytes).await?;
            if pushed.digest != entry.digest {
                is_changed = true;
                (entry.digest, entry.size) = (pushed.digest, pushed.size);
            }
        }
        match is_changed {
            true => self.rewritten(descriptor, &index.to_bytes()),
            false => self.stored(descriptor),
        }
    }

    async fn image(
        &self,
        descriptor: &Descriptor,
        mut manifest: Manifest,
    ) -> Result<(Descriptor, Bytes)> {
        let diff_ids = self.diff_ids(&manifest)?;
        let mut seen = BTreeSet::new();
        let positions: Vec<usize> = (0..manifest.layers.len())
            .filter(|position| seen.insert(manifest.layers[*position].digest))
            .collect();
        let layers = positions.iter().map(|position| {
            self.layer(
                manifest.media_type.as_ref(),
                &manifest.layers[*position],
                diff_ids.get(*position),
            )
        });
        let config = self.blob(&manifest.config);
        let (pushed, ()) = futures_util::future::try_join(try_join_all(layers), config).await?;
        let old: Vec<Digest> = positions.iter().map(|p| manifest.layers[*p].digest).collect();
        let mut is_changed = false;
        for layer in &mut manifest.layers {
            let position = old.iter().position(|digest| *digest == layer.digest);
            let pushed = &pushed[position.expect("every layer is one of the different ones")];
            if pushed.digest != layer.digest {
                is_changed = true;
                layer.media_type = pushed.media_type.clone();
                (layer.digest, layer.size) = (pushed.digest, pushed.size);
            }
        }
        match is_changed {
            true => self.rewritten(descriptor, &manifest.to_bytes()),
            false => self.stored(descriptor),
        }
    }

    /// Returns what the layers are when uncompressed, as far as that matters: only a plain tar has
    /// to be compressed.
    fn diff_ids(&self, manifest: &Manifest) -> Result<Vec<DiffId>> {
        let is_changed = |layer: &Descriptor| self.is_to_be_compressed(layer);
        if !manifest.config.media_type.is_config() || !manifest.layers.iter().any(is_changed) {
            return Ok(Vec::new());
        }
        let digest = manifest.config.digest;
        let bytes = self.journey.lease.store().blobs().read(&digest, MAX_CONFIG_BYTES as u64)?;
        let config = ImageConfig::parse(&bytes).map_err(|source| crate::Error::Document {
            digest,
            kind: "image config",
            source,
        })?;
        Ok(config.rootfs_diff_ids)
    }

    /// Whether a layer has to change its compression before it leaves.
    fn is_to_be_compressed(&self, layer: &Descriptor) -> bool {
        match layer.media_type.layer_compression() {
            Some(present) if present == self.options.compression => false,
            Some(Compression::None) => true,
            Some(_) => self.options.force_compression && layer.media_type.is_distributable(),
            None => false,
        }
    }

    /// Compresses a layer where that is needed, and makes sure that the registry has it.
    pub(super) async fn layer(
        &self,
        family: Option<&MediaType>,
        layer: &Descriptor,
        diff_id: Option<&DiffId>,
    ) -> Result<Descriptor> {
        let Journey { lease, sink, .. } = self.journey;
        let mut pushed = layer.clone();
        if let Some(diff_id) = diff_id
            && self.is_to_be_compressed(layer)
        {
            self.fetch(layer).await?;
            let (digest, task) = (layer.digest, Task::Compress);
            sink(Event::Started { digest, task, size: layer.size });
            let (lease, layer, diff_id) = (lease.clone(), layer.clone(), *diff_id);
            let (codec, level) = (self.options.compression, self.options.level);
            pushed = tokio::task::spawn_blocking(move || {
                lease.compressed(&diff_id, &layer, codec, level)
            })
            .await
            .expect("compressing does not panic")?;
            if family == Some(&MediaType::DOCKER_MANIFEST) {
                pushed.media_type = dockers(&pushed.media_type);
            }
            sink(Event::Finished { digest, task });
        }
        if pushed.media_type.is_distributable() {
            self.blob(&pushed).await?;
        }
        Ok(pushed)
    }

    /// Makes sure that the registry has a blob.
    pub(super) async fn blob(&self, blob: &Descriptor) -> Result<()> {
        if self.present().contains(&blob.digest) {
            return Ok(());
        }
        let _permit = self.uploading.acquire().await.expect("the semaphore is not closed");
        let lease = self.journey.lease;
        lease.pin(&blob.digest)?;
        let mount = self.sources.get(&blob.digest);
        if lease.store().blobs().contains(&blob.digest)? {
            self.journey.upload(blob, mount, Source::Store(lease)).await?;
        } else {
            self.relay(blob, mount).await?;
        }
        self.present().insert(blob.digest);
        Ok(())
    }

    /// Makes sure that the registry has a blob that is not in the store, but known to be elsewhere.
    async fn relay(&self, blob: &Descriptor, mount: Option<&Repository>) -> Result<()> {
        let Journey { transport, lease, sink, host: to, .. } = self.journey;
        let mut result = Err(crate::Error::BlobUnknown { digest: blob.digest }.into());
        for origin in lease.store().origins(&blob.digest)? {
            let repository = origin.repository();
            let host = transport.hosts.of(&origin).await?;
            let scope = &Scope::pull(repository);
            let from = Journey { transport, host: &host, repository, scope, lease, sink };
            let is_near = host.name == to.name && repository != self.journey.repository;
            let mount = if is_near { Some(repository) } else { mount };
            result = self.journey.upload(blob, mount, Source::Registry(from)).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Makes sure that the store has a layer, from wherever it is.
    async fn fetch(&self, layer: &Descriptor) -> Result<()> {
        let Journey { transport, lease, sink, .. } = self.journey;
        fetch_blob(transport, lease, layer, sink).await.map(drop)
    }

    fn present(&self) -> MutexGuard<'_, BTreeSet<Digest>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a document as it is stored, to the byte.
    fn stored(&self, descriptor: &Descriptor) -> Result<(Descriptor, Bytes)> {
        let blobs = self.journey.lease.store().blobs();
        let bytes = blobs.read(&descriptor.digest, MAX_MANIFEST_BYTES as u64)?;
        let mut plain =
            Descriptor::new(descriptor.media_type.clone(), descriptor.digest, bytes.len() as u64);
        plain.platform.clone_from(&descriptor.platform);
        Ok((plain, Bytes::from(bytes)))
    }

    /// Stores a document that has changed, because its layers are compressed now.
    fn rewritten(&self, old: &Descriptor, bytes: &[u8]) -> Result<(Descriptor, Bytes)> {
        let stored = self.journey.lease.put(bytes)?;
        let mut descriptor = Descriptor::new(old.media_type.clone(), stored.digest, stored.size);
        descriptor.platform.clone_from(&old.platform);
        Ok((descriptor, Bytes::copy_from_slice(bytes)))
    }
}

/// Downloads a blob that the store has not, from where it is known to be; tells whether it had to.
pub(super) async fn fetch_blob(
    transport: &Transport,
    lease: &Lease,
    blob: &Descriptor,
    sink: &Sink<'_>,
) -> Result<bool> {
    lease.pin(&blob.digest)?;
    if lease.store().blobs().contains(&blob.digest)? {
        return Ok(false);
    }
    let mut result = Err(crate::Error::BlobUnknown { digest: blob.digest }.into());
    for origin in lease.store().origins(&blob.digest)? {
        let repository = origin.repository();
        let host = transport.hosts.of(&origin).await?;
        let scope = &Scope::pull(repository);
        let from = Journey { transport, host: &host, repository, scope, lease, sink };
        result = from.download(blob).await;
        if result.is_ok() {
            break;
        }
    }
    result.map(|()| true)
}

/// Returns docker's name of an OCI media type: its manifests list only its own.
fn dockers(media_type: &MediaType) -> MediaType {
    match media_type.layer_compression() {
        Some(Compression::Gzip) => MediaType::DOCKER_LAYER_GZIP,
        Some(Compression::Zstd) => MediaType::DOCKER_LAYER_ZSTD,
        Some(Compression::None) | None => media_type.clone(),
    }
}

/// Returns in which other repositories of a registry blobs may be found: those of images that were
/// pulled from there, or may have been pushed there. A registry that disagrees takes an upload.
fn sources(store: &Store, to: &Reference) -> Result<BTreeMap<Digest, Repository>> {
    let compressed: BTreeMap<DiffId, Digest> = crate::compress::notes(store)?
        .into_iter()
        .map(|note| (note.diff_id, note.descriptor.digest))
        .collect();
    let mut sources = BTreeMap::new();
    for entry in store.images().list()? {
        let Some(name) = entry.reference else { continue };
        if name.registry() != to.registry() || name.repository() == to.repository() {
            continue;
        }
        // An image that is not whole is none to mount from.
        let Ok(image) = store.image(&entry.descriptor, &Platform::host()) else { continue };
        for (layer, diff_id) in image.manifest.layers.iter().zip(image.diff_ids()) {
            let is_plain = layer.media_type.layer_compression() == Some(Compression::None);
            let digest = if is_plain { compressed.get(diff_id) } else { Some(&layer.digest) };
            if let Some(digest) = digest {
                sources.entry(*digest).or_insert_with(|| name.repository().clone());
            }
        }
    }
    Ok(sources)
}
