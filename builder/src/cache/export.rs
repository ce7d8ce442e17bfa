//! What a build leaves for others: records of its steps, and the layers that they came to.

use std::collections::{BTreeMap, BTreeSet};

use oci::{Compression, Descriptor, DiffId, Digest, Manifest, MediaType};
use store::Lease;

use super::layout;
use super::records::{MEDIA_TYPE, Records};
use super::spec::{Export, Mode, Target};
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::solve::{Cancel, Place, Pull, Sources};

/// The steps of one build, and what they came to.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The steps by their keys.
    pub(crate) steps: BTreeMap<Digest, Made>,
    /// Digests of files that were taken out of stages and images.
    pub(crate) contents: BTreeMap<Digest, Digest>,
    /// The layers of the image, bottom first.
    pub(crate) image: Vec<DiffId>,
}

/// What a step came to.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) diff_id: DiffId,
    /// The blob that holds it, unless only its name is known.
    pub(crate) blob: Option<Descriptor>,
    pub(crate) created: Option<String>,
}

/// What an export needs of the build.
pub(crate) struct Surroundings<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) sources: &'a Sources,
    pub(crate) pull: Pull<'a>,
    pub(crate) events: Sink<'a>,
    pub(crate) cancel: &'a Cancel,
    /// Sends a cache to a registry: its manifest, and the name it gets.
    pub(crate) push: Push<'a>,
}

/// Sends what a manifest of the store lists, and the manifest.
pub(crate) type Push<'a> = &'a dyn Fn(
    &Descriptor,
    &oci::Reference,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Trail {
    /// Returns the records that become part of the image's config.
    pub(crate) fn inline(&self) -> oci::Json {
        let mut records = Records::new();
        for (key, made) in &self.steps {
            let layer = self.image.iter().position(|diff_id| *diff_id == made.diff_id);
            records.add_step(*key, made.diff_id, layer, made.created.clone());
        }
        self.contents.iter().for_each(|(key, digest)| records.add_content(*key, *digest));
        oci::Json::parse(&records.to_json()).expect("records are JSON")
    }
}

/// Writes the caches that were asked for, after the build.
///
/// # Errors
/// Returns [`Error::CacheExport`] for the first that cannot be written and may not be left out.
pub(crate) fn export(exports: &[Export], trails: &[&Trail], of: &Surroundings<'_>) -> Result<()> {
    for export in exports {
        if export.to == Target::Inline {
            continue;
        }
        let Err(error) = one(export, trails, of) else { continue };
        of.cancel.check()?;
        let error = Error::CacheExport { to: export.to.to_string(), source: error };
        if !export.ignore_error {
            return Err(error);
        }
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        (of.events)(Event::Warning { step: None, message });
    }
    Ok(())
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn one(export: &Export, trails: &[&Trail], of: &Surroundings<'_>) -> Result<(), Cause> {
    let mut records = Records::new();
    let mut layers: Vec<Descriptor> = Vec::new();
    let mut steps: BTreeMap<&Digest, &Made> = BTreeMap::new();
    let mut contents: BTreeMap<&Digest, &Digest> = BTreeMap::new();
    let mut wanted: BTreeSet<DiffId> = BTreeSet::new();
    for trail in trails {
        steps.extend(&trail.steps);
        contents.extend(&trail.contents);
        wanted.extend(&trail.image);
    }
    for (key, made) in steps {
        of.cancel.check()?;
        let is_wanted = export.mode == Mode::Max || wanted.contains(&made.diff_id);
        let blob = match &made.blob {
            Some(blob) if is_wanted => Some(packed(export, made.diff_id, blob, of)?),
            _ => None,
        };
        let layer = blob.map(|blob| {
            layers.iter().position(|known| known.digest == blob.digest).unwrap_or_else(|| {
                layers.push(blob);
                layers.len() - 1
            })
        });
        records.add_step(*key, made.diff_id, layer, made.created.clone());
    }
    contents.into_iter().for_each(|(key, digest)| records.add_content(*key, *digest));

    let config = of.lease.put(records.to_json().as_bytes())?;
    let media_type: MediaType = MEDIA_TYPE.parse()?;
    let mut manifest =
        Manifest::new(Descriptor::new(media_type, config.digest, config.size), layers);
    manifest.media_type = Some(match export.oci_media_types {
        true => MediaType::OCI_MANIFEST,
        false => MediaType::DOCKER_MANIFEST,
    });
    let stored = of.lease.put(&manifest.to_bytes())?;
    let media_type = manifest.media_type.clone().unwrap_or(MediaType::OCI_MANIFEST);
    let descriptor = Descriptor::new(media_type, stored.digest, stored.size);
    match &export.to {
        Target::Registry(reference) => (of.push)(&descriptor, reference),
        Target::Local { dest, tag } => {
            layout::write(of.lease, dest, tag, &descriptor, &manifest, &|| of.cancel.check())
        }
        Target::Inline => Ok(()),
    }
}

/// Returns the blob of a layer as it is to be in the cache.
fn packed(
    export: &Export,
    diff_id: DiffId,
    blob: &Descriptor,
    of: &Surroundings<'_>,
) -> Result<Descriptor, Cause> {
    let codec = blob.media_type.layer_compression();
    let is_packed = codec.is_some_and(|codec| codec != Compression::None);
    let is_as_wanted =
        codec == Some(export.compression) || (is_packed && !export.force_compression);
    of.lease.pin_all(&[blob.digest, diff_id.0])?;
    if !of.lease.store().blobs().contains(&blob.digest)? {
        match (of.sources.place(&blob.digest), &export.to) {
            // It goes from registry to registry, if it is not where it should be already.
            (Some(Place::Registry(from)), Target::Registry(_)) if is_as_wanted => {
                of.lease.note_origin(&[blob.digest], &from)?;
            }
            _ => {
                let layers = [(blob.clone(), diff_id)];
                of.sources.fetch(of.lease, &layers, of.pull, of.cancel)?;
            }
        }
    }
    let mut packed = match is_as_wanted {
        true => blob.clone(),
        false => of.lease.compressed(&diff_id, blob, export.compression, export.level)?,
    };
    let compression = packed.media_type.layer_compression().unwrap_or(Compression::None);
    packed.media_type = match (export.oci_media_types, compression) {
        (true, Compression::None) => MediaType::OCI_LAYER_TAR,
        (true, Compression::Gzip) => MediaType::OCI_LAYER_GZIP,
        (true, Compression::Zstd) => MediaType::OCI_LAYER_ZSTD,
        (false, Compression::None) => MediaType::DOCKER_LAYER_TAR,
        (false, Compression::Gzip) => MediaType::DOCKER_LAYER_GZIP,
        (false, Compression::Zstd) => MediaType::DOCKER_LAYER_ZSTD,
    };
    Ok(packed)
}
