//! From the name of an image to the image.

use oci::{Descriptor, Platform, Reference};
use store::{Image, Store};

use super::error::{Error, Result};
use super::options::PullPolicy;

/// Finds the image a user means by `text`: a name, an id, or the beginning of
/// one. It is taken from the store, or fetched with `pull` as `policy` has it.
///
/// # Errors
///
/// [`Error::ImageUnknown`] if it is not there and may not be fetched,
/// [`Error::ImageReference`] if it has no such name, and what `pull` returns.
pub fn resolve(
    store: &Store,
    text: &str,
    policy: PullPolicy,
    platform: &Platform,
    pull: impl FnOnce(&Reference) -> Result<Descriptor>,
) -> Result<Image> {
    let reference = text.parse::<Reference>();
    let descriptor = match (policy, &reference) {
        (PullPolicy::Always, Ok(reference)) => pull(reference)?,
        (PullPolicy::Missing | PullPolicy::Never | PullPolicy::Always, _) => {
            match (find(store, text, reference.as_ref().ok())?, reference) {
                (Some(descriptor), _) => descriptor,
                (None, Ok(reference)) if policy == PullPolicy::Missing => pull(&reference)?,
                (None, Ok(reference)) => {
                    return Err(Error::ImageUnknown { reference: reference.familiar() });
                }
                (None, Err(source)) => {
                    return Err(Error::ImageReference { reference: text.to_owned(), source });
                }
            }
        }
    };
    Ok(store.image(&descriptor, platform)?)
}

fn find(store: &Store, text: &str, reference: Option<&Reference>) -> Result<Option<Descriptor>> {
    // The usual case first: a name needs no search.
    if let Some(reference) = reference
        && let Some(descriptor) = store.images().get(reference)?
    {
        return Ok(Some(descriptor));
    }
    match store.images().find(text) {
        Ok(found) => Ok(Some(found.descriptor)),
        Err(store::Error::ImageUnknown { .. } | store::Error::InvalidName { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
