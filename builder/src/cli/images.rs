//! `rbuild images`.

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use oci::Platform;
use serde_json::{Value, json};
use store::{ImageEntry, Store};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::progress::human_size;
use super::registry::familiar_repository;
use super::template::Format;
use super::{environment, table};
use crate::ignore::glob;

/// List images
#[derive(Debug, clap::Args)]
pub(super) struct ImagesArgs {
    /// List the lists of what refers to images as well
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Only images that fit (can be repeated): dangling=BOOL, label=NAME[=VALUE], before=IMAGE,
    /// since=IMAGE, reference=PATTERN
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<Filter>,
    /// Print image IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print whole digests
    #[arg(long)]
    no_trunc: bool,
    /// How to print: table, json, or a template such as {{.Repository}}:{{.Tag}}
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Only images of this repository, or with exactly this name
    name: Option<String>,
}

/// What an image must be.
#[derive(Clone, Debug)]
enum Filter {
    Dangling(bool),
    Label(String, Option<String>),
    Before(String),
    Since(String),
    Reference(String),
}

impl std::str::FromStr for Filter {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((name, value)) = text.split_once('=') else {
            bail!("{text:?} is not NAME=VALUE");
        };
        let value = value.to_owned();
        Ok(match name {
            "dangling" => Self::Dangling(match value.as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => bail!("dangling is true or false, not {value:?}"),
            }),
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(value, None),
            },
            "before" => Self::Before(value),
            "since" => Self::Since(value),
            "reference" => {
                glob::matches(&value, "").map_err(|_| anyhow::anyhow!("bad pattern {value:?}"))?;
                Self::Reference(value)
            }
            _ => {
                bail!("there is no filter {name:?}, only dangling, label, before, since, reference")
            }
        })
    }
}

/// Whether a line stays in the list.
type Test<'a> = Box<dyn Fn(&Line) -> bool + 'a>;

/// One line of the list.
#[derive(Debug)]
struct Line {
    repository: String,
    tag: String,
    id: String,
    digest: String,
    created_at: String,
    size: u64,
    labels: std::collections::BTreeMap<String, String>,
    is_list_of_referrers: bool,
}

pub(super) fn run(args: &ImagesArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let mut lines: Vec<Line> =
        store.images().list()?.iter().map(|entry| line(&store, entry)).collect();
    lines.retain(|line| args.all || !line.is_list_of_referrers);
    if let Some(name) = &args.name {
        lines.retain(|line| line.repository == *name || line.name() == *name);
    }
    for filter in &args.filter {
        let fits = filter.test(&store)?;
        lines.retain(|line| fits(line));
    }
    // The newest first, as in docker.
    lines.sort_by(|a, b| {
        b.created_at.cmp(&a.created_at).then_with(|| a.repository.cmp(&b.repository))
    });
    print(args, &lines)
}

fn print(args: &ImagesArgs, lines: &[Line]) -> anyhow::Result<()> {
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
    match &args.format {
        Format::Json => {
            let values: Vec<Value> = lines.iter().map(Line::json).collect();
            serde_json::to_writer_pretty(&mut out, &values)?;
            writeln!(out)?;
        }
        Format::Template(template) => {
            for line in lines {
                let mut value = line.json();
                value["ID"] = short(&line.id).into();
                value["Size"] = human_size(line.size).into();
                value["CreatedSince"] = age(&line.created_at, environment::now()).into();
                writeln!(out, "{}", template.fill(&value)?)?;
            }
        }
        Format::Table => {
            let digest = args.digests.then_some("DIGEST");
            let heading = ["REPOSITORY", "TAG"].into_iter().chain(digest);
            let heading = heading.chain(["IMAGE ID", "CREATED", "SIZE"]).map(str::to_owned);
            let mut rows = vec![heading.collect::<Vec<_>>()];
            rows.extend(lines.iter().map(|line| {
                let digest = args.digests.then(|| line.digest.clone());
                let created = age(&line.created_at, environment::now());
                let name = [line.repository.clone(), line.tag.clone()].into_iter().chain(digest);
                name.chain([short(&line.id), created, human_size(line.size)]).collect()
            }));
            table::write(&mut out, &rows)?;
        }
    }
    Ok(())
}

impl Filter {
    /// Returns the test of a line.
    fn test(&self, store: &Store) -> anyhow::Result<Test<'_>> {
        let created = |name: &str| -> anyhow::Result<Option<OffsetDateTime>> {
            let found = store.images().find(name)?;
            let image = store.image(&found.descriptor, &Platform::host())?;
            let time = image.config.created.with_context(|| format!("{name} has no time"))?;
            Ok(time_of(&time))
        };
        Ok(match self {
            Self::Dangling(wanted) => Box::new(|line| (line.tag == "<none>") == *wanted),
            Self::Label(name, wanted) => Box::new(move |line| {
                line.labels
                    .get(name)
                    .is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
            }),
            Self::Before(name) => {
                let limit = created(name)?;
                Box::new(move |line| time_of(&line.created_at) < limit)
            }
            Self::Since(name) => {
                let limit = created(name)?;
                Box::new(move |line| time_of(&line.created_at) > limit)
            }
            Self::Reference(pattern) => Box::new(move |line| {
                [line.repository.clone(), line.name()]
                    .iter()
                    .any(|name| glob::matches(pattern, name).unwrap_or(false))
            }),
        })
    }
}

impl Line {
    fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    fn json(&self) -> Value {
        json!({
            "Repository": self.repository,
            "Tag": self.tag,
            "ID": self.id,
            "Digest": self.digest,
            "CreatedAt": self.created_at,
            "Size": self.size,
            "Labels": self.labels,
        })
    }
}

fn line(store: &Store, entry: &ImageEntry) -> Line {
    let none = || "<none>".to_owned();
    let tag = entry.reference.as_ref().and_then(|name| name.tag());
    let repository = entry.reference.as_ref().map_or_else(none, familiar_repository);
    let digest = entry.descriptor.digest.to_string();
    let line = Line {
        repository,
        tag: tag.map_or_else(none, ToString::to_string),
        id: digest.clone(),
        digest,
        created_at: String::new(),
        size: entry.descriptor.size,
        labels: std::collections::BTreeMap::new(),
        is_list_of_referrers: tag.is_some_and(store::remote::is_referrers_tag),
    };
    match store.image(&entry.descriptor, &Platform::host()) {
        Ok(image) => Line {
            id: image.config_digest.to_string(),
            created_at: image.config.created.clone().unwrap_or_default(),
            size: image.manifest.layers.iter().map(|layer| layer.size).sum(),
            labels: image.config.config.labels,
            ..line
        },
        // An image for other platforms, or one that is not complete.
        Err(_) => line,
    }
}

fn time_of(created: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(created, &Rfc3339).ok()
}

/// Returns how long ago a time of an image config was.
pub(super) fn age(created: &str, now: SystemTime) -> String {
    let Some(created) = time_of(created) else { return "N/A".to_owned() };
    let passed = (OffsetDateTime::from(now) - created).whole_seconds();
    table::ago(u64::try_from(passed).unwrap_or(0))
}
