//! `commit`: a container becomes an image.
//!
//! ```text
//! container's image ─ layers, settings ─┐
//! upper/ ─ pack ─► a layer on top ──────┼─► config, manifest ─► image
//! config.json ─► settings, changes ─────┘
//! ```
//!
//! The writable layer is read as it lies on the disk, by descriptors, and stays
//! as it is. Mounts are not part of it.

mod change;
mod words;

use std::collections::BTreeSet;

use oci::{Descriptor, Digest, Document, History, ImageConfig, Manifest, MediaType, Reference};
use oci::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, RuntimeConfig};
use store::layers::{LayerOptions, snapshot_pins};
use store::{Lease, Pins};

use super::Engine;
use super::config::Config;
use super::containers::Container;
use super::error::{Error, Result};
use super::options::{MountRequest, Signal};
use super::pause::{is_paused, thaw};
use super::state::{Running, Status};
pub use change::{Change, apply};

/// What an image is to be besides what the container is.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    /// Its name; without one it is found by its id.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark in its history.
    pub message: Option<String>,
    /// Changes of its settings, in order.
    pub changes: Vec<Change>,
    /// Whether a running container is held still meanwhile.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container's image and what the container has changed,
    /// and returns its id.
    ///
    /// # Errors
    ///
    /// [`Error::CannotHold`] if the container is to be held still and cannot be,
    /// and when its layers cannot be read or the image not be stored.
    pub fn commit(&self, container: &Container, request: &CommitRequest) -> Result<Digest> {
        let status = container.status()?;
        let (_held, _ownership) = match &status {
            Status::Running(running) if request.pause => {
                (self.hold_still(container, running)?, None)
            }
            // One that waits to be started again must not be kept from it.
            Status::Running(_) | Status::Restarting(..) => (None, None),
            // It must not be started or removed meanwhile.
            Status::Created | Status::Exited(..) | Status::Lost(_) => {
                let busy = || Error::StillRunning { container: container.config.name.to_string() };
                (None, Some(container.own()?.ok_or_else(busy)?))
            }
        };
        let lease = self.store().lease()?;
        let (manifest, mut image) = self.base(container, &lease)?;
        let snapshot = lease.snapshot(&container.config.image.layers)?;
        let upper = container.dir().join("upper");
        let layer = lease.layer_of(&upper, &snapshot, &LayerOptions::default())?;

        let mut layers: Vec<_> = manifest.layers.iter().map(in_oci_terms).collect();
        if !layer.is_empty {
            layers.push(layer.descriptor);
            image.rootfs_diff_ids.push(layer.diff_id);
        }
        let now = (self.clock)().to_string();
        image.config = settings(&container.config, image.config);
        apply(&request.changes, &mut image.config).map_err(|what| Error::Invalid { what })?;
        image.created = Some(now.clone());
        image.author.clone_from(&request.author);
        image.history.push(History {
            created: Some(now),
            created_by: Some(container.config.process.args.join(" ")),
            author: request.author.clone(),
            comment: request.message.clone(),
            empty_layer: layer.is_empty,
            ..History::default()
        });
        let placeholder = Descriptor::new(MediaType::OCI_CONFIG, manifest.config.digest, 0);
        let mut made = Manifest::new(placeholder, layers);
        made.media_type = Some(MediaType::OCI_MANIFEST);
        let descriptor = lease.put_image(&made, &image)?;
        match &request.reference {
            Some(reference) => self.store().images().set(&lease, reference, &descriptor)?,
            None => self.store().images().set_untagged(&lease, &descriptor)?,
        }
        Ok(Digest::sha256(&image.to_bytes()))
    }

    /// Holds a container still that goes on; one that is paused stays so.
    fn hold_still<'c>(
        &self,
        container: &'c Container,
        running: &'c Running,
    ) -> Result<Option<Still<'c>>> {
        if is_paused(container, running) {
            return Ok(None);
        }
        let still = Still { container, running };
        self.pause(container).map(|()| Some(still)).map_err(|error| Error::CannotHold {
            container: container.config.name.to_string(),
            source: Box::new(error),
        })
    }

    /// Returns what the container was made from, kept by the lease.
    fn base(&self, container: &Container, lease: &Lease) -> Result<(Manifest, ImageConfig)> {
        let id = container.config.image.id;
        lease.pin_all(&snapshot_pins(&container.config.image.layers))?;
        let gone = || Error::Invalid {
            what: format!("the image {} of container {} is gone", id, container.config.name),
        };
        for digest in Pins::read(container.dir())? {
            lease.pin(&digest)?;
            // Most of what is pinned are layers, which need not be blobs.
            let Some(size) = self.store().blobs().size(&digest)? else { continue };
            if size > MAX_MANIFEST_BYTES as u64 {
                continue;
            }
            let bytes = self.store().blobs().read(&digest, size)?;
            if let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, None)
                && manifest.config.digest == id
            {
                let bytes = self.store().blobs().read(&id, MAX_CONFIG_BYTES as u64)?;
                return Ok((manifest, ImageConfig::parse(&bytes).map_err(|_| gone())?));
            }
        }
        Err(gone())
    }
}

/// A container that is held still until this is dropped.
struct Still<'c> {
    container: &'c Container,
    running: &'c Running,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if let Err(error) = thaw(self.container, self.running) {
            tracing::warn!(container = %self.container.config.name, %error, "it stays paused");
        }
    }
}

/// Returns the settings of an image made of a container: those of its own image,
/// and what its user has asked for.
fn settings(container: &Config, image: RuntimeConfig) -> RuntimeConfig {
    let process = &container.process;
    let non_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (entrypoint, cmd) = command(&process.args, image.entrypoint.as_deref());
    // What every container gets, and none needs from its image.
    let implied = |entry: &String| {
        *entry == format!("HOSTNAME={}", container.hostname)
            || process.terminal && entry == "TERM=xterm"
            || entry == super::request::DEFAULT_PATH
    };
    let stays = |entry: &&String| image.env.contains(entry) || !implied(entry);
    let env = process.env.iter().filter(stays).cloned().collect();
    let mut exposed_ports = image.exposed_ports;
    exposed_ports.extend(container.place.exposed.iter().map(ToString::to_string));
    let anonymous: BTreeSet<String> = container
        .mounts
        .iter()
        .filter(|mount| matches!(mount, MountRequest::Volume(_)))
        .map(|mount| mount.target().to_string_lossy().into_owned())
        .collect();
    let stop_signal = match image.stop_signal.as_deref().map(str::parse::<Signal>) {
        Some(Ok(signal)) if signal == container.stop_signal => image.stop_signal,
        None if container.stop_signal == Signal::TERM => None,
        _ => Some(container.stop_signal.to_string()),
    };
    RuntimeConfig {
        user: non_empty(&process.user),
        exposed_ports,
        env,
        entrypoint,
        cmd,
        volumes: image.volumes.into_iter().chain(anonymous).collect(),
        working_dir: match process.cwd.as_str() {
            "/" => image.working_dir,
            cwd => Some(cwd.to_owned()),
        },
        labels: container.labels.clone(),
        stop_signal,
        // They were for the first build on top, which this is in a way.
        on_build: Vec::new(),
        ..image
    }
}

/// Tells a container's command into entrypoint and arguments again.
fn command(
    args: &[String],
    entrypoint: Option<&[String]>,
) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    match entrypoint.filter(|entrypoint| !entrypoint.is_empty()) {
        None => (None, some(args)),
        Some(entrypoint) => match (args.strip_prefix(entrypoint), args.split_first()) {
            (Some(rest), _) => (Some(entrypoint.to_vec()), some(rest)),
            // It was made with another entrypoint, which is one word.
            (None, Some((program, rest))) => (Some(vec![program.clone()]), some(rest)),
            (None, None) => (None, None),
        },
    }
}

/// Returns a layer with the media type that an OCI manifest lists it by. The blob
/// is the same.
fn in_oci_terms(layer: &Descriptor) -> Descriptor {
    let docker = [
        (MediaType::DOCKER_LAYER_TAR, MediaType::OCI_LAYER_TAR),
        (MediaType::DOCKER_LAYER_GZIP, MediaType::OCI_LAYER_GZIP),
        (MediaType::DOCKER_LAYER_ZSTD, MediaType::OCI_LAYER_ZSTD),
    ];
    let found = docker.into_iter().find(|(docker, _)| *docker == layer.media_type);
    let media_type = found.map_or_else(|| layer.media_type.clone(), |(_, oci)| oci);
    Descriptor { media_type, ..layer.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_into_entrypoint_and_arguments() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        let some = |text: &str| Some(words(text)).filter(|words| !words.is_empty());
        for (args, image, entrypoint, cmd) in [
            ("sh -c x", "", "", "sh -c x"),
            ("serve -v", "serve", "serve", "-v"),
            ("serve", "serve", "serve", ""),
            ("tini -- serve", "tini --", "tini --", "serve"),
            ("sh -c x", "serve", "sh", "-c x"),
        ] {
            let told = command(&words(args), some(image).as_deref());
            assert_eq!(told, (some(entrypoint), some(cmd)), "{args}");
        }
    }
}
