//! `rbuild debug`: the language, tried from outside. Hidden: for tests and for the curious.
//!
//! What is asked for goes to stdout; what is wrong to stderr, with exit status 1.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::environment::colour_wanted;
use super::progress::write_stderr;
use crate::dockerfile::{self, Expander};
use crate::ignore::Ignore;

/// A file larger than this is none of those that are read here.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Show how a Dockerfile is understood
#[derive(Debug, clap::Args)]
pub(super) struct DebugArgs {
    #[command(subcommand)]
    command: DebugCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DebugCommand {
    /// Print a parsed Dockerfile, one s-expression for each instruction
    Ast {
        /// Dockerfile, `-` for stdin
        file: PathBuf,
    },
    /// Print what a word means in an environment
    Expand(ExpandArgs),
    /// Print which paths an ignore file excludes, one on a line
    Ignored {
        /// Ignore file, `-` for stdin
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Paths relative to the context
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct ExpandArgs {
    /// Set a variable (can be repeated; the last of a name counts)
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Split the result into words, one on a line
    #[arg(long)]
    words: bool,
    /// The escape character
    #[arg(long, default_value = "\\", value_name = "CHARACTER")]
    escape: char,
    /// The word
    #[arg(allow_hyphen_values = true)]
    text: String,
}

pub(super) fn run(args: &DebugArgs) -> anyhow::Result<()> {
    let output = match &args.command {
        DebugCommand::Ast { file } => ast(file)?,
        DebugCommand::Expand(args) => expand(args)?,
        DebugCommand::Ignored { file, paths } => ignored(file, paths)?,
    };
    Ok(std::io::stdout().write_all(output.as_bytes())?)
}

fn ast(file: &Path) -> anyhow::Result<String> {
    let text = read(file)?;
    let dumped = dockerfile::dump(&text).map_err(|problems| {
        let name = file.display().to_string();
        let colour = colour_wanted();
        let rendered: String =
            problems.iter().map(|problem| problem.render(&name, &text, colour)).collect();
        write_stderr(&rendered);
        anyhow::anyhow!("{name} is not a Dockerfile")
    });
    dumped.map(|dumped| dumped + "\n")
}

fn expand(args: &ExpandArgs) -> anyhow::Result<String> {
    for variable in &args.env {
        if !variable.contains('=') {
            bail!("{variable} is not of the form NAME=VALUE");
        }
    }
    let lookup = |name: &str| {
        let mut pairs = args.env.iter().rev().filter_map(|variable| variable.split_once('='));
        pairs.find(|(set, _)| *set == name).map(|(_, value)| value.to_owned())
    };
    let expander = Expander::new(args.escape);
    if args.words {
        let words = expander.words(&args.text, &lookup)?;
        return Ok(words.into_iter().map(|word| word + "\n").collect());
    }
    Ok(expander.word(&args.text, &lookup)?.text + "\n")
}

fn ignored(file: &Path, paths: &[PathBuf]) -> anyhow::Result<String> {
    let ignore =
        Ignore::parse(&read(file)?).with_context(|| format!("cannot use {}", file.display()))?;
    let excluded = paths.iter().filter(|path| ignore.is_ignored(path));
    Ok(excluded.map(|path| format!("{}\n", path.display())).collect())
}

/// Reads a file, or stdin if it is called `-`. What is not UTF-8 is read as U+FFFD.
fn read(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)
    } else {
        fs::File::open(file).and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
    };
    let length = read.with_context(|| format!("cannot read {}", file.display()))?;
    if length as u64 > MAX_FILE_BYTES {
        bail!("{} is larger than {MAX_FILE_BYTES} bytes", file.display());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
