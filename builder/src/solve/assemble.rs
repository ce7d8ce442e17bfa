//! Layers, history and config become an image.

use oci::{Descriptor, DiffId, Digest, History, ImageConfig, Manifest, MediaType};
use store::{Lease, StepRecord};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cache::{INLINE_FIELD, Trail};
use crate::error::Result;
use crate::key::Key;
use crate::plan::Stage;

/// What history entries say about who made them.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// One layer of the image to be.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) diff_id: DiffId,
    /// The blob: as it came for a base image, a plain tar for our own.
    pub(super) blob: Descriptor,
    /// When it was made, for our own.
    pub(super) created: Option<String>,
}

impl Layer {
    /// A layer of an imported cache, which may know only what it is.
    pub(super) fn imported(
        diff_id: DiffId,
        blob: Option<&Descriptor>,
        created: Option<String>,
    ) -> Self {
        // No tar is empty: this is a blob that nobody has.
        let nowhere = || Descriptor::new(MediaType::OCI_LAYER_TAR, diff_id.0, 0);
        let blob = blob.map_or_else(nowhere, in_oci_terms);
        Self { diff_id, blob, created }
    }

    /// Returns whether its blob can be had, here or from where it was imported.
    pub(super) fn is_anywhere(&self) -> bool {
        self.blob.size > 0
    }
}

/// What a stage has come to: its layers and its history.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) layers: Vec<Layer>,
    pub(super) history: Vec<History>,
}

impl State {
    /// Returns the layers as diff ids, bottom first.
    pub(super) fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// Starts from a base image.
    pub(super) fn of_image(image: &store::Image) -> Self {
        let blobs = image.manifest.layers.iter().map(in_oci_terms);
        let layers = image
            .diff_ids()
            .iter()
            .zip(blobs)
            .map(|(diff_id, blob)| Layer { diff_id: *diff_id, blob, created: None })
            .collect();
        Self { layers, history: image.config.history.clone() }
    }

    /// Appends the history of a stage's instructions, given the layers its steps made.
    ///
    /// Metadata entries get the time of the layer before them, so that a rebuild of
    /// the same layers is the same image.
    pub(super) fn add_history(&mut self, stage: &Stage, made: &[Layer], start: Option<&str>) {
        let mut time = self
            .history
            .iter()
            .rev()
            .find_map(|entry| entry.created.clone())
            .or_else(|| start.map(str::to_owned));
        // Entries before the first layer take that layer's time.
        if let Some(first) = made.first() {
            time.clone_from(&first.created);
        }
        for line in &stage.history {
            let layer = line.step.and_then(|step| made.get(step));
            if let Some(layer) = layer {
                time.clone_from(&layer.created);
            }
            self.history.push(History {
                created: time.clone(),
                created_by: Some(line.created_by.clone()),
                comment: Some(COMMENT.to_owned()),
                empty_layer: line.step.is_none(),
                ..History::default()
            });
        }
    }
}

/// Returns a layer with the media type that an OCI manifest lists it by. The blob is the same.
fn in_oci_terms(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        "application/vnd.docker.image.rootfs.diff.tar" => MediaType::OCI_LAYER_TAR,
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::OCI_LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => MediaType::OCI_LAYER_ZSTD,
        _ => return layer.clone(),
    };
    Descriptor { media_type, ..layer.clone() }
}

/// Writes the image of a finished stage; returns its manifest and its config's digest.
pub(super) fn assemble(
    lease: &Lease,
    config: &ImageConfig,
    state: &State,
    now: &str,
    inline: Option<&Trail>,
) -> Result<(Descriptor, Digest)> {
    let mut config = config.clone();
    config.rootfs_diff_ids = state.diff_ids();
    config.history.clone_from(&state.history);
    config.created = state.history.iter().rev().find_map(|entry| entry.created.clone());
    if config.created.is_none() {
        config.created = Some(first_seen(lease, &config, now)?);
    }
    if let Some(trail) = inline {
        config.extra.insert(INLINE_FIELD, trail.inline());
    }
    let bytes = config.to_bytes();
    let config_digest = Digest::sha256(&bytes);
    let config_blob = Descriptor::new(MediaType::OCI_CONFIG, config_digest, bytes.len() as u64);
    let layers = state.layers.iter().map(|layer| layer.blob.clone()).collect();
    let mut manifest = Manifest::new(config_blob, layers);
    manifest.media_type = Some(MediaType::OCI_MANIFEST);
    Ok((lease.put_image(&manifest, &config)?, config_digest))
}

/// Returns when a config without any layer was built first: it has no time of its own, and
/// building it again must give the same image.
fn first_seen(lease: &Lease, config: &ImageConfig, now: &str) -> Result<String> {
    let mut key = Key::new("created");
    key.field("config", &Digest::sha256(&config.to_bytes()).to_string());
    let key = key.finish();
    let steps = lease.store().steps();
    let recorded = steps.get(lease, &key)?;
    if let Some(time) = recorded.as_ref().and_then(|record| record.extra.as_str()) {
        return Ok(time.to_owned());
    }
    steps.put(lease, &key, &StepRecord::note(now.into()))?;
    Ok(now.to_owned())
}

/// Returns a time as configs have it, in UTC; `clamp` wins.
pub(super) fn timestamp(now: std::time::SystemTime, clamp: Option<i64>) -> String {
    let time = match clamp {
        Some(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        None => Some(OffsetDateTime::from(now)),
    };
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}
