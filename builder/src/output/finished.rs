//! The builds of one command as one image.

use oci::{Descriptor, Digest, Index, MediaType};
use store::Lease;

use crate::error::Result;
use crate::solve::Built;

/// What a command built: one image, or an index of several.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The manifest, or the index where there are several.
    pub image: Descriptor,
    /// The image of each platform, in the order in which they were asked for.
    pub builds: Vec<Built>,
}

impl Finished {
    /// Stores an index if there are several builds.
    ///
    /// # Errors
    /// Fails when the store cannot be written.
    ///
    /// # Panics
    /// If there is no build at all.
    pub fn new(lease: &Lease, builds: Vec<Built>) -> Result<Self> {
        let first = builds.first().expect("a command builds for at least one platform");
        let image = if builds.len() == 1 {
            first.manifest.clone()
        } else {
            index(lease, &Index::new(builds.iter().map(listed).collect()))?
        };
        Ok(Self { image, builds })
    }

    /// Returns what docker calls the image ID: the config's digest, or the index' where there are
    /// several.
    #[must_use]
    pub fn image_id(&self) -> Digest {
        match &self.builds[..] {
            [only] => only.image_id,
            _ => self.image.digest,
        }
    }

    /// Returns the bytes of all layers as they are stored.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.builds.iter().map(|built| built.size).sum()
    }
}

/// Returns the entry of an image in an index.
fn listed(built: &Built) -> Descriptor {
    Descriptor { platform: Some(built.platform.clone()), ..built.manifest.clone() }
}

/// Stores an index and returns what leads to it.
pub(super) fn index(lease: &Lease, index: &Index) -> Result<Descriptor> {
    let stored = lease.put(&index.to_bytes())?;
    let media_type = index.media_type.clone().unwrap_or(MediaType::OCI_INDEX);
    Ok(Descriptor::new(media_type, stored.digest, stored.size))
}
