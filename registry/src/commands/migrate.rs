//! `rregistry migrate`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use oci::Repository;

use super::{Job, count, human};
use crate::content::Registry;
use crate::maintenance::{MigrateReport, migrate};
use crate::storage::Storage;
use crate::storage_args::StorageArgs;

/// Import the images of another registry, or of an OCI layout
///
/// Everything is checked by its digest on the way. What is there already is passed over, so an
/// import that was cut short can be run again. The exit code is 1 where something could not be
/// brought in.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// The storage folder of distribution (docker-registry), or an OCI layout
    #[arg(value_name = "FROM")]
    from: PathBuf,

    /// Where the images of an OCI layout go
    #[arg(long, value_name = "NAME")]
    repository: Option<Repository>,

    /// Accept manifests whose layers or children are not there
    #[arg(long, env = "RREGISTRY_ALLOW_MISSING")]
    pub(super) allow_missing: bool,

    #[command(flatten)]
    pub(super) storage: StorageArgs,
}

impl Job for MigrateArgs {
    async fn run<S: Storage>(
        self,
        registry: Registry<S>,
        out: &mut (dyn Write + Send + Sync),
    ) -> anyhow::Result<ExitCode> {
        let mut written = Ok(());
        let report = migrate(&registry, &self.from, self.repository.as_ref(), &mut |line| {
            if written.is_ok() {
                written = writeln!(out, "{line}");
            }
        })
        .await
        .with_context(|| format!("cannot import {}", self.from.display()))?;
        written?;
        writeln!(out, "{}", summary(&report))?;
        Ok(if report.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn summary(report: &MigrateReport) -> String {
    let repositories = match report.repositories {
        1 => "1 repository".to_owned(),
        number => format!("{number} repositories"),
    };
    format!(
        "imported {}, {} and {} ({}) from {repositories}; {} shared, {} there already, {} left alone: {}",
        count(report.manifests, "manifest"),
        count(report.tags, "tag"),
        count(report.blobs.count, "blob"),
        human(report.blobs.bytes),
        count(report.shared, "blob"),
        report.present,
        count(report.kept_tags, "tag"),
        match report.problems {
            0 => "all is well".to_owned(),
            problems => count(problems, "problem"),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::Tally;

    #[test]
    fn the_summary_counts_what_came() {
        let report = MigrateReport {
            repositories: 1,
            manifests: 2,
            tags: 3,
            blobs: Tally { count: 4, bytes: 5000 },
            shared: 1,
            present: 6,
            kept_tags: 0,
            problems: 0,
        };
        assert_eq!(
            summary(&report),
            "imported 2 manifests, 3 tags and 4 blobs (5.0 kB) from 1 repository; \
             1 blob shared, 6 there already, 0 tags left alone: all is well"
        );
    }
}
