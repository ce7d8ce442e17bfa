//! `rrun images`: a short form of `rbuild images`.

use std::io::{self, Write as _};

use serde_json::json;

use super::Context;
use super::table::write;

/// List the images that containers can be made from
#[derive(Debug, clap::Args)]
pub(super) struct ImagesArgs {
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Print json
    #[arg(long, value_name = "table|json", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

pub(super) fn run(args: &ImagesArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut out = io::stdout().lock();
    let mut table = vec![["REPOSITORY", "TAG", "IMAGE ID"].map(str::to_owned).to_vec()];
    for entry in engine.store().images().list()? {
        // What is only for other platforms has no id here.
        let id = engine.store().image_id(&entry.descriptor)?;
        let none = || "<none>".to_owned();
        let (repository, tag) = match &entry.reference {
            Some(reference) => {
                let familiar = reference.familiar();
                let repository = match familiar.rsplit_once(':') {
                    Some((repository, tag)) if !tag.contains('/') => repository.to_owned(),
                    _ => familiar,
                };
                (repository, reference.tag().map_or_else(none, ToString::to_string))
            }
            None => (none(), none()),
        };
        let short = id.as_ref().map_or_else(none, oci::Digest::short);
        if args.quiet {
            writeln!(out, "{short}")?;
        } else if args.format == "json" {
            let id = id.map(|id| id.to_string());
            writeln!(out, "{}", json!({"Repository": repository, "Tag": tag, "ID": id}))?;
        } else {
            table.push(vec![repository, tag, short]);
        }
    }
    if !args.quiet && args.format == "table" {
        write(&mut out, &table)?;
    }
    Ok(0)
}
