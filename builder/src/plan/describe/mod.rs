//! What a Dockerfile offers whoever builds it: its targets, and the arguments, secrets and
//! agents of one of them. BuildKit's `targets` and `outline`.

mod text;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::graph::Options;
use super::outline::target_of;
use super::problem::error;
use crate::dockerfile::expand::ExpandError;
use crate::dockerfile::lint::{Location, encode};
use crate::dockerfile::{Code, Diagnostic, Dockerfile, Node, Span};
use walk::{Globals, needed, walk};

/// The stages of a file.
#[derive(Debug, Serialize)]
pub struct Targets {
    targets: Vec<Target>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Target {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: String,
    location: Location,
}

/// The parameters of one target.
#[derive(Debug, Serialize)]
pub struct Outline {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Mounted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Mounted>,
    sources: [String; 1],
}

#[derive(Debug, Serialize)]
struct Argument {
    name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: String,
    location: Location,
    #[serde(skip)]
    line: usize,
}

#[derive(Debug, Serialize)]
struct Mounted {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
    #[serde(skip)]
    line: usize,
}

/// Returns the stages of a file, the one that is built without `--target` marked.
#[must_use]
pub fn targets(file: &Dockerfile, text: &str) -> Targets {
    let last = file.stages.len().saturating_sub(1);
    let target = |(index, stage): (usize, &crate::dockerfile::Stage)| Target {
        name: stage.name().unwrap_or_default().to_owned(),
        default: index == last,
        description: described(&stage.node, stage.name().unwrap_or_default()),
        base: stage.from.base.clone(),
        platform: stage.from.platform.clone().unwrap_or_default(),
        location: location(stage.node.span),
    };
    let targets = file.stages.iter().enumerate().map(target).collect();
    Targets { targets, sources: [encode(text)] }
}

/// Returns what `--target` of `options` can be given: the arguments, secrets and agents of its
/// stage and of those that it needs. `env` is asked for the environment of base images.
///
/// # Errors
/// Returns the problem with the target, or with a word that cannot be expanded.
pub fn outline(
    file: &Dockerfile,
    text: &str,
    options: &Options,
    env: &dyn Fn(&str) -> Option<Vec<String>>,
) -> Result<Outline, Diagnostic> {
    let target = target_of(file, options.target.as_deref())?;
    let stage = &file.stages[target];
    let globals = Globals::new(file, options)?;
    let order = needed(file, target, &globals);
    let mut environments = BTreeMap::new();
    let mut offers = BTreeMap::new();
    // A stage stands behind those it needs.
    for index in order.iter().copied().collect::<BTreeSet<usize>>() {
        let (environment, offer) = walk(file, index, &globals, &environments, env)?;
        environments.insert(index, environment);
        offers.insert(index, offer);
    }
    let mut outline = Outline {
        name: stage.name().unwrap_or_default().to_owned(),
        description: described(&stage.node, stage.name().unwrap_or_default()),
        args: Vec::new(),
        secrets: Vec::new(),
        ssh: Vec::new(),
        sources: [encode(text)],
    };
    for index in order {
        let Some(offer) = offers.remove(&index) else { continue };
        for found in offer.args {
            if outline.args.iter().all(|known| known.name != found.name) {
                outline.args.push(found);
            }
        }
        for (from, to) in [(offer.secrets, &mut outline.secrets), (offer.ssh, &mut outline.ssh)] {
            for found in from {
                if to.iter().all(|known| known.name != found.name) {
                    to.push(found);
                }
            }
        }
    }
    outline.args.sort_by_key(|found| found.line);
    outline.secrets.sort_by_key(|found| found.line);
    outline.ssh.sort_by_key(|found| found.line);
    Ok(outline)
}

/// Returns what the comments above an instruction say about a name: the first that starts with it.
fn described(node: &Node, name: &str) -> String {
    let after = |comment: &String| {
        let rest = comment.strip_prefix(name)?.strip_prefix(' ')?;
        Some(rest.to_owned())
    };
    if name.is_empty() {
        String::new()
    } else {
        node.comments.iter().find_map(after).unwrap_or_default()
    }
}

fn location(span: Span) -> Location {
    Location::of_lines(span.line, span.end_line)
}

fn unexpanded(span: Span, reason: &ExpandError) -> Diagnostic {
    error(Code::BadExpansion, span, reason.to_string())
}
