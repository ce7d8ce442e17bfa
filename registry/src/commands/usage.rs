//! `rregistry usage`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Job, count, human};
use crate::content::Registry;
use crate::maintenance::{Usage, usage};
use crate::storage::Storage;
use crate::storage_args::StorageArgs;

/// Show what each repository holds, what it shares, and what sharing saves
#[derive(Debug, Args)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    pub(super) storage: StorageArgs,

    /// How to show it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Aligned columns, sizes for people
    Table,
    /// One JSON object, sizes in bytes
    Json,
}

impl Job for UsageArgs {
    async fn run<S: Storage>(
        self,
        registry: Registry<S>,
        out: &mut (dyn Write + Send + Sync),
    ) -> anyhow::Result<ExitCode> {
        let usage = usage(&registry).await.context("cannot account for the storage")?;
        match self.format {
            Format::Table => write!(out, "{}", table(&usage))?,
            Format::Json => writeln!(out, "{:#}", document(&usage))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(usage: &Usage) -> String {
    let head = ["REPOSITORY", "TAGS", "MANIFESTS", "BLOBS", "SIZE", "SHARED", "ALONE"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(usage.repositories.iter().map(|(name, held)| {
        [
            name.clone(),
            held.tags.to_string(),
            held.manifests.to_string(),
            held.blobs.to_string(),
            human(held.bytes),
            human(held.shared_bytes),
            human(held.bytes - held.shared_bytes),
        ]
    }));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        text += &format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            text += &format!("  {cell:>width$}");
        }
        text.push('\n');
    }
    text += &format!(
        "{} with {} are stored for {} that repositories hold: sharing saves {}\n",
        count(usage.blobs, "blob"),
        human(usage.stored_bytes),
        human(usage.held_bytes),
        human(usage.saved_bytes()),
    );
    if usage.unowned_bytes > 0 {
        text +=
            &format!("no repository has {} of them: `gc` frees them\n", human(usage.unowned_bytes));
    }
    text
}

fn document(usage: &Usage) -> serde_json::Value {
    json!({
        "repositories": usage.repositories,
        "blobs": usage.blobs,
        "stored_bytes": usage.stored_bytes,
        "held_bytes": usage.held_bytes,
        "saved_bytes": usage.saved_bytes(),
        "unowned_bytes": usage.unowned_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::RepositoryUsage;

    #[test]
    fn columns_are_aligned() {
        let held = RepositoryUsage {
            tags: 12,
            manifests: 3,
            blobs: 7,
            bytes: 5_000_000,
            shared_bytes: 2_000_000,
        };
        let usage = Usage {
            repositories: [("team/app".to_owned(), held), ("b".to_owned(), held)].into(),
            blobs: 10,
            stored_bytes: 8_000_100,
            held_bytes: 10_000_000,
            unowned_bytes: 100,
        };
        let expected = "\
REPOSITORY  TAGS  MANIFESTS  BLOBS    SIZE  SHARED   ALONE
b             12          3      7  5.0 MB  2.0 MB  3.0 MB
team/app      12          3      7  5.0 MB  2.0 MB  3.0 MB
10 blobs with 8.0 MB are stored for 10.0 MB that repositories hold: sharing saves 2.0 MB
no repository has 100 B of them: `gc` frees them
";
        assert_eq!(table(&usage), expected);
    }
}
