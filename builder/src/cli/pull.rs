//! `rbuild pull`, and what is left of images that were not pulled as a whole.

use std::io::Write as _;

use anyhow::Context as _;
use oci::{Descriptor, Platform, Reference};
use store::Lease;
use store::remote::{CopyOptions, PullOptions};

use super::progress::{Mode, Progress};
use super::registry::RegistryArgs;
use super::transfer::Show;

/// Fetch an image from a registry
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Image to fetch
    image: Reference,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Fetch the images of all platforms; they are unpacked when they are used
    #[arg(long, conflicts_with = "platform")]
    all_platforms: bool,
    /// Fetch what refers to the image as well, such as signatures
    #[arg(long)]
    referrers: bool,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,
}

pub(super) fn run(args: &PullArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let progress = Progress::start(if args.quiet { Mode::Quiet } else { args.progress });
    let client = args.registry.client(&[&args.image]);
    let name = format!("[internal] pull {}", args.image.familiar());
    let result = Show::run(&progress, name, |sink| {
        let referrers = args.referrers;
        if !args.all_platforms {
            let options = PullOptions { platform, referrers, ..PullOptions::default() };
            return Ok(client.pull(&lease, &args.image, &options, sink)?.descriptor);
        }
        let options = CopyOptions { platform: None, referrers };
        let taken = client.take(&lease, &args.image, &options, sink)?;
        store.images().set(&lease, &args.image, &taken)?;
        Ok(taken)
    });
    progress.finish();
    let descriptor = result.with_context(|| format!("cannot pull {}", args.image.familiar()))?;
    writeln!(std::io::stdout(), "{}", args.image.with_digest(descriptor.digest))?;
    Ok(())
}

/// Downloads the layers of an image that are still in the registries they came from.
pub(super) fn complete(
    lease: &Lease,
    registry: &RegistryArgs,
    image: &Descriptor,
    progress: &Progress,
) -> anyhow::Result<()> {
    let store = lease.store();
    let (mut queue, mut missing) = (vec![image.clone()], Vec::new());
    while let Some(next) = queue.pop() {
        // Of an index, some images are not here, and stay where they are.
        let Ok(document) = store.document(&next) else { continue };
        for blob in document.blobs() {
            if !store.blobs().contains(&blob.digest)? {
                missing.push((blob.clone(), store.origins(&blob.digest)?));
            }
        }
        queue.extend_from_slice(document.manifests());
    }
    missing.retain(|(_, origins)| !origins.is_empty());
    if missing.is_empty() {
        return Ok(());
    }
    let registries: Vec<&str> =
        missing.iter().flat_map(|(_, origins)| origins).map(Reference::registry).collect();
    let client = registry.client_of(&registries);
    let fetched = Show::run(progress, "pull missing layers".to_owned(), |sink| {
        missing.iter().try_for_each(|(blob, _)| client.fetch_blob(lease, blob, sink).map(drop))
    });
    fetched.context("cannot pull the layers that are not here yet")
}
