//! Compares our programs with other people's, A B A B in one run, and prints medians and ratios.
//!
//! ```text
//! bench [start|build|files|compress|memory|registry|scale]…  [--json FILE] [--markdown FILE]
//! bench instructions BASELINE [--keep]
//! ```
//!
//! Run it as root with `make bench`, which installs the peers and builds the programs. Every
//! figure is of this run: the page cache is warm, "cold" means without a build cache, memory is
//! the peak of RssAnon of our processes, access logs are off on both sides.
#![forbid(unsafe_code)]

mod build;
mod compress;
mod files;
mod hot;
mod instructions;
mod measure;
mod memory;
mod registry;
mod report;
mod scale;
mod server;
mod start;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use report::Report;

type Part = fn(&mut Report) -> Result<()>;

/// What can be measured, in the order in which it is.
const PARTS: &[(&str, Part)] = &[
    ("start", start::run),
    ("build", build::run),
    ("files", files::run),
    ("compress", compress::run),
    ("memory", memory::run),
    ("registry", registry::run),
    ("scale", scale::run),
];

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut parts, mut json, mut markdown) = (Vec::new(), None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json = arguments.next().map(PathBuf::from),
            "--markdown" => markdown = arguments.next().map(PathBuf::from),
            // Started by the part `start` inside a mount namespace of its own.
            "start-inside" => return start::inside(),
            "instructions" => {
                let baseline = arguments.next().context("name the file of the last counts")?;
                let is_kept = arguments.next().is_some_and(|argument| argument == "--keep");
                return instructions::run(baseline.as_ref(), is_kept);
            }
            // Started by `instructions` under valgrind.
            "hot" => {
                let (name, rounds) = (arguments.next(), arguments.next());
                return hot::run(&name.unwrap_or_default(), &rounds.unwrap_or_default());
            }
            part if PARTS.iter().any(|(name, _)| *name == part) => parts.push(argument),
            other => {
                let names: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
                bail!("unknown part {other}: there are {}", names.join(", "))
            }
        }
    }
    let mut report = Report::default();
    for (name, part) in PARTS {
        if parts.is_empty() || parts.iter().any(|wanted| wanted == name) {
            part(&mut report)?;
        }
    }
    report.finish(json.as_deref(), markdown.as_deref())
}
