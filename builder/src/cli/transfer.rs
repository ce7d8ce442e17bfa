//! What commands that move images have in common: a client, and progress.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use oci::{Descriptor, DiffId, Digest, Platform, Reference};
use store::Lease;
use store::remote::{self, Client, Event as Remote, PushOptions, Resolved, Sink, Task};

use super::environment::client_for;
use super::progress::Progress;
use crate::event::{Event, Why};
use crate::solve::{Cancel, PullResult, Registries};

/// How a build reaches registries.
pub(super) struct Base<'a> {
    pub(super) insecure: bool,
    pub(super) progress: &'a Progress,
    pub(super) cancel: &'a Cancel,
}

impl Registries for Base<'_> {
    fn image(&self, lease: &Lease, name: &Reference, platform: &Platform) -> PullResult<Resolved> {
        let what = format!("[internal] load metadata for {name}");
        Ok(self.with_client(name, what, self.cancel, |client, sink| {
            client.resolve_image(lease, name, platform, sink)
        })?)
    }

    fn layers(
        &self,
        lease: &Lease,
        from: &Reference,
        blobs: &[(Descriptor, Option<DiffId>)],
        cancel: &Cancel,
    ) -> PullResult<()> {
        let what = format!("[internal] pull {}", from.familiar());
        Ok(self.with_client(from, what, cancel, |client, sink| {
            client.fetch(lease, from, blobs, sink)
        })?)
    }

    fn cache(
        &self,
        lease: &Lease,
        name: &Reference,
        platform: &Platform,
        cancel: &Cancel,
    ) -> PullResult<Option<Resolved>> {
        let what = format!("[internal] load cache {}", name.familiar());
        Ok(self.with_client(name, what, cancel, |client, sink| {
            match client.resolve_image(lease, name, platform, sink) {
                Err(remote::Error::NotFound { .. }) => Ok(None),
                result => result.map(Some),
            }
        })?)
    }
}

impl Base<'_> {
    /// Sends a cache to a registry.
    pub(super) fn push_cache(
        &self,
        lease: &Lease,
        manifest: &Descriptor,
        to: &Reference,
    ) -> remote::Result<()> {
        let what = format!("[internal] export cache to {}", to.familiar());
        self.with_client(to, what, self.cancel, |client, sink| {
            client.push(lease, manifest, to, &PushOptions::default(), sink).map(drop)
        })
    }

    /// Does something with a client; it stops when the build does.
    fn with_client<T>(
        &self,
        reference: &Reference,
        what: String,
        cancel: &Cancel,
        work: impl FnOnce(&Client, &Sink<'_>) -> remote::Result<T>,
    ) -> remote::Result<T> {
        let client = Arc::new(client_for(reference, self.insecure));
        let canceller = Arc::clone(&client);
        let _guard = cancel.on_stop(move || canceller.cancel());
        Show::run(self.progress, what, |sink| work(&client, sink))
    }
}

/// Shows a transfer as one step with a line per blob.
pub(super) struct Show<P> {
    progress: P,
    step: usize,
    started: std::time::Instant,
    sizes: Mutex<BTreeMap<Digest, u64>>,
}

impl Show<&Progress> {
    /// Shows a transfer from its beginning to its end.
    pub(super) fn run<T>(
        progress: &Progress,
        name: String,
        transfer: impl FnOnce(&Sink<'_>) -> remote::Result<T>,
    ) -> remote::Result<T> {
        let show = Show::start(progress, name);
        let result = transfer(&|event| show.event(&event));
        show.end(result.as_ref().err().map(ToString::to_string));
        result
    }
}

impl<P: Deref<Target = Progress>> Show<P> {
    pub(super) fn start(progress: P, name: String) -> Self {
        let step = progress.numbers().fetch_add(1, Ordering::Relaxed);
        progress.event(Event::Started { step, name });
        progress.show(Event::Running { step, why: Why::First });
        Self { progress, step, started: std::time::Instant::now(), sizes: Mutex::default() }
    }

    pub(super) fn event(&self, event: &Remote) {
        let step = self.step;
        let line = |text: String| {
            self.progress.event(Event::Log {
                step,
                stream: crate::event::Stream::Stderr,
                line: text,
            });
        };
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Remote::Resolved { digest, .. } => line(format!("resolved {digest}")),
            Remote::Started { digest, task: Task::Download | Task::Upload, size } => {
                sizes.insert(*digest, *size);
            }
            Remote::Progress { digest, task: Task::Download | Task::Upload, done } => {
                self.transfer(digest, *done, sizes.get(digest).copied());
            }
            Remote::Finished { digest, task: Task::Download | Task::Upload } => {
                let size = sizes.get(digest).copied().unwrap_or(0);
                self.transfer(digest, size, Some(size));
            }
            Remote::Exists { digest, task: Task::Download | Task::Upload } => {
                line(format!("{} is there already", digest.short()));
            }
            Remote::Mounted { digest, from } => {
                line(format!("{} mounted from {from}", digest.short()));
            }
            Remote::Retrying { what, reason, .. } => {
                line(format!("{what}: {reason}; trying again"));
            }
            Remote::Started { .. }
            | Remote::Progress { .. }
            | Remote::Finished { .. }
            | Remote::Exists { .. } => {}
        }
    }

    fn transfer(&self, digest: &Digest, current: u64, total: Option<u64>) {
        let what = digest.short();
        self.progress.event(Event::Transfer { step: self.step, what, current, total });
    }

    pub(super) fn end(&self, failure: Option<String>) {
        let step = self.step;
        self.progress.event(match failure {
            None => Event::Done { step, took: self.started.elapsed() },
            Some(message) => Event::Failed { step, message },
        });
    }
}
