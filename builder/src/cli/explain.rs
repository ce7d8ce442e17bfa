//! `rbuild explain`: why the steps of the last build ran. `rbuild logs`: what they said.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use oci::Platform;

use super::progress::seconds;
use super::{environment, table};
use crate::solve::{Builds, Change, Known, Last, Outcome};

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Lines for people
    Table,
    /// JSON
    Json,
}

/// Which build is meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// Dockerfile of the build [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Stage that was built [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Platform that was built for [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Directory that was built from
    #[arg(default_value = ".")]
    context: PathBuf,
}

/// Show why each step of the last build was run or reused
///
/// For every step that ran: which file, which argument, which base image was different from
/// the build before.
#[derive(Debug, clap::Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    which: Which,
    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Also print the whole output of the steps
    #[arg(long)]
    logs: bool,
}

/// Print the whole output of the steps of the last build
#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    #[command(flatten)]
    which: Which,
    /// Only this step, counted as `rbuild explain` shows them
    #[arg(long, value_name = "NUMBER")]
    step: Option<usize>,
}

/// The last build, and where its logs are.
struct Found {
    builds: Builds,
    title: String,
    last: Last,
    age_seconds: u64,
}

impl Which {
    fn find(&self, context: &super::Context) -> anyhow::Result<Found> {
        let directory = fs::canonicalize(&self.context)
            .with_context(|| format!("cannot use {}", self.context.display()))?;
        let file = self.file.clone().unwrap_or_else(|| directory.join("Dockerfile"));
        let file = fs::canonicalize(&file)
            .with_context(|| format!("failed to read dockerfile {}", file.display()))?;
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let target = self.target.clone().unwrap_or_default();
        let identity = format!("{}\n{}\n{target}\n{platform}", directory.display(), file.display());
        let store = context.store()?;
        let builds = Builds::new(store.root().path());
        let Some(last) = builds.last(&identity) else {
            bail!("{} was not built with {} here", directory.display(), file.display());
        };
        let time = builds.last_time(&identity).unwrap_or_else(environment::now);
        let age_seconds = environment::now().duration_since(time).unwrap_or_default().as_secs();
        Ok(Found { builds, title: directory.display().to_string(), last, age_seconds })
    }
}

pub(super) fn explain(args: &ExplainArgs, context: &super::Context) -> anyhow::Result<()> {
    let found = args.which.find(context)?;
    let mut out = io::stdout().lock();
    if args.format == Format::Json {
        serde_json::to_writer_pretty(&mut out, &found.json())?;
        writeln!(out)?;
        return Ok(());
    }
    let colour = environment::variable("NO_COLOR").is_none() && io::stdout().is_terminal();
    found.write(&mut out, colour)?;
    if args.logs {
        found.write_logs(&mut out, None)?;
    }
    Ok(())
}

pub(super) fn logs(args: &LogsArgs, context: &super::Context) -> anyhow::Result<()> {
    let found = args.which.find(context)?;
    if let Some(step) = args.step
        && !(1..=found.last.steps.len()).contains(&step)
    {
        bail!("there is no step {step}: the build has {}", found.last.steps.len());
    }
    found.write_logs(&mut io::stdout().lock(), args.step)
}

impl Found {
    fn json(&self) -> serde_json::Value {
        let steps: Vec<serde_json::Value> = self
            .last
            .steps
            .iter()
            .map(|known| {
                let mut step = serde_json::to_value(&known.outcome).unwrap_or_default();
                step["name"] = known.name.clone().into();
                step["key"] = known.key.to_string().into();
                let log = self.builds.log(&known.key);
                step["log"] = log.exists().then(|| log.display().to_string()).into();
                step
            })
            .collect();
        serde_json::json!({ "context": self.title, "bases": self.last.bases, "steps": steps })
    }

    fn write(&self, out: &mut dyn Write, colour: bool) -> io::Result<()> {
        let steps = &self.last.steps;
        let reused = steps.iter().filter(|known| known.outcome == Outcome::Reused).count();
        let is_run =
            |known: &&Known| matches!(known.outcome, Outcome::Ran { .. } | Outcome::Failed { .. });
        let run = steps.iter().filter(is_run).count();
        let ago = table::ago(self.age_seconds);
        writeln!(out, "{}: {reused} steps reused, {run} run; built {ago}\n", self.title)?;
        let paint = |code: &str, word: &str| match colour {
            true => format!("\x1b[{code}m{word:<7}\x1b[0m"),
            false => format!("{word:<7}"),
        };
        let width = steps.iter().map(|known| known.name.chars().count()).max().unwrap_or(0).min(72);
        let mut stage = None;
        for (number, known) in (1..).zip(steps) {
            if stage != Some(known.stage) {
                stage = Some(known.stage);
                self.write_base(out, known.stage)?;
            }
            let name = &known.name;
            let (word, changes, took) = match &known.outcome {
                Outcome::Reused => (paint("32", "reused"), &[][..], String::new()),
                Outcome::NotReached => (paint("2", "-"), &[][..], "not reached".to_owned()),
                Outcome::Failed { changes } => (paint("31", "failed"), &changes[..], String::new()),
                Outcome::Ran { changes, ms } => {
                    (paint("33", "ran"), &changes[..], seconds(Duration::from_millis(*ms)))
                }
            };
            let gap = width.saturating_sub(name.chars().count()) + 2;
            let line = format!("{number:>3}  {word}  {name}{:gap$}{took}", "");
            writeln!(out, "{}", line.trim_end())?;
            for change in changes {
                writeln!(out, "              {}", self.change(known, change))?;
            }
        }
        Ok(())
    }

    fn write_base(&self, out: &mut dyn Write, stage: usize) -> io::Result<()> {
        let Some(base) = self.last.bases.iter().find(|base| base.stage == stage) else {
            return Ok(());
        };
        writeln!(out, "              {}  {}", base.name, base.digest.short())?;
        if let Some(before) = &base.before {
            writeln!(
                out,
                "              the image changed: {} → {}",
                before.short(),
                base.digest.short()
            )?;
        }
        Ok(())
    }

    /// Returns a change in words.
    fn change(&self, known: &Known, change: &Change) -> String {
        let value = |value: &Option<String>| match value {
            Some(value) => format!("{value:?}"),
            None => "unset".to_owned(),
        };
        match change {
            Change::FirstBuild => "first build".to_owned(),
            Change::NoCache => "--no-cache".to_owned(),
            Change::NewInstruction => "new instruction".to_owned(),
            Change::Instruction { before, now } if before == now => {
                "instruction changed".to_owned()
            }
            Change::Instruction { before, .. } => format!("instruction changed, it was: {before}"),
            Change::Setting { name, before, now } | Change::Variable { name, before, now } => {
                match before == now {
                    // Hidden, or different further on.
                    true => format!("{name} changed"),
                    false => format!("{name} changed: {} → {}", value(before), value(now)),
                }
            }
            Change::File { path, how } => format!("{} {how}", path.display()),
            Change::More { count } => format!("and {count} more"),
            Change::Base => self.base_change(known),
            Change::FailedBefore => "it did not finish the last time".to_owned(),
            Change::ResultGone => "its result was removed".to_owned(),
        }
    }

    /// Says what made the files different that a step builds on.
    fn base_change(&self, known: &Known) -> String {
        let below = |other: &&Known| {
            other.stage == known.stage
                && other.step < known.step
                && matches!(other.outcome, Outcome::Ran { .. })
        };
        if let Some(other) = self.last.steps.iter().rev().find(below) {
            return format!("what it builds on changed: {}", other.name);
        }
        let base = self.last.bases.iter().find(|base| base.stage == known.stage);
        match base.filter(|base| base.before.is_some()) {
            Some(base) => format!("its base image changed: {}", base.name),
            None => "what it builds on changed".to_owned(),
        }
    }

    /// Copies logs, byte for byte.
    fn write_logs(&self, out: &mut dyn Write, only: Option<usize>) -> anyhow::Result<()> {
        for (number, known) in (1..).zip(&self.last.steps) {
            if only.is_some_and(|only| only != number) {
                continue;
            }
            let path = self.builds.log(&known.key);
            match File::open(&path) {
                Ok(mut log) => {
                    if only.is_none() {
                        writeln!(out, "\n== {number}  {}", known.name)?;
                    }
                    io::copy(&mut log, out)?;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if only.is_some() {
                        bail!("{} has no log: it ran no process here, or was pruned", known.name);
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", path.display()));
                }
            }
        }
        Ok(())
    }
}
