//! The images that a build starts from, and where layers come from that are not here.
//!
//! Of an image, planning and keys need the config and the names of its layers, nothing else. The
//! layers are downloaded when something reads their files: a RUN that executes, a COPY out of the
//! image, or the result, if that goes to the store. A stage whose steps are all recorded costs
//! three small documents, whatever the size of its base.
//!
//! # Invariants
//!
//! - A name in the store leads to an image that is whole. What was only looked up has no name: a
//!   record (`image`, name, platform) keeps its documents and remembers what the name stood for.
//! - Every layer is verified when it arrives: its blob by its digest, its content by its diff id.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use oci::{Descriptor, DiffId, Digest, ImageConfig, Platform, Reference};
use store::remote::Resolved;
use store::{Image, Lease, StepRecord};

use super::assemble::{Layer, State};
use super::cancel::Cancel;
use crate::cache::{Caching, Policy, layout};
use crate::context::{LAYOUT_SCHEME, Layout};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::plan::ImageUse;

/// How to reach registries.
///
/// The network client is made by the caller, and only when one is needed: making it costs
/// more than a whole build that has nothing to do.
pub trait Registries: Sync {
    /// Gets the documents of an image, none of its layers.
    ///
    /// # Errors
    /// If it cannot be had for this platform.
    fn image(&self, lease: &Lease, name: &Reference, platform: &Platform) -> PullResult<Resolved>;

    /// Gets blobs of a repository; layers with a diff id are unpacked as they arrive.
    ///
    /// # Errors
    /// If one cannot be had, or is not what it should be.
    fn layers(
        &self,
        lease: &Lease,
        from: &Reference,
        blobs: &[(Descriptor, Option<DiffId>)],
        cancel: &Cancel,
    ) -> PullResult<()>;

    /// Gets the documents of an imported cache; `None` where there is none of that name yet.
    ///
    /// # Errors
    /// If the registry does not say.
    fn cache(
        &self,
        lease: &Lease,
        name: &Reference,
        platform: &Platform,
        cancel: &Cancel,
    ) -> PullResult<Option<Resolved>>;
}

/// What comes of reaching for a registry.
pub type PullResult<T> = Result<T, Cause>;

/// How to reach registries.
pub type Pull<'a> = &'a dyn Registries;

/// Why a pull failed.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where a blob can be had that is not in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The repository of this reference.
    Registry(Reference),
    /// An OCI layout on this machine.
    Directory(PathBuf),
}

/// A place, and whether an imported cache names it.
#[derive(Clone, Debug)]
struct Source {
    place: Place,
    is_cache: bool,
}

/// Where the blobs of layers come from, whoever named them.
#[derive(Debug, Default)]
pub struct Sources {
    known: Mutex<BTreeMap<Digest, Source>>,
    /// One lock for each place: two steps that need one layer do not both download it.
    busy: Mutex<BTreeMap<Place, Arc<Mutex<()>>>>,
}

impl Sources {
    /// Remembers where the layers of an image are.
    fn add_image(&self, image: &Image, reference: &Reference) {
        let mut known = lock(&self.known);
        for layer in &image.manifest.layers {
            let place = Place::Registry(reference.clone());
            known.insert(layer.digest, Source { place, is_cache: false });
        }
    }

    /// Remembers where a layer of an imported cache is, unless it can be had without it.
    pub(crate) fn add_cached(&self, blob: Digest, place: Place) {
        lock(&self.known).entry(blob).or_insert(Source { place, is_cache: true });
    }

    /// Returns where a blob can be had.
    #[must_use]
    pub fn place(&self, blob: &Digest) -> Option<Place> {
        lock(&self.known).get(blob).map(|source| source.place.clone())
    }

    /// Makes sure that the blobs of layers are in the store, and the fetched ones unpacked;
    /// returns whether any had to be fetched.
    ///
    /// # Errors
    /// Returns [`Error::CacheLacks`] for a layer that an imported cache promised and does not
    /// have, and [`Error::Layers`] for any other that cannot be had.
    pub(crate) fn fetch(
        &self,
        lease: &Lease,
        layers: &[(Descriptor, DiffId)],
        pull: Pull<'_>,
        cancel: &Cancel,
    ) -> Result<bool> {
        let mut wanted: BTreeMap<(Place, bool), Vec<(&Descriptor, DiffId)>> = BTreeMap::new();
        for (blob, diff_id) in layers {
            if is_here(lease, blob, *diff_id)? {
                continue;
            }
            let Some(source) = lock(&self.known).get(&blob.digest).cloned() else {
                return Err(Error::CacheLacks { what: diff_id.to_string(), is_broken: false });
            };
            wanted.entry((source.place, source.is_cache)).or_default().push((blob, *diff_id));
        }
        let is_needed = !wanted.is_empty();
        for ((place, is_cache), layers) in wanted {
            let busy = Arc::clone(lock(&self.busy).entry(place.clone()).or_default());
            let _alone = lock(&busy);
            cancel.check()?;
            let mut missing = Vec::new();
            for (blob, diff_id) in layers {
                if !is_here(lease, blob, diff_id)? {
                    missing.push((blob.clone(), Some(diff_id)));
                }
            }
            if missing.is_empty() {
                continue;
            }
            let result = match &place {
                Place::Registry(reference) => pull.layers(lease, reference, &missing, cancel),
                Place::Directory(directory) => layout::fetch(lease, directory, &missing),
            };
            result.map_err(|source| {
                if let Err(stopped) = cancel.check() {
                    return stopped;
                }
                match is_cache {
                    true => Error::CacheLacks { what: source.to_string(), is_broken: true },
                    false => Error::Layers { place: place.to_string(), source },
                }
            })?;
        }
        Ok(is_needed)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => write!(f, "{}", reference.familiar()),
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

fn is_here(lease: &Lease, blob: &Descriptor, diff_id: DiffId) -> Result<bool> {
    lease.pin_all(&[blob.digest, diff_id.0])?;
    Ok(lease.store().blobs().contains(&blob.digest)?)
}

/// One image that the build uses.
#[derive(Debug)]
struct Used {
    /// Its name; a layout of a named context has none that the store could use.
    reference: Option<Reference>,
    descriptor: Descriptor,
    image: Image,
    /// Whether the name leads to another image in the store.
    is_newer: bool,
}

/// The images of a build, by the names they are used with.
pub(super) struct Images<'a> {
    lease: &'a Lease,
    policy: Policy,
    may_be_partial: bool,
    pull: Pull<'a>,
    pub(super) sources: Arc<Sources>,
    used: BTreeMap<String, Used>,
    /// Whether any layer had to be downloaded.
    has_fetched: AtomicBool,
    /// Images by name, as planning wants them.
    pub(super) images: BTreeMap<String, Image>,
}

impl<'a> Images<'a> {
    pub(super) fn new(lease: &'a Lease, cache: &Caching, pull: Pull<'a>) -> Self {
        let (sources, used, has_fetched, images) = Default::default();
        let Caching { pull: policy, may_be_partial, .. } = *cache;
        Self { lease, policy, may_be_partial, pull, sources, used, has_fetched, images }
    }

    /// Finds the images that are not known yet; `target` is what is built for.
    ///
    /// # Errors
    /// Returns [`Error::BaseImage`] for one that cannot be had.
    pub(super) fn resolve(&mut self, uses: &[ImageUse], target: &Platform) -> Result<()> {
        for image in uses {
            let key = image.key(target);
            if self.used.contains_key(&key) {
                continue;
            }
            let found = self.one(&image.name, &image.platform).map_err(|error| {
                let name = format!("[internal] load metadata for {}", image.name);
                let lines = Some((image.span.line, image.span.end_line));
                Error::Step { name, lines, source: Box::new(error) }
            })?;
            if let Some(reference) = &found.reference {
                self.sources.add_image(&found.image, reference);
            }
            for layer in &State::of_image(&found.image).layers {
                self.note_origin(layer)?;
            }
            self.images.insert(key.clone(), found.image.clone());
            self.used.insert(key, found);
        }
        Ok(())
    }

    /// Notes where a layer can be had that is not here, for whoever sends the result somewhere.
    pub(super) fn note_origin(&self, layer: &Layer) -> Result<()> {
        if self.may_be_partial
            && let Some(Place::Registry(from)) = self.sources.place(&layer.blob.digest)
            && !is_here(self.lease, &layer.blob, layer.diff_id)?
        {
            self.lease.note_origin(&[layer.blob.digest], &from)?;
        }
        Ok(())
    }

    fn one(&self, name: &str, platform: &Platform) -> Result<Used> {
        let failed = |reason: &str, source: Option<Cause>| Error::BaseImage {
            reference: name.to_owned(),
            reason: reason.to_owned(),
            source,
        };
        let unusable = |error: store::Error| failed("it cannot be used", Some(error.into()));
        if name.starts_with(LAYOUT_SCHEME) {
            let layout = Layout::parse(name).map_err(|reason| failed(&reason, None))?;
            let descriptor = layout.load(self.lease, platform)?;
            let image = usable(self.lease.store(), &descriptor, platform).map_err(unusable)?;
            return Ok(Used { reference: None, descriptor, image, is_newer: false });
        }
        let reference: Reference =
            name.parse().map_err(|error: oci::Error| failed(&error.to_string(), None))?;
        if matches!(self.policy, Policy::Missing | Policy::Never)
            && let Some(used) = self.here(&reference, platform).map_err(unusable)?
        {
            return Ok(used);
        }
        if self.policy == Policy::Never {
            return Err(failed("it is not in the store, and --pull=never", None));
        }
        let resolved = match self.pull.image(self.lease, &reference, platform) {
            Ok(resolved) => resolved,
            Err(error) => {
                if self.policy == Policy::Newer
                    && let Some(used) = self.here(&reference, platform).map_err(unusable)?
                {
                    tracing::debug!(%error, "the registry does not say whether there is a newer one");
                    return Ok(used);
                }
                let reason = "it is not in the store and cannot be pulled";
                return Err(failed(reason, Some(error)));
            }
        };
        self.lease.pin(&resolved.descriptor.digest)?;
        let store = self.lease.store();
        let image = usable(store, &resolved.descriptor, platform).map_err(unusable)?;
        let extra = serde_json::json!({
            "image": reference.to_string(),
            "platform": platform.to_string(),
            "descriptor": resolved.descriptor,
        });
        let record = StepRecord { blobs: resolved.documents, ..StepRecord::note(extra) };
        self.lease.store().steps().put(self.lease, &record_key(&reference, platform), &record)?;
        let named = self.lease.store().images().get(&reference)?;
        let is_newer = named.is_some_and(|named| named.digest != resolved.descriptor.digest);
        let reference = Some(reference);
        Ok(Used { reference, descriptor: resolved.descriptor, image, is_newer })
    }

    /// Returns an image that the store knows: by its name, or from an earlier look-up.
    fn here(&self, reference: &Reference, platform: &Platform) -> store::Result<Option<Used>> {
        let store = self.lease.store();
        let looked_up = || {
            let record = store.steps().get(self.lease, &record_key(reference, platform))?;
            let descriptor = record.and_then(|record| record.extra.get("descriptor").cloned());
            Ok(descriptor.and_then(|text| serde_json::from_str(&text.to_string()).ok()))
        };
        let named: Option<Descriptor> = store.images().get(reference)?;
        for descriptor in [Ok(named), looked_up()] {
            let Some(descriptor): Option<Descriptor> = descriptor? else { continue };
            self.lease.pin(&descriptor.digest)?;
            match store.image(&descriptor, platform) {
                Ok(image) => {
                    let reference = Some(reference.clone());
                    return Ok(Some(Used { reference, descriptor, image, is_newer: false }));
                }
                // Another platform was pulled: get this one.
                Err(
                    store::Error::BlobUnknown { .. } | store::Error::PlatformUnavailable { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Gets the layers that are not in the store, unpacked.
    ///
    /// # Errors
    /// As [`Sources::fetch`].
    pub(super) fn fetch(&self, layers: &[Layer], cancel: &Cancel) -> Result<()> {
        let layers: Vec<_> =
            layers.iter().map(|layer| (layer.blob.clone(), layer.diff_id)).collect();
        if self.sources.fetch(self.lease, &layers, self.pull, cancel)? {
            self.has_fetched.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Gets the layers of the result, and ends with no name leading to less than it says.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub(super) fn complete(&self, layers: &[Layer], cancel: &Cancel) -> Result<()> {
        self.fetch(layers, cancel)?;
        let store = self.lease.store();
        for Used { reference, descriptor, image, is_newer } in self.used.values() {
            if *is_newer {
                // The name leads to an older image that is here as a whole: it is replaced by one
                // that is, since the next build without --pull takes what has the name.
                self.fetch(&State::of_image(image).layers, cancel)?;
            } else if !self.has_fetched.load(Ordering::Relaxed) {
                continue;
            }
            let Some(reference) = reference else { continue };
            let mut is_whole = true;
            for layer in &image.manifest.layers {
                is_whole &= store.blobs().contains(&layer.digest)?;
            }
            if is_whole && store.images().get(reference)?.as_ref() != Some(descriptor) {
                store.images().set(self.lease, reference, descriptor)?;
            }
        }
        Ok(())
    }
}

/// Returns the config of an image whose config is here, be it for another platform, for those
/// that only look.
pub(crate) fn known_config(
    lease: &Lease,
    reference: &Reference,
    platform: &Platform,
) -> Option<ImageConfig> {
    let store = lease.store();
    let named = store.images().get(reference).ok().flatten();
    let looked_up = || {
        let record = store.steps().get(lease, &record_key(reference, platform)).ok()??;
        serde_json::from_str(&record.extra.get("descriptor")?.to_string()).ok()
    };
    let config = |descriptor: Descriptor| Some(usable(store, &descriptor, platform).ok()?.config);
    named.and_then(config).or_else(|| looked_up().and_then(config))
}

/// Returns the image for a platform, or the one that there is: a name that leads to a single
/// image stands for it, as in docker.
fn usable(
    store: &store::Store,
    descriptor: &Descriptor,
    platform: &Platform,
) -> store::Result<Image> {
    match store.image(descriptor, platform) {
        Err(store::Error::PlatformUnavailable { available, .. })
            if descriptor.media_type.is_manifest() =>
        {
            store.image(descriptor, &available.parse().unwrap_or_else(|_| platform.clone()))
        }
        found => found,
    }
}

/// Returns the key of what a name stood for when it was looked up.
fn record_key(reference: &Reference, platform: &Platform) -> Digest {
    let mut key = Key::new("image");
    key.field("reference", &reference.to_string());
    key.field("platform", &platform.to_string());
    key.finish()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
