//! Archive → store.

use std::io::Read;

use oci::{
    Compression, Descriptor, Digest, Document, ImageConfig, Index, MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES, Manifest, MediaType, Reference,
};

use super::contents::{Contents, refuse};
use super::docker::DockerImage;
use super::{INDEX_FILE, MANIFEST_FILE, NAME_ANNOTATION, REF_NAME_ANNOTATION};
use crate::error::{Error, IoContext as _, Result};
use crate::ingest::Committed;
use crate::layers::detect;
use crate::lease::Lease;

/// How many images one archive may hold: each costs a file and some checks.
const MAX_IMAGES: usize = 10_000;

/// An image that came out of an archive.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its names, which now lead to it; none for an image that was saved by its ID.
    pub references: Vec<Reference>,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// The image ID, if there is an image for this host.
    pub image_id: Option<Digest>,
}

/// An image as an archive or layout lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// Its whole names, as far as it has any.
    pub references: Vec<Reference>,
    /// The annotation `org.opencontainers.image.ref.name`: a tag, a name, or anything else.
    pub ref_name: Option<String>,
}

impl Listed {
    pub(super) fn of(listed: &Descriptor) -> Result<Self> {
        let references = name_of(listed).map(|name| parse(&name)).transpose()?;
        Ok(Self {
            descriptor: Descriptor::new(listed.media_type.clone(), listed.digest, listed.size),
            references: references.into_iter().collect(),
            ref_name: listed.annotations.get(REF_NAME_ANNOTATION).cloned(),
        })
    }
}

/// Reads an `index.json`.
pub(super) fn parse_index(bytes: &[u8]) -> Result<Index> {
    let index = Index::parse(bytes).map_err(|error| Error::Archive {
        reason: format!("its {INDEX_FILE} is not an index: {error}"),
    })?;
    limit(index.manifests.len())?;
    Ok(index)
}

impl Lease {
    /// Loads every image of an archive, and gives them the names they were saved with.
    ///
    /// The archive is an OCI layout or one of docker's (`docker save` of any version since 1.10),
    /// as tar, also compressed with gzip or zstd. It is read once. Names are set when all of it
    /// has been read and checked.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`] or [`Error::ArchiveTar`] if it is not an image archive or is not whole,
    /// [`Error::DigestMismatch`] if a blob is not what its name says.
    pub fn load(&self, input: impl Read + Send) -> Result<Vec<Loaded>> {
        let mut loaded: Vec<Loaded> = Vec::new();
        for Listed { descriptor, references, .. } in self.load_unnamed(input)? {
            for reference in &references {
                self.store().images().set(self, reference, &descriptor)?;
            }
            if references.is_empty() {
                self.store().images().set_untagged(self, &descriptor)?;
            }
            match loaded.iter_mut().find(|known| known.descriptor.digest == descriptor.digest) {
                Some(known) => known.references.extend(references),
                None => {
                    let image_id = self.store().image_id(&descriptor)?;
                    loaded.push(Loaded { references, descriptor, image_id });
                }
            }
        }
        Ok(loaded)
    }

    /// Loads every image of an archive, as [`load`](Self::load), and gives them no names: they stay
    /// as long as the lease.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_unnamed(&self, input: impl Read + Send) -> Result<Vec<Listed>> {
        let contents = Contents::read(self, input)?;
        let docker = self.docker_images(&contents)?;
        match contents.get(INDEX_FILE) {
            Some(index) => self.load_layout(&index, &docker.unwrap_or_default()),
            None => match docker {
                Some(docker) => self.load_docker(&contents, docker),
                None => refuse(format!("it has neither {INDEX_FILE} nor {MANIFEST_FILE}")),
            },
        }
    }

    /// Reads the list of an OCI layout.
    fn load_layout(&self, index: &Committed, docker: &[DockerImage]) -> Result<Vec<Listed>> {
        let bytes = self.store().blobs().read(&index.digest, MAX_MANIFEST_BYTES as u64)?;
        let mut images = Vec::new();
        for listed in parse_index(&bytes)?.manifests {
            let config = self.check(&listed)?;
            let mut image = Listed::of(&listed)?;
            let references = &mut image.references;
            if let Some(config) = config.filter(|_| references.is_empty()) {
                // The annotation has a tag at most; docker's list may have the whole name.
                let path = format!("blobs/{}/{}", config.algorithm(), config.hex());
                for image in docker.iter().filter(|image| image.config == path) {
                    for tag in &image.repo_tags {
                        references.push(parse(tag)?);
                    }
                }
            }
            images.push(image);
        }
        Ok(images)
    }

    /// Makes sure that an image is there as a whole, of an index at least one; returns its config.
    pub(super) fn check(&self, descriptor: &Descriptor) -> Result<Option<Digest>> {
        let mut queue = vec![descriptor.clone()];
        let mut first_config = None;
        let mut missing = None;
        let mut checked = 0;
        while let Some(next) = queue.pop() {
            checked += 1;
            limit(checked)?;
            match self.store().document(&next) {
                Ok(Document::Index(index)) => queue.extend(index.manifests.into_iter().rev()),
                Ok(Document::Manifest(manifest)) => match self.first_missing(&manifest)? {
                    Some(digest) => missing = Some(digest),
                    None => first_config = first_config.or(Some(manifest.config.digest)),
                },
                Err(Error::BlobUnknown { digest }) => missing = Some(digest),
                Err(error) => return Err(error),
            }
        }
        match (first_config, missing) {
            (None, Some(digest)) => refuse(format!("blob {digest} is missing from it")),
            (config, _) => Ok(config),
        }
    }

    fn first_missing(&self, manifest: &Manifest) -> Result<Option<Digest>> {
        for blob in manifest.blobs() {
            if self.store().blobs().size(&blob.digest)? != Some(blob.size) {
                return Ok(Some(blob.digest));
            }
        }
        Ok(None)
    }

    /// Reads docker's list, if there is one.
    fn docker_images(&self, contents: &Contents) -> Result<Option<Vec<DockerImage>>> {
        let Some(list) = contents.get(MANIFEST_FILE) else { return Ok(None) };
        let bytes = self.store().blobs().read(&list.digest, MAX_MANIFEST_BYTES as u64)?;
        let images: Vec<DockerImage> = serde_json::from_slice(&bytes).map_err(|error| {
            Error::Archive { reason: format!("its {MANIFEST_FILE} is not docker's: {error}") }
        })?;
        limit(images.len())?;
        Ok(Some(images))
    }

    /// Makes manifests for the images of docker's list, which has none.
    fn load_docker(&self, contents: &Contents, images: Vec<DockerImage>) -> Result<Vec<Listed>> {
        images
            .into_iter()
            .map(|image| {
                let references =
                    image.repo_tags.iter().map(|tag| parse(tag)).collect::<Result<_>>()?;
                let descriptor = self.docker_manifest(contents, &image)?;
                Ok(Listed { descriptor, references, ref_name: None })
            })
            .collect()
    }

    fn docker_manifest(&self, contents: &Contents, image: &DockerImage) -> Result<Descriptor> {
        let find = |path: &str| {
            let missing = || Error::Archive { reason: format!("{path:?} is missing from it") };
            contents.get(path).ok_or_else(missing)
        };
        let config_blob = find(&image.config)?;
        let bytes = self.store().blobs().read(&config_blob.digest, MAX_CONFIG_BYTES as u64)?;
        let config = ImageConfig::parse(&bytes).map_err(|source| Error::Document {
            digest: config_blob.digest,
            kind: "image config",
            source,
        })?;
        let (has, promised) = (image.layers.len(), config.rootfs_diff_ids.len());
        if has != promised {
            return refuse(format!("{} has {has} layers of {promised}", image.config));
        }
        let mut layers = Vec::new();
        for (path, diff_id) in image.layers.iter().zip(&config.rootfs_diff_ids) {
            let blob = find(path)?;
            let media_type = self.layer_type(&blob)?;
            // A compressed layer proves what it is when it is unpacked.
            if media_type == MediaType::OCI_LAYER_TAR && blob.digest != diff_id.0 {
                return Err(Error::DigestMismatch { expected: diff_id.0, actual: blob.digest });
            }
            layers.push(Descriptor::new(media_type, blob.digest, blob.size));
        }
        let config = Descriptor::new(MediaType::OCI_CONFIG, config_blob.digest, config_blob.size);
        let manifest = self.put(&Manifest::new(config, layers).to_bytes())?;
        Ok(Descriptor::new(MediaType::OCI_MANIFEST, manifest.digest, manifest.size))
    }

    /// Tells a layer's compression from its first bytes.
    fn layer_type(&self, blob: &Committed) -> Result<MediaType> {
        let mut start = Vec::new();
        let path = self.store().root().blob(&blob.digest);
        let file = self.store().blobs().open(&blob.digest)?;
        file.take(4).read_to_end(&mut start).doing("read", &path)?;
        Ok(match detect(&start) {
            Compression::None => MediaType::OCI_LAYER_TAR,
            Compression::Gzip => MediaType::OCI_LAYER_GZIP,
            Compression::Zstd => MediaType::OCI_LAYER_ZSTD,
        })
    }
}

/// Returns the whole name of an image, if its annotations have one.
///
/// `ref.name` is a tag with docker and umoci, and a name with podman and skopeo: what has neither
/// a slash nor a colon could be either, and is not taken.
fn name_of(descriptor: &Descriptor) -> Option<String> {
    let whole = descriptor.annotations.get(NAME_ANNOTATION);
    let short = descriptor.annotations.get(REF_NAME_ANNOTATION);
    whole.or(short.filter(|name| name.contains(['/', ':']))).cloned()
}

fn parse(name: &str) -> Result<Reference> {
    name.parse().map_err(|source| Error::InvalidName { text: name.to_owned(), source })
}

fn limit(images: usize) -> Result<()> {
    if images > MAX_IMAGES {
        return refuse(format!("it has more than {MAX_IMAGES} images"));
    }
    Ok(())
}
