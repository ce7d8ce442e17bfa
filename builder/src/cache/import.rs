//! Caches of other builds: read when the first step is not recorded here, and only their records.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use oci::{Descriptor, Digest, Document, ImageConfig, MAX_CONFIG_BYTES, Manifest, Platform};
use store::Lease;

use super::layout;
use super::records::{INLINE_FIELD, Known, MEDIA_TYPE, Outcome, Records};
use super::spec::Import;
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::solve::{Cancel, Place, Pull, Sources};

/// What is still believed of the caches of one build.
const ALL: u8 = 0;
/// Only records whose layer the cache has: a layer without one turned out to be needed.
const WITH_LAYERS: u8 = 1;
/// Nothing: a layer could not be had, or was not what it should be.
const NOTHING: u8 = 2;

/// The caches that a build looks results up in.
pub(crate) struct Imports<'a> {
    caches: Vec<(&'a Import, OnceLock<Known>)>,
    trust: AtomicU8,
    lease: &'a Lease,
    platform: &'a Platform,
    sources: Arc<Sources>,
    pull: Pull<'a>,
    events: Sink<'a>,
    cancel: &'a Cancel,
}

/// What an import needs of the build.
pub(crate) struct Surroundings<'a> {
    pub(crate) lease: &'a Lease,
    pub(crate) platform: &'a Platform,
    pub(crate) sources: Arc<Sources>,
    pub(crate) pull: Pull<'a>,
    pub(crate) events: Sink<'a>,
    pub(crate) cancel: &'a Cancel,
}

impl<'a> Imports<'a> {
    pub(crate) fn new(imports: &'a [Import], of: Surroundings<'a>) -> Self {
        let Surroundings { lease, platform, sources, pull, events, cancel } = of;
        let caches = imports.iter().map(|import| (import, OnceLock::new())).collect();
        let trust = AtomicU8::new(ALL);
        Self { caches, trust, lease, platform, sources, pull, events, cancel }
    }

    /// Returns what a step came to elsewhere. With `is_needed`, only if its layer can be had.
    ///
    /// # Errors
    /// Only when the build is stopped: a cache that cannot be read is none.
    pub(crate) fn step(&self, key: &Digest, is_needed: bool) -> Result<Option<Outcome>> {
        let trust = self.trust.load(Ordering::Relaxed);
        for (import, known) in self.trusted() {
            let Some(outcome) = self.known(import, known)?.steps.get(key) else { continue };
            match &outcome.blob {
                Some(blob) => self.sources.add_cached(blob.digest, place(import)),
                None if is_needed || trust >= WITH_LAYERS => continue,
                None => {}
            }
            return Ok(Some(outcome.clone()));
        }
        Ok(None)
    }

    /// Returns the remembered digest of files that a COPY takes out of layers.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub(crate) fn content(&self, key: &Digest) -> Result<Option<Digest>> {
        for (import, known) in self.trusted() {
            if let Some(digest) = self.known(import, known)?.contents.get(key) {
                return Ok(Some(*digest));
            }
        }
        Ok(None)
    }

    /// Decides what to do about a failure: `true` to try again, trusting the caches less.
    pub(crate) fn distrust(&self, error: &Error) -> bool {
        let Error::CacheLacks { what, is_broken } = error.root() else { return false };
        let trust = if *is_broken { NOTHING } else { WITH_LAYERS };
        if self.trust.fetch_max(trust, Ordering::Relaxed) >= trust {
            // Not by way of the caches, then: this cannot be helped.
            return false;
        }
        let message = match is_broken {
            true => format!("the caches are not used: {what}"),
            false => "files of a step are needed that the caches know only by name".to_owned(),
        };
        (self.events)(Event::Warning { step: None, message });
        true
    }

    fn trusted(&self) -> impl Iterator<Item = &(&'a Import, OnceLock<Known>)> {
        let is_trusted = self.trust.load(Ordering::Relaxed) < NOTHING;
        self.caches.iter().filter(move |_| is_trusted)
    }

    /// Reads a cache, once; one that cannot be read is empty.
    fn known<'s>(&self, import: &Import, known: &'s OnceLock<Known>) -> Result<&'s Known> {
        self.cancel.check()?;
        let known = known.get_or_init(|| {
            self.read(import).unwrap_or_else(|reason| {
                let message = format!("the cache {import} is not used: {reason}");
                (self.events)(Event::Warning { step: None, message });
                Known::default()
            })
        });
        self.cancel.check()?;
        Ok(known)
    }

    fn read(&self, import: &Import) -> Result<Known, String> {
        match import {
            Import::Registry(reference) => {
                let resolved = self
                    .pull
                    .cache(self.lease, reference, self.platform, self.cancel)
                    .map_err(|error| error.to_string())?;
                // A cache that nobody has written yet is as good as an empty one.
                let Some(resolved) = resolved else { return Ok(Known::default()) };
                let manifest = self.lease.store().document(&resolved.manifest);
                let Document::Manifest(manifest) = manifest.map_err(|error| error.to_string())?
                else {
                    return Err("it leads to an index".to_owned());
                };
                let read = |config: &Descriptor| {
                    let limit = MAX_CONFIG_BYTES as u64;
                    let bytes = self.lease.store().blobs().read(&config.digest, limit);
                    bytes.map_err(|error| error.to_string())
                };
                records(&manifest, read)
            }
            Import::Local { src, tag, digest } => {
                let found = layout::find(src, tag, *digest, self.platform)?;
                let Some(manifest) = found else { return Ok(Known::default()) };
                let limit = MAX_CONFIG_BYTES as u64;
                records(&manifest, |config| layout::read(src, config, limit))
            }
        }
    }
}

fn place(import: &Import) -> Place {
    match import {
        Import::Registry(reference) => Place::Registry(reference.clone()),
        Import::Local { src, .. } => Place::Directory(src.clone()),
    }
}

/// Reads the records of a cache's manifest, or of an image with one inside.
fn records(
    manifest: &Manifest,
    read: impl FnOnce(&Descriptor) -> Result<Vec<u8>, String>,
) -> Result<Known, String> {
    let config = &manifest.config;
    if config.media_type.as_str() == MEDIA_TYPE {
        let text = String::from_utf8(read(config)?).map_err(|error| error.to_string())?;
        return Records::read(&text, &manifest.layers, None);
    }
    if !config.media_type.is_config() {
        return Err(format!("it is no cache of ours, but a {}", config.media_type));
    }
    let config = ImageConfig::parse(&read(config)?).map_err(|error| error.to_string())?;
    let inline = config.extra.get(INLINE_FIELD).ok_or_else(|| {
        "the image has no cache inside; `--cache-to type=inline` puts one there".to_owned()
    })?;
    Records::read(inline.as_str(), &manifest.layers, Some(&config.rootfs_diff_ids))
}
