//! `rbuild history`.

use std::io::Write as _;

use serde_json::{Value, json};
use store::Image;

use super::inspect::Look;
use super::progress::human_size;
use super::template::Format;
use super::{environment, images, table};

/// How much of an instruction is shown where there is no --no-trunc, as in docker.
const SHORT: usize = 45;

/// Show how an image was made, step by step
///
/// Sizes are those of the layers as they are stored, compressed or not.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    look: Look,
    /// Print whole instructions and IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print image IDs only
    #[arg(short, long)]
    quiet: bool,
    /// Print sizes and times for people
    #[arg(
        short = 'H',
        long,
        value_name = "true|false",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true,
        action = clap::ArgAction::Set
    )]
    human: bool,
    /// How to print: table, json, or a template such as {{.CreatedBy}}
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    format: Format,
    /// Name or ID of the image
    image: String,
}

pub(super) fn run(args: &HistoryArgs, context: &super::Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let image = args.look.image(&store.lease()?, &args.image)?.image;
    let lines = lines(&image, args);
    let mut out = std::io::stdout().lock();
    if args.quiet {
        for line in &lines {
            writeln!(out, "{}", text(&line["ID"]))?;
        }
        return Ok(());
    }
    match &args.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &lines)?;
            writeln!(out)?;
        }
        Format::Template(template) => {
            for line in &lines {
                writeln!(out, "{}", template.fill(line)?)?;
            }
        }
        Format::Table => {
            let heading = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            let created = if args.human { "CreatedSince" } else { "CreatedAt" };
            let fields = ["ID", created, "CreatedBy", "Size", "Comment"];
            rows.extend(lines.iter().map(|line| fields.map(|name| text(&line[name])).to_vec()));
            table::write(&mut out, &rows)?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the entries, the last first. Only the last one has an ID: images of the steps before
/// it are not kept.
fn lines(image: &Image, args: &HistoryArgs) -> Vec<Value> {
    let mut sizes = image.manifest.layers.iter().map(|layer| layer.size);
    let history = &image.config.history;
    let mut lines = Vec::with_capacity(history.len());
    for entry in history {
        let size = if entry.empty_layer { 0 } else { sizes.next().unwrap_or(0) };
        let created = entry.created.clone().unwrap_or_default();
        let by = printable(entry.created_by.as_deref().unwrap_or_default());
        let by = if args.no_trunc { by } else { shortened(&by) };
        lines.push(json!({
            "ID": "<missing>",
            "CreatedAt": created,
            "CreatedSince": images::age(&created, environment::now()),
            "CreatedBy": by,
            "Size": if args.human { human_size(size) } else { size.to_string() },
            "Comment": printable(entry.comment.as_deref().unwrap_or_default()),
        }));
    }
    lines.reverse();
    if let Some(last) = lines.first_mut() {
        let id = image.config_digest;
        last["ID"] = if args.no_trunc { id.to_string() } else { id.short() }.into();
    }
    lines
}

/// An instruction is anybody's text, and the terminal is ours.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn shortened(text: &str) -> String {
    match text.chars().count() > SHORT {
        true => text.chars().take(SHORT - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_cut_where_docker_cuts_them() {
        assert_eq!(shortened(&"x".repeat(45)), "x".repeat(45));
        assert_eq!(shortened(&"é".repeat(46)), format!("{}…", "é".repeat(44)));
        assert_eq!(printable("RUN a\t\x1b[2Jb\nc"), "RUN a  [2Jb c");
    }
}
