//! An image in the form that an output wants: compression, media types, annotations.

use oci::{Compression, Descriptor, Index, Manifest, MediaType};
use store::Lease;

use super::annotation::Place;
use super::finished::{Finished, index};
use super::spec::Form;
use crate::error::Result;
use crate::solve::Built;

impl Finished {
    /// Returns the image in a form, with layers made here compressed by `codec` where one is given.
    ///
    /// The images of the platforms are in the result as well, in the same order.
    ///
    /// # Errors
    /// Fails when a layer is not in the store, or the store cannot be written.
    pub fn in_form(&self, lease: &Lease, form: &Form, codec: Option<Compression>) -> Result<Self> {
        let mut builds = Vec::new();
        for built in &self.builds {
            builds.push(Built { manifest: image(lease, built, form, codec)?, ..built.clone() });
        }
        let annotations = &form.annotations;
        let image = match &builds[..] {
            [only] => Descriptor {
                annotations: annotations.of(Place::ManifestDescriptor, Some(&only.platform)),
                ..only.manifest.clone()
            },
            several => {
                let entries = several.iter().map(|built| Descriptor {
                    platform: Some(built.platform.clone()),
                    annotations: annotations.of(Place::ManifestDescriptor, Some(&built.platform)),
                    ..built.manifest.clone()
                });
                let mut list = Index::new(entries.collect());
                list.annotations = annotations.of(Place::Index, None);
                if form.docker_types {
                    list.media_type = Some(MediaType::DOCKER_MANIFEST_LIST);
                }
                let descriptor = index(lease, &list)?;
                Descriptor {
                    annotations: annotations.of(Place::IndexDescriptor, None),
                    ..descriptor
                }
            }
        };
        Ok(Self { image, builds })
    }
}

fn image(
    lease: &Lease,
    built: &Built,
    form: &Form,
    codec: Option<Compression>,
) -> Result<Descriptor> {
    let stored = lease.store().image(&built.manifest, &built.platform)?;
    let mut manifest = stored.manifest.clone();
    for (layer, diff_id) in manifest.layers.iter_mut().zip(stored.diff_ids()) {
        let current = layer.media_type.layer_compression().unwrap_or(Compression::None);
        if let Some(codec) = codec
            && current != codec
            && (form.force || current == Compression::None)
        {
            let made = lease.compressed(diff_id, layer, codec, form.level)?;
            (layer.media_type, layer.digest, layer.size) =
                (made.media_type, made.digest, made.size);
        }
    }
    if form.docker_types {
        with_docker_types(&mut manifest);
    }
    manifest.annotations.extend(form.annotations.of(Place::Manifest, Some(&built.platform)));
    let media_type = manifest.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST);
    let put = lease.put(&manifest.to_bytes())?;
    Ok(Descriptor::new(media_type, put.digest, put.size))
}

/// Gives everything the names that docker had before OCI.
fn with_docker_types(manifest: &mut Manifest) {
    manifest.media_type = Some(MediaType::DOCKER_MANIFEST);
    manifest.config.media_type = MediaType::DOCKER_CONFIG;
    for layer in &mut manifest.layers {
        layer.media_type = match layer.media_type.layer_compression() {
            Some(Compression::None) => MediaType::DOCKER_LAYER_TAR,
            Some(Compression::Gzip) => MediaType::DOCKER_LAYER_GZIP,
            Some(Compression::Zstd) => MediaType::DOCKER_LAYER_ZSTD,
            None => continue,
        };
    }
}
