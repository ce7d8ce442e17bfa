//! `rbuild push` and `rbuild pull`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use oci::{Descriptor, DiffId, Digest, Platform, Reference};
use store::Lease;
use store::remote::{self, Client, Event as Remote, PullOptions, PushOptions, Task};

use super::environment::client_for;
use super::progress::{Mode, Progress};
use crate::event::{Event, Why};
use crate::solve::Cancel;

/// Send an image to a registry
///
/// Blobs the registry already has are not sent again. The digest printed is the one to
/// deploy by.
#[derive(Debug, clap::Args)]
pub(super) struct PushArgs {
    /// Image to push: its name, or its ID where REMOTE is given
    image: String,
    /// Name to push to [default: the image's own]
    remote: Option<Reference>,
    /// Allow plain HTTP and unverified certificates
    #[arg(long)]
    insecure: bool,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,
}

pub(super) fn push(args: &PushArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let found = store.images().find(&args.image)?;
    lease.pin(&found.descriptor.digest)?;
    let to = match (&args.remote, found.reference) {
        (Some(remote), _) => remote.clone(),
        (None, Some(name)) => name,
        (None, None) => anyhow::bail!("say where to push {} to", args.image),
    };
    let progress = Progress::start(if args.quiet { Mode::Quiet } else { args.progress });
    let show = Show::start(&progress, format!("push {}", to.familiar()));
    let result = client_for(&to, args.insecure).push(
        &lease,
        &found.descriptor,
        &to,
        &PushOptions::default(),
        &|event| show.event(&event),
    );
    show.end(result.as_ref().err().map(ToString::to_string));
    progress.finish();
    let pushed = result.with_context(|| format!("cannot push {}", to.familiar()))?;
    writeln!(std::io::stdout(), "{}", to.with_digest(pushed.digest))?;
    Ok(())
}

/// Fetch an image from a registry
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Image to fetch
    image: Reference,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Allow plain HTTP and unverified certificates
    #[arg(long)]
    insecure: bool,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,
}

pub(super) fn pull(args: &PullArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let progress = Progress::start(if args.quiet { Mode::Quiet } else { args.progress });
    let client = client_for(&args.image, args.insecure);
    let options = PullOptions { platform, ..PullOptions::default() };
    let result = fetch(&client, &lease, &args.image, &options, &progress);
    progress.finish();
    let descriptor = result.with_context(|| format!("cannot pull {}", args.image.familiar()))?;
    writeln!(std::io::stdout(), "{}", args.image.with_digest(descriptor.digest))?;
    Ok(())
}

/// How a build reaches the registries of its base images.
pub(super) struct Base<'a> {
    pub(super) insecure: bool,
    pub(super) progress: &'a Progress,
}

impl Base<'_> {
    /// Gets the documents of an image.
    pub(super) fn image(
        &self,
        lease: &Lease,
        reference: &Reference,
        platform: &Platform,
        cancel: &Cancel,
    ) -> remote::Result<remote::Resolved> {
        let what = format!("[internal] load metadata for {reference}");
        self.with_client(reference, what, cancel, |client, sink| {
            client.resolve_image(lease, reference, platform, sink)
        })
    }

    /// Gets layers of an image, unpacked.
    pub(super) fn layers(
        &self,
        lease: &Lease,
        reference: &Reference,
        layers: &[(Descriptor, Option<DiffId>)],
        cancel: &Cancel,
    ) -> remote::Result<()> {
        let what = format!("[internal] pull {}", reference.familiar());
        self.with_client(reference, what, cancel, |client, sink| {
            client.fetch(lease, reference, layers, sink)
        })
    }

    /// Does something with a client; it stops when the build does.
    fn with_client<T>(
        &self,
        reference: &Reference,
        what: String,
        cancel: &Cancel,
        work: impl FnOnce(&Client, &remote::Sink<'_>) -> remote::Result<T>,
    ) -> remote::Result<T> {
        let client = Arc::new(client_for(reference, self.insecure));
        let canceller = Arc::clone(&client);
        let _guard = cancel.on_stop(move || canceller.cancel());
        let show = Show::start(self.progress, what);
        let result = work(&client, &|event| show.event(&event));
        show.end(result.as_ref().err().map(ToString::to_string));
        result
    }
}

fn fetch(
    client: &Client,
    lease: &Lease,
    reference: &Reference,
    options: &PullOptions,
    progress: &Progress,
) -> remote::Result<Descriptor> {
    let show = Show::start(progress, format!("[internal] pull {}", reference.familiar()));
    let result = client.pull(lease, reference, options, &|event| show.event(&event));
    show.end(result.as_ref().err().map(ToString::to_string));
    Ok(result?.descriptor)
}

/// Shows a transfer as one step with a line per blob.
pub(super) struct Show<P> {
    progress: P,
    step: usize,
    started: std::time::Instant,
    sizes: Mutex<BTreeMap<Digest, u64>>,
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
