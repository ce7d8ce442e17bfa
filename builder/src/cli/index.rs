//! `rbuild index`: several images for several platforms under one name.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use oci::{Descriptor, Document, Index, MAX_MANIFEST_BYTES, MediaType, Platform, Reference};
use store::{Lease, Store};

/// Combine images for several platforms
#[derive(Debug, clap::Args)]
pub(super) struct IndexArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(CreateArgs),
    Annotate(AnnotateArgs),
    Inspect(InspectArgs),
}

/// Make an index of images
///
/// Each image is listed with the platform of its config; of an index, all images are taken over.
/// `rbuild push NAME` pushes all of it.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Annotate the index (can be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Add to the index that has the name already; images for the same platform are replaced
    #[arg(short, long)]
    append: bool,
    /// Name of the index
    name: Reference,
    /// Names or IDs of the images
    #[arg(required = true)]
    images: Vec<String>,
}

/// Change what an index says about an image
#[derive(Debug, clap::Args)]
struct AnnotateArgs {
    /// Annotate the image's entry, or the index itself where no image is given (can be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Operating system
    #[arg(long, requires = "image")]
    os: Option<String>,
    /// Architecture
    #[arg(long, requires = "image")]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, requires = "image")]
    variant: Option<String>,
    /// Name of the index
    name: Reference,
    /// Name, ID or digest of the image in it
    image: Option<String>,
}

/// Print an index
#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// Name of the index
    name: Reference,
}

pub(super) fn run(args: &IndexArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    match &args.command {
        Command::Create(args) => create(args, &lease),
        Command::Annotate(args) => annotate(args, &lease),
        Command::Inspect(args) => inspect(args, &store),
    }
}

fn pair(text: &str) -> anyhow::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => bail!("{text:?} is not NAME=VALUE"),
    }
}

fn create(args: &CreateArgs, lease: &Lease) -> anyhow::Result<()> {
    let store = lease.store();
    let mut index = match args.append {
        true => read(store, &args.name)?,
        false => Index::new(Vec::new()),
    };
    for name in &args.images {
        let found = store.images().find(name)?;
        lease.pin(&found.descriptor.digest)?;
        match store.document(&found.descriptor)? {
            Document::Index(listed) => {
                for entry in listed.manifests {
                    add(&mut index, entry, name)?;
                }
            }
            Document::Manifest(_) => add(&mut index, entry(store, &found.descriptor)?, name)?,
        }
    }
    index.annotations.extend(args.annotation.iter().cloned());
    write(lease, &args.name, &index)
}

/// Returns an image's entry in an index.
fn entry(store: &Store, image: &Descriptor) -> anyhow::Result<Descriptor> {
    let platform = match store.image(image, &Platform::host()) {
        Ok(image) => image.config.platform,
        Err(store::Error::PlatformUnavailable { available, .. }) => available.parse()?,
        Err(error) => return Err(error.into()),
    };
    let mut entry = Descriptor::new(image.media_type.clone(), image.digest, image.size);
    entry.platform = Some(platform);
    Ok(entry)
}

/// Adds an entry in place of one for the same platform.
fn add(index: &mut Index, entry: Descriptor, name: &str) -> anyhow::Result<()> {
    let is_same = |known: &Descriptor| {
        known.digest == entry.digest
            || known.platform.as_ref().is_some_and(|platform| {
                platform.os != "unknown" && Some(platform) == entry.platform.as_ref()
            })
    };
    if entry.platform.is_none() {
        bail!("{name} does not say which platform it is for");
    }
    match index.manifests.iter_mut().find(|known| is_same(known)) {
        Some(known) => *known = entry,
        None => index.manifests.push(entry),
    }
    Ok(())
}

fn annotate(args: &AnnotateArgs, lease: &Lease) -> anyhow::Result<()> {
    let store = lease.store();
    let mut index = read(store, &args.name)?;
    let Some(image) = &args.image else {
        index.annotations.extend(args.annotation.iter().cloned());
        return write(lease, &args.name, &index);
    };
    let digest = match image.parse() {
        Ok(digest) => digest,
        Err(_) => store.images().find(image)?.descriptor.digest,
    };
    let entry = index.manifests.iter_mut().find(|entry| entry.digest == digest);
    let entry = entry.with_context(|| format!("{} does not list {image}", args.name.familiar()))?;
    entry.annotations.extend(args.annotation.iter().cloned());
    let mut platform = entry.platform.clone().unwrap_or_else(|| Platform::new("", "", None));
    let set = |field: &mut String, value: &Option<String>| {
        if let Some(value) = value {
            field.clone_from(value);
        }
    };
    set(&mut platform.os, &args.os);
    set(&mut platform.architecture, &args.arch);
    if args.variant.is_some() {
        platform.variant.clone_from(&args.variant);
    }
    if platform.os.is_empty() != platform.architecture.is_empty() {
        bail!("a platform has an operating system and an architecture");
    }
    if !platform.os.is_empty() {
        entry.platform = Some(platform);
    }
    write(lease, &args.name, &index)
}

fn inspect(args: &InspectArgs, store: &Store) -> anyhow::Result<()> {
    let index = read(store, &args.name)?;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &index)?;
    writeln!(out)?;
    Ok(())
}

/// Reads the index that a name stands for.
fn read(store: &Store, name: &Reference) -> anyhow::Result<Index> {
    let found = store.images().find(&name.to_string())?;
    match store.document(&found.descriptor)? {
        Document::Index(index) => Ok(index),
        Document::Manifest(_) => bail!("{} is one image, not an index", name.familiar()),
    }
}

/// Stores an index and makes the name lead to it.
fn write(lease: &Lease, name: &Reference, index: &Index) -> anyhow::Result<()> {
    let bytes = index.to_bytes();
    if bytes.len() > MAX_MANIFEST_BYTES {
        bail!("the index would have {} bytes, which no registry takes", bytes.len());
    }
    let stored = lease.put(&bytes)?;
    let media_type = index.media_type.clone().unwrap_or(MediaType::OCI_INDEX);
    let descriptor = Descriptor::new(media_type, stored.digest, stored.size);
    lease.store().images().set(lease, name, &descriptor)?;
    writeln!(std::io::stdout(), "{}", stored.digest)?;
    Ok(())
}
