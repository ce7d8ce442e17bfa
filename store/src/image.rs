//! From a descriptor to the image it stands for.

use std::io::Write as _;

use oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES,
    Manifest, MediaType, Platform,
};

use crate::error::{Error, IoContext as _, Result};
use crate::ingest::Committed;
use crate::lease::Lease;
use crate::settle;
use crate::store::Store;

/// How many indexes may lead to each other before a manifest. One is usual, two occur; the limit
/// ends a circle, which a digest cannot make but a broken store could.
const MAX_INDEX_DEPTH: usize = 4;

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// What leads to the manifest. Its digest is the one to deploy by.
    pub manifest_descriptor: Descriptor,
    /// Its config and layers.
    pub manifest: Manifest,
    /// The digest of the config, which users know as the image ID.
    pub config_digest: Digest,
    /// How to run it, and what its layers are when uncompressed.
    pub config: ImageConfig,
}

impl Image {
    /// Returns the diff ids of the layers, bottom first, as many as the manifest has layers.
    #[must_use]
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.config.rootfs_diff_ids
    }
}

impl Store {
    /// Reads the image that a descriptor of a manifest or index stands for on a platform.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if part of it is not stored, [`Error::PlatformUnavailable`] if it is
    /// for other platforms, [`Error::NotAnImage`] if it is something else, such as a signature.
    pub fn image(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        let (manifest_descriptor, manifest) = self.manifest(descriptor, platform)?;
        let digest = manifest_descriptor.digest;
        if !is_image_config(&manifest.config.media_type) {
            let reason = format!("its config is of type {}", manifest.config.media_type);
            return Err(Error::NotAnImage { digest, reason });
        }
        let config_digest = manifest.config.digest;
        let bytes = self.blobs().read(&config_digest, MAX_CONFIG_BYTES as u64)?;
        let config = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
            digest: config_digest,
            kind: "image config",
            source,
        })?;
        if config.rootfs_diff_ids.len() != manifest.layers.len() {
            let (layers, diff_ids) = (manifest.layers.len(), config.rootfs_diff_ids.len());
            let reason = format!("its manifest has {layers} layers, its config {diff_ids}");
            return Err(Error::NotAnImage { digest, reason });
        }
        let found = &config.platform;
        if !found.os.is_empty() && !found.architecture.is_empty() && !found.matches(platform) {
            let (wanted, available) = (Box::new(platform.clone()), found.to_string());
            return Err(Error::PlatformUnavailable { wanted, available });
        }
        Ok(Image { manifest_descriptor, manifest, config_digest, config })
    }

    /// Reads a manifest or index.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if it is not stored, [`Error::Document`] if it is neither.
    pub fn document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES as u64)?;
        Document::parse(&bytes, Some(&descriptor.media_type)).map_err(|source| Error::Document {
            digest: descriptor.digest,
            kind: "manifest",
            source,
        })
    }

    /// Follows indexes to the manifest for a platform.
    fn manifest(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
    ) -> Result<(Descriptor, Manifest)> {
        let mut descriptor = descriptor.clone();
        for _ in 0..=MAX_INDEX_DEPTH {
            match self.document(&descriptor)? {
                Document::Manifest(manifest) => return Ok((descriptor, manifest)),
                Document::Index(index) => match index.select(platform) {
                    Some(selected) => descriptor = selected.clone(),
                    None => {
                        return Err(Error::PlatformUnavailable {
                            wanted: Box::new(platform.clone()),
                            available: platforms(&index),
                        });
                    }
                },
            }
        }
        let reason = "its indexes lead to further indexes without end".to_owned();
        Err(Error::NotAnImage { digest: descriptor.digest, reason })
    }

    /// Returns the image ID (config digest) for the host's platform, or of the only image there is.
    ///
    /// `None` if an index has nothing here for the host.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn image_id(&self, descriptor: &Descriptor) -> Result<Option<Digest>> {
        match self.manifest(descriptor, &Platform::host()) {
            Ok((_, manifest)) => Ok(Some(manifest.config.digest)),
            Err(
                Error::PlatformUnavailable { .. }
                | Error::BlobUnknown { .. }
                | Error::NotAnImage { .. },
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Lease {
    /// Stores an image's config and its manifest, and returns what leads to it.
    ///
    /// The manifest's `config` is made to point at `config`, keeping its media type. What is
    /// stored already is not written again.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn put_image(&self, manifest: &Manifest, config: &ImageConfig) -> Result<Descriptor> {
        let config = self.put(&config.to_bytes())?;
        let mut manifest = manifest.clone();
        manifest.config.digest = config.digest;
        manifest.config.size = config.size;
        let media_type = manifest.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST);
        let stored = self.put(&manifest.to_bytes())?;
        Ok(Descriptor::new(media_type, stored.digest, stored.size))
    }

    /// Stores a small blob that is in memory already, unless it is stored.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Committed> {
        let digest = Digest::sha256(bytes);
        self.pin(&digest)?;
        if let Some(size) = self.store().blobs().size(&digest)? {
            if !self.defers_syncs() {
                settle::blobs(self.store(), &[digest].into())?;
            }
            return Ok(Committed { digest, size });
        }
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).doing("write", self.store().root().blob(&digest))?;
        ingest.commit(Some((digest, bytes.len() as u64)))
    }
}

fn is_image_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::OCI_CONFIG || *media_type == MediaType::DOCKER_CONFIG
}

/// Lists the platforms of an index for an error message.
fn platforms(index: &Index) -> String {
    let known: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|manifest| manifest.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(ToString::to_string)
        .collect();
    if known.is_empty() { "no platform at all".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests {
    use crate::error::Error;
    use crate::testing::{blob, image, image_for, store};
    use oci::{Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType, Platform};

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn index(lease: &crate::Lease, manifests: Vec<Descriptor>) -> Descriptor {
        let bytes = Index::new(manifests).to_bytes();
        let digest = blob(lease, &bytes).unwrap();
        Descriptor::new(MediaType::OCI_INDEX, digest, bytes.len() as u64)
    }

    #[test]
    fn index_leads_to_the_image_for_a_platform() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut manifests = Vec::new();
        for name in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
            let mut descriptor = image_for(&lease, platform(name), &[name.as_bytes()]).unwrap();
            descriptor.platform = Some(platform(name));
            manifests.push(descriptor);
        }
        // Indexes of indexes occur, as `docker buildx` makes them of pushed parts.
        let inner = index(&lease, manifests);
        for name in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
            let image = store.image(&inner, &platform(name)).unwrap();
            assert_eq!(image.diff_ids(), [DiffId(Digest::sha256(name.as_bytes()))]);
            assert_eq!(image.config.platform, platform(name));
            assert_eq!(image.config_digest, image.manifest.config.digest);
        }
        let error = store.image(&inner, &platform("linux/s390x")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"there is no image for linux/s390x, only for linux/amd64, linux/arm64, linux/arm/v7");
    }

    #[test]
    fn single_image_for_another_platform_is_refused() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let image = image_for(&lease, platform("linux/s390x"), &[b"1"]).unwrap();
        let error = store.image(&image, &platform("linux/arm64")).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"there is no image for linux/arm64, only for linux/s390x");
        assert!(store.image(&image, &platform("linux/s390x")).is_ok());
    }

    #[test]
    fn indexes_that_go_on_and_on_come_to_an_end() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut descriptor = image(&lease, &[b"1"]).unwrap();
        for depth in 1..=6 {
            descriptor.platform = Some(Platform::host());
            descriptor = index(&lease, vec![descriptor]);
            let result = store.image(&descriptor, &Platform::host());
            assert_eq!(result.is_ok(), depth <= 4, "{depth}");
        }
    }

    #[test]
    fn manifests_of_other_things_are_no_images() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let put = |manifest: &Manifest| {
            let bytes = manifest.to_bytes();
            let digest = blob(&lease, &bytes).unwrap();
            Descriptor::new(MediaType::OCI_MANIFEST, digest, bytes.len() as u64)
        };
        let empty = blob(&lease, b"{}").unwrap();
        let artifact = put(&Manifest::new(Descriptor::new(MediaType::OCI_EMPTY, empty, 2), vec![]));
        let error = store.image(&artifact, &Platform::host()).unwrap_err().to_string();
        assert!(
            error.contains("its config is of type application/vnd.oci.empty.v1+json"),
            "{error}"
        );

        let config = ImageConfig::new(Platform::host());
        let config = blob(&lease, &config.to_bytes()).unwrap();
        let config = Descriptor::new(MediaType::OCI_CONFIG, config, 1);
        let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, empty, 2);
        let uneven = put(&Manifest::new(config, vec![layer]));
        let error = store.image(&uneven, &Platform::host()).unwrap_err().to_string();
        assert!(error.contains("its manifest has 1 layers, its config 0"), "{error}");

        let text = blob(&lease, b"no json").unwrap();
        let wrong = Descriptor::new(MediaType::OCI_MANIFEST, text, 7);
        let error = store.image(&wrong, &Platform::host()).unwrap_err();
        assert!(matches!(error, Error::Document { digest, .. } if digest == text), "{error}");
    }

    #[test]
    fn storing_an_image_again_writes_nothing() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let config = ImageConfig::new(Platform::host());
        let template = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), 0);
        let manifest = Manifest::new(template, vec![]);
        let first = lease.put_image(&manifest, &config).unwrap();
        let (second, _) = crate::fault::after(0, || lease.put_image(&manifest, &config));
        assert_eq!(second.unwrap(), first);
        let image = store.image(&first, &Platform::host()).unwrap();
        assert_eq!(image.config, config);
    }
}
