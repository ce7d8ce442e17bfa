//! `rbuild inspect`.

use std::io::Write as _;

use oci::{Platform, Reference};
use serde_json::{Value, json};
use store::{Image, Store};

use super::images::Format;
use super::progress::human_size;
use super::table;

/// Show what an image is made of
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "json", value_name = "FORMAT")]
    format: Format,
    /// Names or IDs of images
    #[arg(required = true)]
    images: Vec<String>,
}

pub(super) fn run(args: &InspectArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let mut documents = Vec::new();
    let mut out = std::io::stdout().lock();
    for name in &args.images {
        let found = store.images().find(name)?;
        let image = store.image(&found.descriptor, &Platform::host())?;
        let names = names(&store, &image)?;
        match args.format {
            Format::Json => documents.push(document(&image, &names)?),
            Format::Table => describe(&mut out, &image, &names)?,
        }
    }
    if args.format == Format::Json {
        serde_json::to_writer_pretty(&mut out, &documents)?;
        writeln!(out)?;
    }
    Ok(())
}

/// Returns every name that leads to the image.
fn names(store: &Store, image: &Image) -> store::Result<Vec<Reference>> {
    let entries = store.images().list()?;
    let is_same = |entry: &store::ImageEntry| {
        entry.descriptor.digest == image.manifest_descriptor.digest
            || store
                .image(&entry.descriptor, &Platform::host())
                .is_ok_and(|other| other.config_digest == image.config_digest)
    };
    Ok(entries.into_iter().filter(is_same).filter_map(|entry| entry.reference).collect())
}

fn document(image: &Image, names: &[Reference]) -> anyhow::Result<Value> {
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
    let digests = names.iter().map(|name| name.without_tag_at(&digest));
    Ok(json!({
        "Id": image.config_digest.to_string(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "RepoDigests": digests.collect::<Vec<_>>(),
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
        "History": serde_json::to_value(&config.history)?,
    }))
}

/// Names as `docker inspect` lists them under RepoDigests.
trait WithoutTag {
    fn without_tag_at(&self, digest: &oci::Digest) -> String;
}

impl WithoutTag for Reference {
    fn without_tag_at(&self, digest: &oci::Digest) -> String {
        let familiar = self.familiar();
        let name = familiar.split('@').next().unwrap_or_default();
        let tag = self.tag().map_or_else(String::new, |tag| format!(":{tag}"));
        format!("{}@{digest}", name.strip_suffix(&tag).unwrap_or(name))
    }
}

fn describe(
    out: &mut dyn std::io::Write,
    image: &Image,
    names: &[Reference],
) -> anyhow::Result<()> {
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
