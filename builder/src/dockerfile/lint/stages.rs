//! Rules that need no variables: casing, names, comments; and those of global ARGs.

use std::collections::{BTreeMap, BTreeSet};

use oci::Reference;

use super::{Input, Report, Rule};
use crate::dockerfile::ast::{Dockerfile, Kind, Node};
use crate::dockerfile::expand::Expander;
use crate::dockerfile::quote::quote;

/// Names that mean something else in `--from`.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// Checks instruction by instruction, in the order of the file.
pub(super) fn check_text(input: &Input<'_>, report: &mut Report) {
    let file = input.file;
    for global in &file.globals {
        report.with_comments(&global.node.comments, |report| {
            described_arg(&global.node, &global.kind, report);
        });
    }
    for stage in &file.stages {
        report.with_comments(&stage.node.comments, |report| {
            from_casing(&stage.node, report);
            if let Some(name) = stage.name() {
                described(&stage.node, "FROM", &[name], report);
            }
        });
        for instruction in &stage.instructions {
            let node = &instruction.node;
            report.with_comments(&node.comments, |report| match &instruction.kind {
                Kind::Maintainer(_) => {
                    let message = "Maintainer instruction is deprecated in favor of using label";
                    report.add(Rule::MaintainerDeprecated, node.span, message.to_owned());
                }
                kind => described_arg(node, kind, report),
            });
        }
    }
}

fn from_casing(node: &Node, report: &mut Report) {
    let [_, word, name] = node.args.as_slice() else { return };
    if *name != name.to_lowercase() {
        let message = format!("Stage name '{name}' should be lowercase");
        report.add(Rule::StageNameCasing, node.span, message);
    }
    let keyword = &node.keyword;
    // A keyword of mixed case has a rule of its own.
    let expected = if *keyword == keyword.to_lowercase() {
        word.to_lowercase()
    } else if *keyword == keyword.to_uppercase() {
        word.to_uppercase()
    } else {
        return;
    };
    if *word != expected {
        let message = format!("'{word}' and '{keyword}' keywords' casing do not match");
        report.add(Rule::FromAsCasing, node.span, message);
    }
}

fn described_arg(node: &Node, kind: &Kind, report: &mut Report) {
    if let Kind::Arg(declarations) = kind {
        let names: Vec<&str> = declarations.iter().map(|found| found.name.as_str()).collect();
        described(node, "ARG", &names, report);
    }
}

/// The comment right above should be `name description`.
fn described(node: &Node, instruction: &str, names: &[&str], report: &mut Report) {
    let Some(comment) = node.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let message =
        format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    report.add(Rule::InvalidDefinitionDescription, node.span, message);
}

/// Checks the names of stages.
pub(super) fn check_names(file: &Dockerfile, report: &mut Report) {
    let mut seen = BTreeSet::new();
    for stage in &file.stages {
        let Some(name) = stage.name() else { continue };
        let quoted = quote(name);
        if RESERVED.contains(&name) {
            let message =
                format!("Stage name should not use the same name as reserved stage {quoted}");
            report.add(Rule::ReservedStageName, stage.node.span, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {quoted}, stage names should be unique");
            report.add(Rule::DuplicateStageName, stage.node.span, message);
        }
    }
}

/// Checks that all keywords are of the case that most have; capitals win a tie.
pub(super) fn check_casing(file: &Dockerfile, report: &mut Report) {
    let nodes = || {
        file.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.node).chain(stage.instructions.iter().map(|found| &found.node))
        })
    };
    let count = |wanted: fn(&str) -> String| {
        nodes().filter(|node| node.keyword == wanted(&node.keyword)).count()
    };
    let (wanted, word): (fn(&str) -> String, _) =
        if count(str::to_lowercase) > count(str::to_uppercase) {
            (str::to_lowercase, "lowercase")
        } else {
            (str::to_uppercase, "uppercase")
        };
    for node in nodes() {
        if node.keyword != wanted(&node.keyword) {
            let message = format!(
                "Command '{}' should match the case of the command majority ({word})",
                node.keyword
            );
            report.add(Rule::ConsistentInstructionCasing, node.span, message);
        }
    }
}

/// Checks that base names are good when no `--build-arg` is given.
pub(super) fn check_defaults(input: &Input<'_>, report: &mut Report) {
    let Some(globals) = globals(input, &BTreeMap::new()) else { return };
    let expander = Expander::new(input.file.escape);
    for stage in &input.file.stages {
        let base = &stage.from.base;
        let Ok(name) = expander.word(base, &|name| globals.get(name).cloned()) else { return };
        if name.text.parse::<Reference>().is_err() {
            let message =
                format!("Default value for ARG {base} results in empty or invalid base image name");
            report.add(Rule::InvalidDefaultArgInFrom, stage.node.span, message);
        }
    }
}

/// Returns what FROM lines see; `None` if a default cannot be expanded, which
/// the build reports.
pub(super) fn globals(
    input: &Input<'_>,
    build_args: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let mut globals: BTreeMap<String, String> = input.predefined.iter().cloned().collect();
    let expander = Expander::new(input.file.escape);
    for instruction in &input.file.globals {
        let Kind::Arg(declarations) = &instruction.kind else { continue };
        for declaration in declarations {
            let value = match (build_args.get(&declaration.name), &declaration.default) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => {
                    expander.word(default, &|name| globals.get(name).cloned()).ok()?.text
                }
                (None, None) => continue,
            };
            globals.insert(declaration.name.clone(), value);
        }
    }
    Some(globals)
}
