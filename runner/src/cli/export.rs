//! `rrun export`.

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::engine::containers::Container;
use crate::engine::{Engine, Error};

use super::table::printable;
use super::{Context, report};

/// Write the files of a container as a tar
///
/// The container may run or not. What is in volumes and other mounts is not
/// part of it.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Write to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Container, by name or id
    container: String,
}

pub(super) fn run(args: &ExportArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    match &args.output {
        Some(path) => to_file(&engine, &container, path)?,
        None if io::stdout().is_terminal() => bail!(
            "an archive would only confuse the terminal: use -o FILE, or redirect standard output"
        ),
        None => write(&engine, &container, &mut io::stdout().lock())?,
    }
    Ok(0)
}

/// Writes a file that is whole when it has its name. What is there and is no
/// file, such as a pipe, is written to as it is.
fn to_file(engine: &Engine, container: &Container, path: &Path) -> anyhow::Result<()> {
    let what = || format!("cannot write {}", path.display());
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = File::options().write(true).open(path).with_context(what)?;
        return write(engine, container, &mut file);
    }
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut temporary = tempfile::NamedTempFile::new_in(directory).with_context(what)?;
    write(engine, container, temporary.as_file_mut())?;
    temporary.persist(path).map_err(|error| error.error).with_context(what)?;
    Ok(())
}

fn write(engine: &Engine, container: &Container, output: &mut dyn Write) -> anyhow::Result<()> {
    let mut output = BufWriter::new(output);
    let cut_off = match engine.export(container, &mut output) {
        // The reader has what it wants.
        Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            return Err(source.into());
        }
        exported => exported?,
    };
    output.flush()?;
    let warnings = cut_off.iter().map(|path| {
        let path = printable(&path.to_string_lossy());
        format!("{path} was cut off while it was read: zeros stand for what is missing")
    });
    report::warn(&warnings.collect::<Vec<_>>());
    Ok(())
}
