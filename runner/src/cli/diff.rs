//! `rrun diff`.

use std::io::{self, Write as _};

use crate::engine::diff::Change;

use super::Context;
use super::table::printable;

/// List what a container has changed in its image's files
///
/// A is what it has added, C what it has changed, D what it has deleted.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// Container, by name or id
    container: String,
}

pub(super) fn run(args: &DiffArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let changes = engine.diff(&engine.containers().find(&args.container)?)?;
    let mut out = io::stdout().lock();
    for (path, change) in &changes {
        let letter = match change {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        };
        writeln!(out, "{letter} {}", printable(&path.to_string_lossy()))?;
    }
    Ok(0)
}
