//! `SOURCE_DATE_EPOCH`: the latest time that an image tells.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::super::environment;
use super::inputs::Inputs;
use crate::plan::Options;

/// The variable and build argument, as <https://reproducible-builds.org/specs/source-date-epoch/>
/// names it.
const NAME: &str = "SOURCE_DATE_EPOCH";

/// Returns the latest time in new layers and configs, in seconds since 1970.
///
/// A build argument wins over the environment, whose value becomes one, as with docker.
/// `reproducible` asks for 1970 where neither is given.
pub(super) fn clamp(
    options: &mut Options,
    reproducible: bool,
    inputs: &Inputs,
) -> anyhow::Result<Option<i64>> {
    let given = options.build_args.get(NAME).cloned().filter(|value| !value.is_empty());
    let seconds = match given.or_else(|| environment::variable(NAME)) {
        None if reproducible => return Ok(Some(0)),
        None => return Ok(None),
        Some(text) if text == "context" => match (inputs.time, inputs.directory()) {
            (Some(time), _) => time,
            (None, Some(directory)) => commit_time(directory)?,
            (None, None) => bail!("{NAME}=context: this build context does not say its time"),
        },
        Some(text) => {
            text.parse().with_context(|| format!("{NAME}={text} is not a number of seconds"))?
        }
    };
    options.build_args.insert(NAME.to_owned(), seconds.to_string());
    Ok(Some(seconds))
}

/// Returns when the commit was made that a directory is a working tree of.
fn commit_time(directory: &Path) -> anyhow::Result<i64> {
    let asked = || format!("{NAME}=context asks for the commit of {}", directory.display());
    // Plumbing, which obeys nothing that a repository's own configuration says to run.
    let commit = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["--no-replace-objects", "cat-file", "commit", "HEAD"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{}: git cannot be run", asked()))?;
    if !commit.status.success() {
        bail!("{}: {}", asked(), String::from_utf8_lossy(&commit.stderr).trim());
    }
    committed(&String::from_utf8_lossy(&commit.stdout))
        .with_context(|| format!("{}, which has no time", asked()))
}

/// Reads the time of `committer NAME <ADDRESS> SECONDS ZONE`.
fn committed(commit: &str) -> Option<i64> {
    let header = commit.lines().take_while(|line| !line.is_empty());
    let line = header.into_iter().find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::committed;

    #[test]
    fn the_time_of_a_commit_is_its_committers() {
        let commit = "tree 4b825dc\nauthor A <a@b> 1 +0000\ncommitter B C <b@c> 1700000000 -0130\n\n\
                      committer x <y> 5 +0000\n";
        assert_eq!(committed(commit), Some(1_700_000_000));
        assert_eq!(committed("tree 4b825dc\n\ncommitter x <y> 5 +0000\n"), None);
    }
}
