//! `rregistry gc`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{Job, count, human, parse_duration};
use crate::content::Registry;
use crate::maintenance::{GcOptions, GcReport, Removal, collect};
use crate::storage::Storage;
use crate::storage_args::StorageArgs;

/// Free what no manifest needs
///
/// Runs while registries serve the same storage and clients push to them. Blobs go that no
/// manifest of a repository needs, and what crashed or abandoned uploads have left.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(super) storage: StorageArgs,

    /// Say what would go, and why; remove nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove manifests too that no tag names, that no index lists, and that are no referrers of a
    /// manifest that stays
    #[arg(long)]
    untagged: bool,

    /// Keep what is younger; shorter than two hours only while nobody pushes
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    grace: Duration,

    /// Name everything that goes
    #[arg(long, short)]
    verbose: bool,
}

impl Job for GcArgs {
    async fn run<S: Storage>(
        self,
        registry: Registry<S>,
        out: &mut (dyn Write + Send + Sync),
    ) -> anyhow::Result<ExitCode> {
        let Self { dry_run, untagged, grace, .. } = self;
        let options = GcOptions { grace, untagged, dry_run };
        let mut written = Ok(());
        let report = collect(&registry, &options, &mut |removal| {
            if (dry_run || self.verbose) && written.is_ok() {
                written = explain(out, removal, dry_run);
            }
        })
        .await
        .context("cannot collect what nobody needs")?;
        written?;
        writeln!(out, "{}", summary(&report, dry_run))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(out: &mut dyn Write, removal: &Removal, dry_run: bool) -> std::io::Result<()> {
    let verb = if dry_run { "would remove" } else { "removed" };
    match removal {
        Removal::Manifest { repository, digest, bytes } => writeln!(
            out,
            "{verb} manifest {repository}@{digest} ({}): no tag names it, no index lists it, and it refers to nothing that is there",
            human(*bytes)
        ),
        Removal::Share { repository, digest } => writeln!(
            out,
            "{verb} share of {repository} in {digest}: none of its manifests needs the blob"
        ),
        Removal::Blob { digest, bytes } => {
            writeln!(out, "{verb} blob {digest} ({}): no repository has it", human(*bytes))
        }
    }
}

fn summary(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would free" } else { "freed" };
    format!(
        "{verb} {}: {} ({}), {} ({}), {} ({}); {}, {}, {}",
        human(report.bytes()),
        count(report.manifests.count, "manifest"),
        human(report.manifests.bytes),
        count(report.blobs.count, "blob"),
        human(report.blobs.bytes),
        count(report.strays.count, "stray segment"),
        human(report.strays.bytes),
        count(report.shares, "share"),
        count(report.records, "stale record"),
        count(report.uploads, "abandoned upload"),
    )
}

/// Collection within `serve`.
#[derive(Debug, Args)]
pub(crate) struct PeriodicGcArgs {
    /// How often to free what no manifest needs, like 6h; never where it is not given
    #[arg(
        long,
        value_name = "TIME",
        env = "RREGISTRY_GC_INTERVAL",
        value_parser = parse_duration
    )]
    gc_interval: Option<Duration>,

    /// Keep what is younger; at least two hours
    #[arg(
        long,
        value_name = "TIME",
        env = "RREGISTRY_GC_GRACE",
        default_value = "24h",
        value_parser = parse_grace
    )]
    gc_grace: Duration,

    /// Remove untagged manifests too, as `gc --untagged` does
    #[arg(long, env = "RREGISTRY_GC_UNTAGGED")]
    gc_untagged: bool,
}

/// Below this, something that a client was just told of might go.
const MIN_GRACE: Duration = Duration::from_secs(2 * 3600);

fn parse_grace(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        short if short < MIN_GRACE => Err("clients need at least two hours, 2h".to_owned()),
        grace => Ok(grace),
    }
}

impl PeriodicGcArgs {
    /// Collects again and again, if that is wanted, as long as the program runs.
    pub(super) fn start<S: Storage>(&self, registry: &Arc<Registry<S>>) {
        let Some(interval) = self.gc_interval.filter(|interval| !interval.is_zero()) else {
            return;
        };
        let options =
            GcOptions { grace: self.gc_grace, untagged: self.gc_untagged, dry_run: false };
        let registry = Arc::clone(registry);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                match collect(&registry, &options, &mut |_| ()).await {
                    Ok(report) => tracing::info!("{}", summary(&report, false)),
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(error, "cannot collect what nobody needs");
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::Tally;

    #[test]
    fn the_summary_counts_what_went() {
        let report = GcReport {
            manifests: Tally { count: 1, bytes: 500 },
            blobs: Tally { count: 2, bytes: 3_000_000 },
            shares: 3,
            ..GcReport::default()
        };
        assert_eq!(
            summary(&report, true),
            "would free 3.0 MB: 1 manifest (500 B), 2 blobs (3.0 MB), 0 stray segments (0 B); \
             3 shares, 0 stale records, 0 abandoned uploads"
        );
        assert!(summary(&report, false).starts_with("freed 3.0 MB: "));
    }

    #[test]
    fn a_server_keeps_what_clients_were_just_told_of() {
        assert!(parse_grace("1h").is_err());
        assert_eq!(parse_grace("2h"), Ok(MIN_GRACE));
    }
}
