//! Compares our programs with other people's, A B A B in one run, and prints medians and ratios.
//!
//! ```text
//! bench [start|build|registry]…  [--json FILE] [--markdown FILE]
//! ```
//!
//! Run it as root with `make bench`, which installs the peers and builds the programs. Every
//! figure is of this run: the page cache is warm, "cold" means without a build cache, memory is
//! the peak of RssAnon of our processes, access logs are off on both sides.
#![forbid(unsafe_code)]

mod build;
mod measure;
mod registry;
mod report;
mod start;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use report::Report;

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
            "start" | "build" | "registry" => parts.push(argument),
            other => bail!("unknown part {other}: it is start, build or registry"),
        }
    }
    if parts.is_empty() {
        parts.extend(["start", "build", "registry"].map(String::from));
    }
    let mut report = Report::default();
    for part in parts {
        match part.as_str() {
            "start" => start::run(&mut report)?,
            "build" => build::run(&mut report)?,
            _ => registry::run(&mut report)?,
        }
    }
    report.finish(json.as_deref(), markdown.as_deref())
}
