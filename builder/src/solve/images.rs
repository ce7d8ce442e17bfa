//! The images that a build starts from: in the store already, or pulled.

use std::collections::BTreeMap;

use oci::{Platform, Reference};
use store::{Image, Lease};

use crate::error::{Error, Result};
use crate::plan::ImageUse;

/// Gets an image that is not in the store: the second half of a pull.
///
/// The network client is made by the caller, and only when one is needed: making it costs
/// more than a whole build that has nothing to do.
pub type Pull<'a> = &'a (dyn Fn(&Lease, &Reference) -> Result<oci::Descriptor, Cause> + Sync);

/// Why a pull failed.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Returns the images by the names they are used with.
///
/// With `always`, every name is looked up in its registry; otherwise only those that are
/// not in the store.
///
/// # Errors
/// Returns [`Error::BaseImage`] for one that cannot be had.
pub(super) fn resolve(
    lease: &Lease,
    uses: &[ImageUse],
    platform: &Platform,
    always: bool,
    pull: Pull<'_>,
    known: &mut BTreeMap<String, Image>,
) -> Result<()> {
    for image in uses {
        if known.contains_key(&image.name) {
            continue;
        }
        let found = one(lease, &image.name, platform, always, pull).map_err(|error| {
            let name = format!("[internal] load metadata for {}", image.name);
            let lines = Some((image.span.line, image.span.end_line));
            Error::Step { name, lines, source: Box::new(error) }
        })?;
        known.insert(image.name.clone(), found);
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
            // Parts of it are missing (another platform was pulled): get the rest.
            Err(store::Error::BlobUnknown { .. }) => {}
            Err(error) => return Err(failed("it cannot be used", Some(error.into()))),
        }
    }
    let descriptor = pull(lease, &reference)
        .map_err(|error| failed("it is not in the store and cannot be pulled", Some(error)))?;
    lease.pin(&descriptor.digest)?;
    store
        .image(&descriptor, platform)
        .map_err(|error| failed("it cannot be used", Some(error.into())))
}
