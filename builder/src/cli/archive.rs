//! `rbuild save` and `rbuild load`: images as files.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use store::ImageEntry;

use super::place::directory_of;
use super::progress::{Mode, Progress};
use super::pull::complete;
use super::registry::RegistryArgs;

/// Write images to a tar file
///
/// The file is an OCI image layout that docker's `load` reads as well.
#[derive(Debug, clap::Args)]
pub(super) struct SaveArgs {
    /// File to write [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Names or IDs of images
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) fn save(args: &SaveArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let mut images = Vec::new();
    let progress = Progress::start(Mode::Quiet);
    for name in &args.images {
        let found = store.images().find(name)?;
        lease.pin(&found.descriptor.digest)?;
        complete(&lease, &args.registry, &found.descriptor, &progress)?;
        images.push(ImageEntry { reference: found.reference, descriptor: found.descriptor });
    }
    match &args.output {
        Some(path) => {
            // Nobody finds half an archive under this name.
            let mut file = tempfile::NamedTempFile::new_in(directory_of(path))
                .with_context(|| format!("cannot write {}", path.display()))?;
            lease.save(&images, BufWriter::new(&mut file))?;
            file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None if std::io::stdout().is_terminal() => {
            bail!("an archive does not belong on a terminal: use --output or a pipe");
        }
        None => lease.save(&images, std::io::stdout().lock())?,
    }
    Ok(())
}

/// Read images from a tar file
///
/// Takes what `rbuild save`, `docker save` and `skopeo copy … oci-archive:` write.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    /// File to read [default: stdin]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print image IDs only
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn load(args: &LoadArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let loaded = match &args.input {
        Some(path) => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            lease.load(file).with_context(|| format!("cannot load {}", path.display()))?
        }
        None => lease.load(std::io::stdin())?,
    };
    let mut out = std::io::stdout().lock();
    for image in loaded {
        let id = image.image_id.unwrap_or(image.descriptor.digest);
        if args.quiet {
            writeln!(out, "{id}")?;
            continue;
        }
        for reference in &image.references {
            writeln!(out, "Loaded image: {}", reference.familiar())?;
        }
        if image.references.is_empty() {
            writeln!(out, "Loaded image ID: {id}")?;
        }
    }
    Ok(())
}
