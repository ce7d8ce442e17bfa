//! `rbuild inspect`: images of the store, or of a registry without pulling them.

use std::io::Write as _;

use anyhow::Context as _;
use oci::{Descriptor, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, Platform, Reference};
use serde_json::{Value, json};
use store::{Image, Lease, Store};

use super::progress::human_size;
use super::registry::{RegistryArgs, by_digest};
use super::table;
use super::template::Format;

/// Where to look, and for which platform.
#[derive(Debug, clap::Args)]
pub(super) struct Look {
    /// Look at the image in its registry, without pulling it
    #[arg(long)]
    remote: bool,
    /// Platform of the image, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// What was looked at.
pub(super) struct Looked {
    pub(super) image: Image,
    /// The names that lead to it.
    pub(super) names: Vec<Reference>,
    /// The config, byte for byte.
    pub(super) config: Vec<u8>,
}

impl Look {
    /// Finds an image and its config.
    pub(super) fn image(&self, lease: &Lease, name: &str) -> anyhow::Result<Looked> {
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        if self.remote {
            let reference: Reference = name.parse()?;
            let client = self.registry.client(&[&reference]);
            let (image, config) = client
                .look_into(lease, &reference, &platform, &|_| {})
                .with_context(|| format!("cannot inspect {}", reference.familiar()))?;
            return Ok(Looked { image, names: vec![reference], config });
        }
        let store = lease.store();
        let found = store.images().find(name)?;
        lease.pin(&found.descriptor.digest)?;
        let image = self.of_platform(store, &found.descriptor)?;
        let config = store.blobs().read(&image.config_digest, MAX_CONFIG_BYTES as u64)?;
        Ok(Looked { names: names(store, &image, &platform)?, image, config })
    }

    /// Returns the image for the platform asked for; without any, a single image is what it is.
    fn of_platform(&self, store: &Store, descriptor: &Descriptor) -> anyhow::Result<Image> {
        if let Some(platform) = &self.platform {
            return Ok(store.image(descriptor, platform)?);
        }
        match store.image(descriptor, &Platform::host()) {
            Err(store::Error::PlatformUnavailable { available, .. })
                if descriptor.media_type.is_manifest() =>
            {
                Ok(store.image(descriptor, &available.parse()?)?)
            }
            found => Ok(found?),
        }
    }

    /// Finds the manifest or index that a name leads to, byte for byte; of an index, with a platform
    /// named, the image's manifest.
    fn document(&self, lease: &Lease, name: &str) -> anyhow::Result<Vec<u8>> {
        let store = lease.store();
        if self.remote {
            let reference: Reference = name.parse()?;
            let client = self.registry.client(&[&reference]);
            let context = || format!("cannot inspect {}", reference.familiar());
            let Some(platform) = &self.platform else {
                return Ok(client.look_up(lease, &reference, &|_| {}).with_context(context)?.bytes);
            };
            let (image, _) =
                client.look_into(lease, &reference, platform, &|_| {}).with_context(context)?;
            let exact = reference.with_digest(image.manifest_descriptor.digest);
            return Ok(client.look_up(lease, &exact, &|_| {}).with_context(context)?.bytes);
        }
        let found = store.images().find(name)?;
        lease.pin(&found.descriptor.digest)?;
        let descriptor = match &self.platform {
            Some(platform) => store.image(&found.descriptor, platform)?.manifest_descriptor,
            None => found.descriptor,
        };
        Ok(store.blobs().read(&descriptor.digest, MAX_MANIFEST_BYTES as u64)?)
    }

    /// Lists what refers to the image.
    fn referrers(&self, lease: &Lease, name: &str) -> anyhow::Result<Vec<Descriptor>> {
        if self.remote {
            let reference: Reference = name.parse()?;
            let client = self.registry.client(&[&reference]);
            return client
                .referrers(lease, &reference, &|_| {})
                .with_context(|| format!("cannot list what refers to {}", reference.familiar()));
        }
        let found = lease.store().images().find(name)?;
        Ok(lease.store().referrers(&found.descriptor.digest)?)
    }
}

/// Show what an image is made of
///
/// Images are looked for in the store, and with --remote in their registry.
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    look: Look,
    /// Print the manifest or index as it is, to the byte
    #[arg(long, conflicts_with_all = ["config", "format"])]
    raw: bool,
    /// Print the image config as it is, to the byte
    #[arg(long, conflicts_with = "format")]
    config: bool,
    /// List what refers to the image as well, such as signatures
    #[arg(long, conflicts_with_all = ["raw", "config"])]
    referrers: bool,
    /// How to print: json, table, or a template such as {{.Config.Env}}
    #[arg(short, long, default_value = "json", value_name = "FORMAT")]
    format: Format,
    /// Names or IDs of images
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) fn run(args: &InspectArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let lease = store.lease()?;
    let mut documents = Vec::new();
    let mut out = std::io::stdout().lock();
    for name in &args.images {
        if args.raw {
            out.write_all(&args.look.document(&lease, name)?)?;
            continue;
        }
        let looked = args.look.image(&lease, name)?;
        if args.config {
            out.write_all(&looked.config)?;
            continue;
        }
        let mut value = document(&looked)?;
        if args.referrers {
            value["Referrers"] = serde_json::to_value(args.look.referrers(&lease, name)?)?;
        }
        match &args.format {
            Format::Json => documents.push(value),
            Format::Table => describe(&mut out, &looked)?,
            Format::Template(template) => writeln!(out, "{}", template.fill(&value)?)?,
        }
    }
    if args.format == Format::Json && !args.raw && !args.config {
        serde_json::to_writer_pretty(&mut out, &documents)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Returns every name that leads to the image.
fn names(store: &Store, image: &Image, platform: &Platform) -> store::Result<Vec<Reference>> {
    let entries = store.images().list()?;
    let is_same = |entry: &store::ImageEntry| {
        entry.descriptor.digest == image.manifest_descriptor.digest
            || store
                .image(&entry.descriptor, platform)
                .is_ok_and(|other| other.config_digest == image.config_digest)
    };
    Ok(entries.into_iter().filter(is_same).filter_map(|entry| entry.reference).collect())
}

fn document(looked: &Looked) -> anyhow::Result<Value> {
    let Looked { image, names, .. } = looked;
    let config = &image.config;
    let digest = image.manifest_descriptor.digest;
    let layers: Vec<Value> = image
        .manifest
        .layers
        .iter()
        .zip(image.diff_ids())
        .map(|(layer, diff_id)| {
            json!({
                "digest": layer.digest.to_string(),
                "size": layer.size,
                "mediaType": layer.media_type.as_str(),
                "diffId": diff_id.to_string(),
            })
        })
        .collect();
    let diff_ids: Vec<String> = image.diff_ids().iter().map(ToString::to_string).collect();
    let size: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
    Ok(json!({
        "Id": image.config_digest.to_string(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": names.iter().map(|name| by_digest(name, &digest)).collect::<Vec<_>>(),
        "Digest": digest.to_string(),
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant.clone().unwrap_or_default(),
        "Os": config.platform.os,
        "Size": size,
        "Config": serde_json::to_value(&config.config)?,
        "RootFS": { "Type": "layers", "Layers": diff_ids },
        "Layers": layers,
        "Annotations": image.manifest.annotations,
        "History": serde_json::to_value(&config.history)?,
    }))
}

fn describe(out: &mut dyn std::io::Write, looked: &Looked) -> anyhow::Result<()> {
    let Looked { image, names, .. } = looked;
    let size: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
    let names: Vec<String> = names.iter().map(Reference::familiar).collect();
    let facts = [
        ("name", names.join(", ")),
        ("digest", image.manifest_descriptor.digest.to_string()),
        ("image id", image.config_digest.to_string()),
        ("platform", image.config.platform.to_string()),
        ("created", image.config.created.clone().unwrap_or_default()),
        ("size", human_size(size)),
    ];
    let rows: Vec<Vec<String>> =
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    table::write(out, &rows)?;
    let mut made_by = image.config.history.iter().filter(|entry| !entry.empty_layer);
    let mut rows = vec![["LAYER", "SIZE", "CREATED BY"].map(str::to_owned).to_vec()];
    for layer in &image.manifest.layers {
        let by = made_by.next().and_then(|entry| entry.created_by.clone()).unwrap_or_default();
        let by: String = by.chars().filter(|c| !c.is_control()).take(60).collect();
        rows.push(vec![layer.digest.short(), human_size(layer.size), by]);
    }
    writeln!(out)?;
    table::write(out, &rows)?;
    Ok(())
}
