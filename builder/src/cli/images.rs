//! `rbuild images`.

use std::io::Write as _;
use std::time::SystemTime;

use oci::Platform;
use serde::Serialize;
use store::{ImageEntry, Store};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::environment;
use super::progress::human_size;
use super::table;

/// List images
#[derive(Debug, clap::Args)]
pub(super) struct ImagesArgs {
    /// Print image IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole digests
    #[arg(long)]
    no_trunc: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Only images of this repository, or with exactly this name
    name: Option<String>,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    Table,
    /// JSON
    Json,
}

/// One line of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    repository: String,
    tag: String,
    #[serde(rename = "ID")]
    id: String,
    digest: String,
    created_at: String,
    size: u64,
}

pub(super) fn run(args: &ImagesArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let mut lines: Vec<Line> =
        store.images().list()?.iter().map(|entry| line(&store, entry)).collect();
    if let Some(name) = &args.name {
        lines.retain(|line| {
            line.repository == *name || format!("{}:{}", line.repository, line.tag) == *name
        });
    }
    // The newest first, as in docker.
    lines.sort_by(|a, b| {
        b.created_at.cmp(&a.created_at).then_with(|| a.repository.cmp(&b.repository))
    });
    let mut out = std::io::stdout().lock();
    let short = |id: &str| {
        if args.no_trunc {
            id.to_owned()
        } else {
            id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
        }
    };
    if args.quiet {
        let mut ids: Vec<String> = lines.iter().map(|line| short(&line.id)).collect();
        ids.dedup();
        for id in ids {
            writeln!(out, "{id}")?;
        }
        return Ok(());
    }
    if args.format == Format::Json {
        serde_json::to_writer_pretty(&mut out, &lines)?;
        writeln!(out)?;
        return Ok(());
    }
    let heading = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(lines.into_iter().map(|line| {
        let id = short(&line.id);
        let created = age(&line.created_at, environment::now());
        vec![line.repository, line.tag, id, created, human_size(line.size)]
    }));
    table::write(&mut out, &rows)?;
    Ok(())
}

fn line(store: &Store, entry: &ImageEntry) -> Line {
    let none = || "<none>".to_owned();
    let (repository, tag) = match &entry.reference {
        Some(reference) => {
            let familiar = reference.familiar();
            let tag = reference.tag().map_or_else(none, ToString::to_string);
            let name = familiar.split('@').next().unwrap_or_default();
            let name = name.strip_suffix(&format!(":{tag}")).unwrap_or(name);
            (name.to_owned(), tag)
        }
        None => (none(), none()),
    };
    let digest = entry.descriptor.digest.to_string();
    match store.image(&entry.descriptor, &Platform::host()) {
        Ok(image) => Line {
            repository,
            tag,
            id: image.config_digest.to_string(),
            digest,
            created_at: image.config.created.clone().unwrap_or_default(),
            size: image.manifest.layers.iter().map(|layer| layer.size).sum(),
        },
        // An image for other platforms, or one that is not complete.
        Err(_) => Line {
            repository,
            tag,
            id: digest.clone(),
            digest,
            created_at: String::new(),
            size: entry.descriptor.size,
        },
    }
}

/// Returns how long ago a time of an image config was.
fn age(created: &str, now: SystemTime) -> String {
    let Ok(created) = OffsetDateTime::parse(created, &Rfc3339) else { return "N/A".to_owned() };
    let passed = (OffsetDateTime::from(now) - created).whole_seconds();
    table::ago(u64::try_from(passed).unwrap_or(0))
}
