//! `rrun volume`.

use std::io::{self, Write as _};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::engine::options::{Label, VolumeName};
use crate::engine::volume::VolumeConfig;
use crate::engine::{Engine, Error};

use super::inspect::each;
use super::stats::amount;
use super::table::{printable, write};
use super::template::write_rows;
use super::{Context, for_each, now};

/// Make, list and remove volumes
#[derive(Debug, clap::Subcommand)]
pub(super) enum VolumeCommand {
    Create(CreateArgs),
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    Inspect(InspectArgs),
    #[command(visible_alias = "remove")]
    Rm(RemoveArgs),
    Prune(PruneArgs),
}

/// Make a volume, and print its name
///
/// One that is there stays as it is.
#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Kind of volume; there is only local
    #[arg(short, long, default_value = "local", value_parser = ["local"])]
    driver: String,
    /// Label the volume (can be repeated)
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<Label>,
    /// Name; one is drawn otherwise
    volume: Option<VolumeName>,
}

/// List volumes
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
    /// Only those with dangling=true|false, driver=…, label=KEY[=VALUE] or name=… (can be repeated)
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print json, or a template such as '{{.Name}}'
    #[arg(long, value_name = "json|TEMPLATE", default_value = "table")]
    format: String,
}

/// Print everything known about volumes, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Print json on one line, or a template such as '{{.Mountpoint}}'
    #[arg(short, long, value_name = "json|TEMPLATE")]
    format: Option<String>,
    /// Volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Remove volumes that no container has, and what is in them
///
/// A container that does not run has its volumes, too.
#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    /// A volume that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Volumes
    #[arg(required = true)]
    volumes: Vec<String>,
}

/// Remove volumes without a name that no container has
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also those with a name
    #[arg(short, long)]
    all: bool,
    /// Only those with label=KEY[=VALUE], or without: label!=… (can be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Do not ask, which is never done
    #[arg(short, long)]
    force: bool,
}

/// One `key=value` that a volume is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Dangling(bool),
    Driver(String),
    Name(String),
    Label { key: String, value: Option<String>, has: bool },
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("\"{text}\" is not KEY=VALUE"))?;
        let label = |has| {
            let (key, value) = match value.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (value, None),
            };
            Self::Label { key: key.to_owned(), value, has }
        };
        match (key, value) {
            ("dangling", "true" | "1") => Ok(Self::Dangling(true)),
            ("dangling", "false" | "0") => Ok(Self::Dangling(false)),
            ("dangling", _) => Err(format!("\"{value}\" is neither true nor false")),
            ("driver", _) => Ok(Self::Driver(value.to_owned())),
            ("name", _) => Ok(Self::Name(value.to_owned())),
            ("label", _) => Ok(label(true)),
            ("label!", _) => Ok(label(false)),
            _ => Err(format!("no filter \"{key}\"; there are dangling, driver, label, name")),
        }
    }
}

impl Filter {
    fn accepts(&self, volume: &VolumeConfig, is_used: bool) -> bool {
        match self {
            Self::Dangling(dangling) => *dangling != is_used,
            Self::Driver(driver) => driver == "local",
            Self::Name(part) => volume.name.as_str().contains(part),
            Self::Label { key, value, has } => {
                let found = volume.labels.get(key);
                *has == found.is_some_and(|it| value.as_ref().is_none_or(|value| value == it))
            }
        }
    }
}

pub(super) fn run(command: VolumeCommand, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    match command {
        VolumeCommand::Create(args) => create(args, &engine),
        VolumeCommand::Ls(args) => list(&args, &engine),
        VolumeCommand::Inspect(args) => inspect(&args, &engine),
        VolumeCommand::Rm(args) => remove(&args, &engine),
        VolumeCommand::Prune(args) => prune(&args, &engine),
    }
}

fn create(args: CreateArgs, engine: &Engine) -> anyhow::Result<u8> {
    let labels = args.label.into_iter().map(|label| (label.key, label.value)).collect();
    let volume = engine.volumes().create(args.volume, labels, now())?;
    writeln!(io::stdout(), "{}", volume.name)?;
    Ok(0)
}

/// Returns the volumes that pass every filter.
fn selected(engine: &Engine, filters: &[Filter]) -> anyhow::Result<Vec<VolumeConfig>> {
    let users = engine.volumes().users()?;
    let mut volumes = engine.volumes().list()?;
    volumes.retain(|volume| {
        filters.iter().all(|filter| filter.accepts(volume, users.contains_key(&volume.name)))
    });
    Ok(volumes)
}

fn list(args: &ListArgs, engine: &Engine) -> anyhow::Result<u8> {
    let volumes = selected(engine, &args.filter)?;
    let mut out = io::stdout().lock();
    if args.quiet {
        for volume in &volumes {
            writeln!(out, "{}", volume.name)?;
        }
        return Ok(0);
    }
    if args.format == "table" {
        let mut table = vec![["DRIVER", "VOLUME NAME"].map(str::to_owned).to_vec()];
        table.extend(volumes.iter().map(|it| vec!["local".to_owned(), it.name.to_string()]));
        write(&mut out, &table)?;
        return Ok(0);
    }
    let rows: Vec<Value> = volumes.iter().map(|volume| row(engine, volume)).collect();
    write_rows(&mut out, &args.format, &rows)?;
    Ok(0)
}

/// Returns a volume's fields in a list by docker's names.
fn row(engine: &Engine, volume: &VolumeConfig) -> Value {
    let labels: Vec<_> =
        volume.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Name": volume.name.to_string(),
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": engine.volumes().data(&volume.name),
        "Labels": printable(&labels.join(",")),
    })
}

fn inspect(args: &InspectArgs, engine: &Engine) -> anyhow::Result<u8> {
    each(&args.volumes, args.format.as_deref(), |name| {
        let volume = engine.volumes().find(name)?;
        Ok(json!({
            "CreatedAt": volume.created.to_string(),
            "Driver": "local",
            "Labels": volume.labels,
            "Mountpoint": engine.volumes().data(&volume.name),
            "Name": volume.name.to_string(),
            "Options": null,
            "Scope": "local",
        }))
    })
}

fn remove(args: &RemoveArgs, engine: &Engine) -> anyhow::Result<u8> {
    for_each(&args.volumes, |name| {
        let volume = match engine.volumes().find(name) {
            Err(Error::VolumeUnknown { .. }) if args.force => return Ok(()),
            found => found?,
        };
        engine.volumes().remove(&volume)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

fn prune(args: &PruneArgs, engine: &Engine) -> anyhow::Result<u8> {
    engine.volumes().sweep()?;
    let users = engine.volumes().users()?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in selected(engine, &args.filter)? {
        if users.contains_key(&volume.name) || !(args.all || volume.is_anonymous()) {
            continue;
        }
        let size = engine.volumes().size_bytes(&volume.name)?;
        match engine.volumes().remove(&volume) {
            Ok(()) => removed.push(volume.name),
            // A container has just been made that has it.
            Err(Error::VolumeInUse { .. }) => continue,
            Err(error) => return Err(error.into()),
        }
        bytes += size;
    }
    let mut out = io::stdout().lock();
    if !removed.is_empty() {
        writeln!(out, "Deleted Volumes:")?;
        for name in &removed {
            writeln!(out, "{name}")?;
        }
        writeln!(out)?;
    }
    writeln!(out, "Total reclaimed space: {}", amount(bytes))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::engine::timestamp::Timestamp;
    use crate::engine::volume::VERSION;

    #[test]
    fn filters_select_by_use_name_and_label() {
        let volume = VolumeConfig {
            version: VERSION,
            name: "web-data".parse().unwrap(),
            created: Timestamp::default(),
            labels: [("tier".to_owned(), "db".to_owned())].into(),
        };
        for (text, is_used, expected) in [
            ("dangling=true", false, true),
            ("dangling=1", true, false),
            ("dangling=false", true, true),
            ("driver=local", false, true),
            ("driver=nfs", false, false),
            ("name=b-d", false, true),
            ("name=other", false, false),
            ("label=tier", false, true),
            ("label=tier=db", false, true),
            ("label=tier=web", false, false),
            ("label!=tier=web", false, true),
            ("label!=tier", false, false),
            ("label!=other", false, true),
        ] {
            let filter: Filter = text.parse().unwrap();
            assert_eq!(filter.accepts(&volume, is_used), expected, "{text}");
        }
        for (text, words) in [
            ("size=3", "no filter \"size\"; there are dangling, driver, label, name"),
            ("dangling=maybe", "\"maybe\" is neither true nor false"),
            ("name", "\"name\" is not KEY=VALUE"),
        ] {
            assert_eq!(text.parse::<Filter>(), Err(words.to_owned()));
        }
    }
}
