//! `rregistry verify`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{Job, count, human};
use crate::content::Registry;
use crate::maintenance::{Finding, VerifyOptions, VerifyReport, verify};
use crate::storage::Storage;
use crate::storage_args::StorageArgs;

/// Read everything that is stored, and say what is wrong
///
/// The exit code is 1 where something is wrong, or still is after a repair.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(super) storage: StorageArgs,

    /// Remove what is damaged, so that a push brings it back, and write again what can be derived
    #[arg(long)]
    repair: bool,

    /// Manifests may lack what they name, as under `serve --allow-missing`
    #[arg(long, env = "RREGISTRY_ALLOW_MISSING")]
    allow_missing: bool,
}

impl Job for VerifyArgs {
    async fn run<S: Storage>(
        self,
        registry: Registry<S>,
        out: &mut (dyn Write + Send + Sync),
    ) -> anyhow::Result<ExitCode> {
        let options = VerifyOptions { repair: self.repair, allow_missing: self.allow_missing };
        let mut written = Ok(());
        let report = verify(&registry, options, &mut |finding| {
            if written.is_ok() {
                written = show(out, finding);
            }
        })
        .await
        .context("cannot check the storage")?;
        written?;
        writeln!(out, "{}", summary(&report))?;
        Ok(match report.problems > report.solved {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}

fn show(out: &mut dyn Write, finding: &Finding) -> std::io::Result<()> {
    match finding.repair {
        Some(repair) => writeln!(out, "{} ({repair})", finding.problem),
        None => writeln!(out, "{}", finding.problem),
    }
}

fn summary(report: &VerifyReport) -> String {
    let checked = format!(
        "read {} ({}), {} and {}",
        count(report.blobs.count, "sound blob"),
        human(report.blobs.bytes),
        count(report.manifests, "manifest"),
        count(report.tags, "tag"),
    );
    match (report.problems, report.solved) {
        (0, _) => format!("{checked}: all is well"),
        (problems, 0) => format!("{checked}: {}", count(problems, "problem")),
        (problems, solved) => {
            format!("{checked}: {}, {solved} solved", count(problems, "problem"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::Tally;

    #[test]
    fn the_summary_says_whether_all_is_well() {
        let mut report = VerifyReport {
            blobs: Tally { count: 2, bytes: 3000 },
            manifests: 1,
            tags: 2,
            ..VerifyReport::default()
        };
        let checked = "read 2 sound blobs (3.0 kB), 1 manifest and 2 tags";
        assert_eq!(summary(&report), format!("{checked}: all is well"));
        report.problems = 3;
        assert_eq!(summary(&report), format!("{checked}: 3 problems"));
        report.solved = 1;
        assert_eq!(summary(&report), format!("{checked}: 3 problems, 1 solved"));
    }
}
