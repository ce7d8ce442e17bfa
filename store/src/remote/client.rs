//! What programs use: sync functions with a small runtime inside.

use std::sync::OnceLock;

use oci::{Descriptor, DiffId, Platform, Reference};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::auth::Credential;
use super::copy::{self, CopyOptions};
use super::error::{Error, Result};
use super::event::Sink;
use super::get::{self, Get, Got};
use super::lazy::{self, Resolved};
use super::login;
use super::options::ClientOptions;
use super::pull::{self, PullOptions, Pulled};
use super::push::{self, PushOptions};
use super::remote_image::{self, RemoteImage};
use super::transport::Transport;
use crate::lease::Lease;

/// Talks to registries.
///
/// Making one costs nothing: connections, certificates and credentials come with the first use.
/// One client serves many threads at once, and shares connections and tokens between them. It must
/// not be used from within another async runtime.
#[derive(Debug)]
pub struct Client {
    pub(super) transport: Transport,
    runtime: OnceLock<Runtime>,
    is_cancelled: watch::Sender<bool>,
}

impl Client {
    /// Returns a client that has not done anything yet.
    #[must_use]
    pub fn new(options: ClientOptions) -> Self {
        Self {
            transport: Transport::new(options),
            runtime: OnceLock::new(),
            is_cancelled: watch::Sender::new(false),
        }
    }

    /// Pulls an image, and makes the name lead to it in the store.
    ///
    /// Of an index, the image for the platform asked for is pulled. What the store has is not
    /// downloaded again.
    ///
    /// # Errors
    ///
    /// [`Error`] says what failed, on what, and why. Nothing incomplete is kept under a name or
    /// digest; blobs that are complete stay with the lease, so that the next attempt goes on there.
    pub fn pull(
        &self,
        lease: &Lease,
        reference: &Reference,
        options: &PullOptions,
        sink: &Sink<'_>,
    ) -> Result<Pulled> {
        self.run(pull::pull(&self.transport, lease, reference, options, sink))
    }

    /// Looks up what a name stands for now, without pulling it.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn resolve(
        &self,
        lease: &Lease,
        reference: &Reference,
        sink: &Sink<'_>,
    ) -> Result<Descriptor> {
        self.run(pull::resolve(&self.transport, lease, reference, sink))
    }

    /// Gets what an image is — its manifest and config — and none of its layers.
    ///
    /// The documents are in the store and pinned by the lease. The name is not set: an image that
    /// has one in the store is whole.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn resolve_image(
        &self,
        lease: &Lease,
        reference: &Reference,
        platform: &Platform,
        sink: &Sink<'_>,
    ) -> Result<Resolved> {
        self.run(lazy::resolve_image(&self.transport, lease, reference, platform, sink))
    }

    /// Downloads those of these blobs that the store has not, from the repository of `from`.
    ///
    /// A layer with its diff id is unpacked as well; one that is not what its diff id says is an
    /// error, and is not kept unpacked.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn fetch(
        &self,
        lease: &Lease,
        from: &Reference,
        blobs: &[(Descriptor, Option<DiffId>)],
        sink: &Sink<'_>,
    ) -> Result<()> {
        self.run(lazy::fetch(&self.transport, lease, from, blobs, sink))
    }

    /// Pushes an image of the store, and returns what the registry now has under the name.
    ///
    /// Layers that are plain tars are compressed first, so the manifest may be another one than the
    /// image's; it is in the store as well. Everything else arrives byte for byte.
    ///
    /// # Errors
    ///
    /// [`Error`] says what failed, on what, and why. The name in the registry changes last, and
    /// only if everything else is there.
    pub fn push(
        &self,
        lease: &Lease,
        image: &Descriptor,
        to: &Reference,
        options: &PushOptions,
        sink: &Sink<'_>,
    ) -> Result<Descriptor> {
        self.run(push::push(&self.transport, lease, image, to, options, sink))
    }

    /// Copies an image from one name to another, which may be in other registries, past the store.
    ///
    /// Everything arrives byte for byte. Returns what the destination now has under the name.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull) and [`push`](Self::push).
    pub fn copy(
        &self,
        lease: &Lease,
        from: &Reference,
        to: &Reference,
        options: &CopyOptions,
        sink: &Sink<'_>,
    ) -> Result<Descriptor> {
        self.run(copy::copy(&self.transport, lease, from, to, options, sink))
    }

    /// Takes an image into the store as it is, all of its platforms or one, without unpacking it and
    /// without a name: it stays as long as the lease.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn take(
        &self,
        lease: &Lease,
        from: &Reference,
        options: &CopyOptions,
        sink: &Sink<'_>,
    ) -> Result<Descriptor> {
        self.run(copy::take(&self.transport, lease, from, options, sink))
    }

    /// Returns the manifest or index that a name stands for now. Nothing is stored.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn look_up(
        &self,
        lease: &Lease,
        reference: &Reference,
        sink: &Sink<'_>,
    ) -> Result<RemoteImage> {
        self.run(remote_image::look_up(&self.transport, lease, reference, sink))
    }

    /// Returns the image that a name stands for on a platform, without its layers, and the bytes of
    /// its config. Nothing is stored.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn look_into(
        &self,
        lease: &Lease,
        reference: &Reference,
        platform: &Platform,
        sink: &Sink<'_>,
    ) -> Result<(crate::Image, Vec<u8>)> {
        self.run(remote_image::image(&self.transport, lease, reference, platform, sink))
    }

    /// Lists what refers to the manifest or index that a name stands for.
    ///
    /// # Errors
    ///
    /// As [`pull`](Self::pull).
    pub fn referrers(
        &self,
        lease: &Lease,
        reference: &Reference,
        sink: &Sink<'_>,
    ) -> Result<Vec<Descriptor>> {
        self.run(remote_image::referrers(&self.transport, lease, reference, sink))
    }

    /// Downloads a blob that is not in the store from where the store knows it to be; tells whether
    /// it had to be.
    ///
    /// # Errors
    ///
    /// [`crate::Error::BlobUnknown`] if nobody knows where it is; else as [`pull`](Self::pull).
    pub fn fetch_blob(&self, lease: &Lease, blob: &Descriptor, sink: &Sink<'_>) -> Result<bool> {
        self.run(push::fetch_blob(&self.transport, lease, blob, sink))
    }

    /// Asks a registry whether it accepts a credential. `registry` is the host as it stands in
    /// references; [`AuthFile::store`](super::AuthFile::store) writes the credential down.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthorized`] if it does not, or whatever keeps it from answering.
    pub fn login(&self, registry: &str, credential: &Credential, sink: &Sink<'_>) -> Result<()> {
        self.run(login::check(&self.transport, registry, credential.clone(), sink))
    }

    /// Gets a file by its address, which need not be a registry's; its content becomes a blob that
    /// the lease keeps.
    ///
    /// # Errors
    ///
    /// [`Error`] says what failed, on what, and why; more than the bytes allowed are an error too.
    pub fn get(&self, lease: &Lease, get: &Get<'_>, sink: &Sink<'_>) -> Result<Got> {
        self.run(get::get(&self.transport, lease, get, sink))
    }

    /// Stops what is under way in all threads, which returns [`Error::Cancelled`], and refuses
    /// whatever is asked afterwards.
    pub fn cancel(&self) {
        self.is_cancelled.send_replace(true);
    }

    /// Runs on this thread until the end, or until somebody cancels.
    pub(super) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut is_cancelled = self.is_cancelled.subscribe();
        self.runtime()?.block_on(async {
            tokio::select! {
                biased;
                _ = is_cancelled.wait_for(|is_cancelled| *is_cancelled) => Err(Error::Cancelled),
                result = work => result,
            }
        })
    }

    /// Returns the runtime. One thread does the network for all, and hashing, writing, compressing
    /// and unpacking have threads of their own.
    fn runtime(&self) -> Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| {
            Error::Setup { what: "the network".to_owned(), reason: error.to_string() }
        })?;
        Ok(self.runtime.get_or_init(|| runtime))
    }
}
