//! An image without its layers, and layers by themselves once something reads their files.

use std::collections::BTreeSet;

use oci::{Descriptor, DiffId, Digest, Document, Platform, Reference};

use super::auth::Scope;
use super::download::Journey;
use super::error::Result;
use super::event::{Event, Sink};
use super::pull::PullOptions;
use super::transport::Transport;
use crate::lease::Lease;

/// What a name stands for in its registry: its documents are in the store, its layers need not be.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What the name stands for: a manifest, or an index of several platforms.
    pub descriptor: Descriptor,
    /// The manifest of the image for the platform asked for.
    pub manifest: Descriptor,
    /// Everything that is in the store now: indexes, the manifest, the config.
    pub documents: Vec<Digest>,
}

/// Gets the documents of an image: what its name leads to, and its config.
pub(super) async fn resolve_image(
    transport: &Transport,
    lease: &Lease,
    reference: &Reference,
    platform: &Platform,
    sink: &Sink<'_>,
) -> Result<Resolved> {
    let host = transport.hosts.of(reference).await?;
    let (repository, scope) = (reference.repository(), &Scope::pull(reference.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = journey.manifest(reference).await?;
    let descriptor = root.descriptor.clone();
    sink(Event::Resolved { reference: reference.clone(), digest: descriptor.digest });
    let (indexes, image) = journey.image(root, platform).await?;
    let Document::Manifest(manifest) = &image.document else {
        unreachable!("an image's document is a manifest")
    };
    journey.take_config(manifest).await?;
    // Only to see that it is for this platform, and has as many layers as it says.
    let options = PullOptions { platform: platform.clone(), ..PullOptions::default() };
    journey.layers(manifest, &options)?;
    let mut documents = vec![manifest.config.digest, image.descriptor.digest];
    journey.keep(&image)?;
    for index in indexes.iter().rev() {
        journey.keep(index)?;
        documents.push(index.descriptor.digest);
    }
    Ok(Resolved { descriptor, manifest: image.descriptor, documents })
}

/// Downloads blobs of a repository that the store has not, several at once; layers that say what
/// they are when uncompressed are unpacked as they arrive, which verifies it.
pub(super) async fn fetch(
    transport: &Transport,
    lease: &Lease,
    from: &Reference,
    blobs: &[(Descriptor, Option<DiffId>)],
    sink: &Sink<'_>,
) -> Result<()> {
    let host = transport.hosts.of(from).await?;
    let (repository, scope) = (from.repository(), &Scope::pull(from.repository()));
    let journey = Journey { transport, host: &host, repository, scope, lease, sink };
    let mut seen = BTreeSet::new();
    let blobs = blobs
        .iter()
        .filter(|(blob, diff_id)| seen.insert((blob.digest, *diff_id)))
        .map(|(blob, diff_id)| (blob, *diff_id))
        .collect();
    journey.transfer(blobs).await.map(drop)
}
