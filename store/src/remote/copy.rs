//! From one registry to another, or to another repository of the same one, without the store.
//!
//! Blobs are mounted where both are the same registry, taken from the store where it has them, and
//! otherwise pass through memory in pieces. As with a push, names come last.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use oci::{Descriptor, Digest, Document, Platform, Reference};
use tokio::sync::Semaphore;

use super::auth::Scope;
use super::documents::{Fetched, MAX_INDEX_DEPTH};
use super::download::Journey;
use super::error::{Error, Result};
use super::event::{Event, Sink};
use super::referrers::MAX_REFERRERS;
use super::source::Source;
use super::transport::{Transport, protocol};
use super::upload;
use crate::lease::Lease;

/// How many manifests one index may lead to.
const MAX_MANIFESTS: usize = 10_000;

/// What to copy.
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// The platform whose image is copied where there are several; `None` copies all of them.
    pub platform: Option<Platform>,
    /// Whether what refers to the image is copied as well.
    pub referrers: bool,
}

/// Copies an image; returns what the destination now has under the name.
pub(super) async fn copy(
    transport: &Transport,
    lease: &Lease,
    from: &Reference,
    to: &Reference,
    options: &CopyOptions,
    sink: &Sink<'_>,
) -> Result<Descriptor> {
    let host = transport.hosts.of(from).await?;
    let (repository, scope) = (from.repository(), &Scope::pull(from.repository()));
    let source = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = source.manifest(from).await?;
    sink(Event::Resolved { reference: from.clone(), digest: root.descriptor.digest });
    let root = match &options.platform {
        Some(platform) => source.image(root, platform).await?.1,
        None => root,
    };
    let host = transport.hosts.of(to).await?;
    let (repository, scope) = (to.repository(), &upload::scope(to.repository()));
    let target = Journey { transport, host: &host, repository, scope, lease, sink };
    let transfers = Semaphore::new(transport.hosts.options().parallel.max(1));
    let copy = Copy { source, target, transfers, manifests: Mutex::default() };
    let name = match (to.tag(), to.digest()) {
        (Some(tag), _) => tag.to_string(),
        (None, Some(digest)) if *digest == root.descriptor.digest => digest.to_string(),
        (None, Some(digest)) => {
            let reason = format!("its manifest is {}, not {digest}", root.descriptor.digest);
            return Err(Error::NotPushable { reason });
        }
        (None, None) => unreachable!("a reference has a tag or a digest"),
    };
    copy.content(&root, 0).await?;
    if options.referrers {
        copy.referrers(&root.descriptor).await?;
    }
    copy.target.put_manifest(&name, &root.descriptor, Bytes::from(root.bytes)).await?;
    Ok(root.descriptor)
}

/// Takes an image into the store as it is: all platforms or one, not unpacked, without a name.
pub(super) async fn take(
    transport: &Transport,
    lease: &Lease,
    from: &Reference,
    options: &CopyOptions,
    sink: &Sink<'_>,
) -> Result<Descriptor> {
    let host = transport.hosts.of(from).await?;
    let (repository, scope) = (from.repository(), &Scope::pull(from.repository()));
    let source = Journey { transport, host: &host, repository, scope, lease, sink };
    let root = source.manifest(from).await?;
    sink(Event::Resolved { reference: from.clone(), digest: root.descriptor.digest });
    let root = match &options.platform {
        Some(platform) => source.image(root, platform).await?.1,
        None => root,
    };
    let descriptor = root.descriptor.clone();
    let transfers = Semaphore::new(transport.hosts.options().parallel.max(1));
    let (mut queue, mut manifests) = (vec![root], 0);
    while let Some(next) = queue.pop() {
        manifests += 1;
        if manifests > MAX_MANIFESTS {
            return Err(protocol(
                &host,
                &format!("it leads to more than {MAX_MANIFESTS} manifests"),
            ));
        }
        source.keep(&next)?;
        let mut seen = BTreeSet::new();
        let blobs = next.document.blobs().filter(|blob| seen.insert(blob.digest));
        let blobs = blobs.filter(|blob| blob.media_type.is_distributable());
        try_join_all(blobs.map(|blob| async {
            let _permit = transfers.acquire().await.expect("the semaphore is not closed");
            source.blob(blob).await
        }))
        .await?;
        for entry in next.document.manifests() {
            let name = entry.digest.to_string();
            queue.push(source.fetch(&name, Some(entry.digest), Some(entry)).await?);
        }
        if options.referrers {
            source.pull_referrers(from, &next.descriptor.digest).await?;
        }
    }
    Ok(descriptor)
}

struct Copy<'a> {
    source: Journey<'a>,
    target: Journey<'a>,
    transfers: Semaphore,
    /// The manifests that were copied, which may have referrers.
    manifests: Mutex<Vec<Digest>>,
}

impl Copy<'_> {
    /// Makes sure that the destination has everything that a document lists.
    async fn content(&self, fetched: &Fetched, depth: usize) -> Result<()> {
        match &fetched.document {
            Document::Manifest(_) => {
                let mut seen = BTreeSet::new();
                let blobs = fetched.document.blobs();
                let blobs =
                    blobs.filter(|blob| seen.insert(blob.digest)).map(|blob| self.blob(blob));
                try_join_all(blobs).await?;
            }
            Document::Index(_) if depth >= MAX_INDEX_DEPTH => {
                let reason = "its indexes lead to further indexes without end";
                return Err(protocol(self.source.host, reason));
            }
            Document::Index(index) => {
                for entry in &index.manifests {
                    Box::pin(self.entry(entry, depth + 1)).await?;
                }
            }
        }
        let mut manifests = self.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        manifests.push(fetched.descriptor.digest);
        Ok(())
    }

    /// Copies a manifest that another document lists.
    async fn entry(&self, entry: &Descriptor, depth: usize) -> Result<()> {
        let name = entry.digest.to_string();
        let fetched = self.source.fetch(&name, Some(entry.digest), Some(entry)).await?;
        self.content(&fetched, depth).await?;
        self.target.put_manifest(&name, &fetched.descriptor, Bytes::from(fetched.bytes)).await
    }

    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        if !blob.media_type.is_distributable() {
            return Ok(());
        }
        let _permit = self.transfers.acquire().await.expect("the semaphore is not closed");
        let (source, target) = (self.source, self.target);
        let is_same_host = source.host.name == target.host.name;
        let mount =
            Some(source.repository).filter(|name| is_same_host && *name != target.repository);
        let lease = target.lease;
        lease.pin(&blob.digest)?;
        let bytes = match lease.store().blobs().contains(&blob.digest)? {
            true => Source::Store(lease),
            false => Source::Registry(source),
        };
        target.upload(blob, mount, bytes).await
    }

    /// Copies what refers to the manifests that were copied, and what refers to that.
    async fn referrers(&self, root: &Descriptor) -> Result<()> {
        let take =
            || std::mem::take(&mut *self.manifests.lock().unwrap_or_else(PoisonError::into_inner));
        let mut seen: BTreeSet<Digest> = BTreeSet::new();
        let mut queue = take();
        while let Some(subject) = queue.pop() {
            for referrer in self.source.referrers(&subject).await? {
                if !seen.insert(referrer.digest) {
                    continue;
                }
                if seen.len() > MAX_REFERRERS {
                    let reason = format!("{} has more than {MAX_REFERRERS} referrers", root.digest);
                    return Err(protocol(self.source.host, &reason));
                }
                self.entry(&referrer, 0).await?;
            }
            queue.extend(take());
        }
        Ok(())
    }
}
