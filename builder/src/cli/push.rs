//! `rbuild push`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oci::{Compression, Descriptor, Digest, Platform, Reference};
use store::Store;
use store::remote::{self, PushOptions};

use super::progress::{Mode, Progress};
use super::registry::{RegistryArgs, by_digest};
use super::transfer::Show;

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
    /// Push all tags of the repository IMAGE
    #[arg(short, long, conflicts_with_all = ["remote", "by_digest"])]
    all_tags: bool,
    /// Leave the tag alone: the image gets its digest for a name only
    #[arg(long)]
    by_digest: bool,
    /// Image of an index to push, where not all of them are here [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Push what refers to the image as well, such as signatures
    #[arg(long)]
    referrers: bool,
    /// How layers that are not compressed yet are compressed
    #[arg(long, value_enum, default_value = "gzip", value_name = "FORMAT")]
    compression_format: Codec,
    /// Level of compression [default: the format's]
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<u32>,
    /// Compress layers again that are compressed in another format
    #[arg(long)]
    force_compression: bool,
    /// Write the digest of what was pushed to this file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    progress: Mode,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Codec {
    /// Not at all
    None,
    /// gzip, which every client reads
    Gzip,
    /// Zstandard
    Zstd,
}

pub(super) fn run(args: &PushArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let images = args.images(&store)?;
    let client = args.registry.client(&images.iter().map(|(_, name)| name).collect::<Vec<_>>());
    let progress = Progress::start(if args.quiet { Mode::Quiet } else { args.progress });
    let options = args.options();
    let push = |(image, to): &(Descriptor, Reference)| {
        lease.pin(&image.digest)?;
        let result = Show::run(&progress, format!("push {}", to.familiar()), |sink| {
            client.push(&lease, image, to, &options, sink)
        });
        let pushed = result.with_context(|| format!("cannot push {}", to.familiar()))?;
        anyhow::Ok((to.clone(), pushed.digest))
    };
    let pushed: anyhow::Result<Vec<_>> = images.iter().map(push).collect();
    progress.finish();
    let pushed = pushed?;
    for (to, digest) in &pushed {
        let name = match args.by_digest {
            true => by_digest(to, digest),
            false => to.with_digest(*digest).to_string(),
        };
        writeln!(std::io::stdout(), "{name}")?;
    }
    match pushed.last() {
        Some((_, digest)) => write_digest(args.digestfile.as_deref(), digest),
        None => Ok(()),
    }
}

impl PushArgs {
    fn options(&self) -> PushOptions {
        PushOptions {
            platform: self.platform.clone().unwrap_or_else(Platform::host),
            compression: match self.compression_format {
                Codec::None => Compression::None,
                Codec::Gzip => Compression::Gzip,
                Codec::Zstd => Compression::Zstd,
            },
            level: self.compression_level,
            force_compression: self.force_compression,
            by_digest: self.by_digest,
            referrers: self.referrers,
        }
    }

    /// Returns the images to push with the names that they get.
    fn images(&self, store: &Store) -> anyhow::Result<Vec<(Descriptor, Reference)>> {
        if self.all_tags {
            return self.tags(store);
        }
        let found = store.images().find(&self.image)?;
        let to = match (&self.remote, found.reference) {
            (Some(remote), _) => remote.clone(),
            (None, Some(name)) => name,
            (None, None) => bail!("say where to push {} to", self.image),
        };
        Ok(vec![(found.descriptor, to)])
    }

    /// Returns all images of a repository.
    fn tags(&self, store: &Store) -> anyhow::Result<Vec<(Descriptor, Reference)>> {
        let repository: Reference = self.image.parse()?;
        let last = self.image.rsplit('/').next().unwrap_or_default();
        if last.contains([':', '@']) {
            bail!("--all-tags goes with a repository, without a tag");
        }
        let is_ours = |name: &Reference| {
            (name.registry(), name.repository()) == (repository.registry(), repository.repository())
                && name.tag().is_some_and(|tag| !remote::is_referrers_tag(tag))
        };
        let images: Vec<_> = store
            .images()
            .list()?
            .into_iter()
            .filter_map(|entry| Some((entry.descriptor, entry.reference?)))
            .filter(|(_, name)| is_ours(name))
            .collect();
        if images.is_empty() {
            bail!("there is no image of the repository {}", self.image);
        }
        Ok(images)
    }
}

/// Writes a digest to the file that the user wants it in.
pub(super) fn write_digest(file: Option<&Path>, digest: &Digest) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    std::fs::write(path, digest.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}
