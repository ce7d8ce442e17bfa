//! The commands: `serve`, those that do one thing to a storage and end, and those
//! about files beside it.

mod config;
mod gc;
mod migrate;
mod serve;
mod usage;
mod user;
mod verify;

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;

use crate::content::{Clock, Options, Registry};
use crate::maintenance::MigrateError;
use crate::storage::{Local, Storage};
use crate::storage_args::{self, Place, StorageArgs};

pub(crate) use config::ConfigArgs;
use gc::PeriodicGcArgs;
pub(crate) use serve::ServeArgs;
pub(crate) use user::UserArgs;

/// What can be done to a storage.
#[derive(Debug, Subcommand)]
pub(crate) enum Maintenance {
    Gc(gc::GcArgs),
    Verify(verify::VerifyArgs),
    Usage(usage::UsageArgs),
    Migrate(migrate::MigrateArgs),
}

impl Maintenance {
    /// Runs the command.
    pub(crate) async fn run(self, clock: Clock) -> anyhow::Result<ExitCode> {
        match self {
            Self::Gc(arguments) => {
                let target = Target::existing(&arguments.storage, clock);
                target.apply(arguments).await
            }
            Self::Verify(arguments) => {
                let target = Target::existing(&arguments.storage, clock);
                target.apply(arguments).await
            }
            Self::Usage(arguments) => {
                let target = Target::existing(&arguments.storage, clock);
                target.apply(arguments).await
            }
            Self::Migrate(arguments) => {
                let target = Target {
                    is_new: true,
                    allow_missing: arguments.allow_missing,
                    ..Target::existing(&arguments.storage, clock)
                };
                target.apply(arguments).await
            }
        }
    }
}

/// Returns what the user can do about an error of these commands.
pub(crate) fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.chain().find_map(|cause| cause.downcast_ref::<MigrateError>())? {
        MigrateError::NoRepository { .. } => Some("say where its images go with --repository"),
        MigrateError::Unknown { .. } | MigrateError::Source { .. } | MigrateError::Content(_) => {
            None
        }
    }
}

/// Says something to whoever is at the terminal.
#[expect(clippy::print_stderr, reason = "the command line talks here")]
pub(crate) fn say(message: impl Display) {
    eprintln!("{message}");
}

/// Returns bytes that nobody can guess.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    use std::io::Read as _;
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes)
}

/// Something to be done to a storage of either kind.
trait Job {
    /// Does it; `out` is for results.
    async fn run<S: Storage>(
        self,
        registry: Registry<S>,
        out: &mut (dyn Write + Send + Sync),
    ) -> anyhow::Result<ExitCode>;
}

/// What a job is done to.
struct Target {
    storage: StorageArgs,
    /// Whether the storage may be made.
    is_new: bool,
    allow_missing: bool,
    clock: Clock,
}

impl Target {
    fn existing(storage: &StorageArgs, clock: Clock) -> Self {
        Self { storage: storage.clone(), is_new: false, allow_missing: false, clock }
    }

    async fn apply(self, job: impl Job) -> anyhow::Result<ExitCode> {
        let out = &mut std::io::stdout();
        let options = Options { allow_missing: self.allow_missing, ..Options::default() };
        match self.storage.place(std::env::vars())? {
            Place::Directory(root) => {
                if !self.is_new {
                    require_storage(&root)?;
                }
                let storage = Local::open(&root)
                    .with_context(|| format!("cannot use {} as storage", root.display()))?;
                job.run(Registry::new(storage, options, self.clock)?, out).await
            }
            Place::Bucket(place) => {
                let storage = storage_args::open_bucket(place).await?;
                job.run(Registry::new(storage, options, self.clock)?, out).await
            }
        }
    }
}

/// Refuses to make a new storage where somebody means one that is there.
fn require_storage(root: &Path) -> anyhow::Result<()> {
    match root.join("version").exists() {
        true => Ok(()),
        false => bail!("there is no storage in {}", root.display()),
    }
}

/// Reads a length of time: a number and `s`, `m`, `h` or `d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and a unit, like 90s, 30m, 24h or 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Returns a number of bytes as people read it.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // Tenths, in whole numbers: nothing is rounded twice.
    let (mut tenths, mut unit) = (bytes / 100, 0);
    while tenths >= 10_000 {
        tenths /= 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Returns a number with its noun.
fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("30m", 1800), ("24h", 86400), ("7d", 604_800)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "s", "24", "-1h", "1.5h", "1w", "1é", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (12_345_678_901, "12.3 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
