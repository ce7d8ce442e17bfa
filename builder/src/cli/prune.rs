//! `rbuild prune`.

use std::io::Write as _;

use store::{PruneImages, PruneOptions, PruneRecords};

use super::progress::human_size;
use crate::solve::Builds;

/// Remove what nothing uses
///
/// Images without a name, layers and blobs that nothing refers to, and what killed
/// programs have left. With --all also every image that no container uses and every build
/// record, so that the next build runs all of its steps.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Also remove unused images and all build records
    #[arg(short, long)]
    all: bool,
    /// Accepted for docker's sake: nothing is asked
    #[arg(short, long, hide = true)]
    force: bool,
}

pub(super) fn run(args: &PruneArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let options = if args.all {
        PruneOptions { records: PruneRecords::All, images: PruneImages::Unused }
    } else {
        PruneOptions { records: PruneRecords::Keep, images: PruneImages::Untagged }
    };
    let report = store.prune(&options)?;
    let freed = Builds::new(store.root().path()).prune(args.all)?;
    let mut out = std::io::stdout().lock();
    for image in &report.images {
        match &image.reference {
            Some(reference) => writeln!(out, "Untagged: {}", reference.familiar())?,
            None => writeln!(out, "Deleted: {}", image.descriptor.digest)?,
        }
    }
    if args.all {
        writeln!(out, "Removed {} build records", report.records)?;
    }
    writeln!(out, "Total reclaimed space: {}", human_size(report.garbage.bytes + freed))?;
    Ok(())
}
