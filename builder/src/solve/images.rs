//! The images that a build starts from: in the store already, or pulled.

use std::collections::BTreeMap;

use oci::{Descriptor, Platform, Reference};
use store::{Image, Lease};

use crate::error::{Error, Result};
use crate::plan::ImageUse;

/// Gets an image that is not in the store: the second half of a pull.
///
/// The network client is made by the caller, and only when one is needed: making it costs
/// more than a whole build that has nothing to do.
pub type Pull<'a> =
    &'a (dyn Fn(&Lease, &Reference, &Platform) -> Result<oci::Descriptor, Cause> + Sync);

/// Why a pull failed.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Returns the images by the keys they are used with; `target` is what is built for.
///
/// With `always`, every name is looked up in its registry; otherwise only those that are
/// not in the store.
///
/// # Errors
/// Returns [`Error::BaseImage`] for one that cannot be had.
pub(super) fn resolve(
    lease: &Lease,
    uses: &[ImageUse],
    target: &Platform,
    always: bool,
    pull: Pull<'_>,
    known: &mut BTreeMap<String, Image>,
) -> Result<()> {
    for image in uses {
        let key = image.key(target);
        if known.contains_key(&key) {
            continue;
        }
        let found = one(lease, &image.name, &image.platform, always, pull).map_err(|error| {
            let name = format!("[internal] load metadata for {}", image.name);
            let lines = Some((image.span.line, image.span.end_line));
            Error::Step { name, lines, source: Box::new(error) }
        })?;
        known.insert(key, found);
    }
    Ok(())
}

fn one(
    lease: &Lease,
    name: &str,
    platform: &Platform,
    always: bool,
    pull: Pull<'_>,
) -> Result<Image> {
    let failed = |reason: &str, source: Option<Cause>| Error::BaseImage {
        reference: name.to_owned(),
        reason: reason.to_owned(),
        source,
    };
    let reference: Reference =
        name.parse().map_err(|error: oci::Error| failed(&error.to_string(), None))?;
    let store = lease.store();
    if !always && let Some(descriptor) = store.images().get(&reference)? {
        lease.pin(&descriptor.digest)?;
        match store.image(&descriptor, platform) {
            Ok(image) => return Ok(image),
            // Another platform was pulled: get this one.
            Err(store::Error::BlobUnknown { .. } | store::Error::PlatformUnavailable { .. }) => {}
            Err(error) => return Err(failed("it cannot be used", Some(error.into()))),
        }
    }
    let descriptor = pull(lease, &reference, platform)
        .map_err(|error| failed("it is not in the store and cannot be pulled", Some(error)))?;
    lease.pin(&descriptor.digest)?;
    usable(store, &descriptor, platform)
        .map_err(|error| failed("it cannot be used", Some(error.into())))
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
