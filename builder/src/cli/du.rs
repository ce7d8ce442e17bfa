//! `rbuild du`.

use std::io::Write as _;

use store::UsageKind;

use super::explain::Format;
use super::progress::human_size;
use super::table;

/// Show what takes the space of the store
///
/// Each file is counted once, whatever shares it; the total is what `du -sb` says.
#[derive(Debug, clap::Args)]
pub(super) struct DuArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    format: Format,
}

pub(super) fn run(args: &DuArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let usage = store.usage()?;
    let total: u64 = usage.values().map(|sum| sum.bytes).sum();
    let mut out = std::io::stdout().lock();
    if args.format == Format::Json {
        let kinds: serde_json::Map<String, serde_json::Value> = usage
            .iter()
            .map(|(kind, sum)| {
                let value = serde_json::json!({ "files": sum.files, "bytes": sum.bytes });
                (kind.name().to_owned(), value)
            })
            .collect();
        let root = store.root().path().display().to_string();
        let value = serde_json::json!({ "root": root, "total": total, "types": kinds });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(());
    }
    let row = |name: &str, files: usize, bytes: u64| {
        vec![name.to_owned(), files.to_string(), human_size(bytes)]
    };
    let mut rows = vec![["TYPE", "FILES", "SIZE"].map(str::to_owned).to_vec()];
    let mut files = 0;
    for (kind, sum) in &usage {
        files += sum.files;
        if sum.files > 0 || *kind == UsageKind::Other {
            rows.push(row(kind.name(), sum.files, sum.bytes));
        }
    }
    // Directories that hold nothing are a few kilobytes: they are in the total only.
    rows.push(row("total", files, total));
    table::write(&mut out, &rows)?;
    Ok(())
}
