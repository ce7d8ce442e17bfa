//! `rbuild check`: what is allowed in a Dockerfile but seldom meant.
//!
//! The rules, their names and messages are BuildKit's 22 ([`Rule`]), so that
//! `# check=skip=…` of existing files means the same here. `options` reads
//! those, `stages` holds the rules about FROM lines and names, `walk` those
//! that follow variables through a stage.
//!
//! Pure: what base images say about themselves is asked of the caller.

mod options;
mod print;
mod rule;
mod stages;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use oci::{ImageConfig, Platform};

pub use options::{Options, OptionsError};
pub use print::{BuildError, Source, to_json, to_text};
pub(crate) use print::{Location, encode, pretty, printable};
pub use rule::Rule;

use super::ast::Dockerfile;
use super::diagnostic::{Code, Diagnostic, Span};
use super::directive;
use crate::ignore::Ignore;

/// How many warnings one file gets.
const MAX_WARNINGS: usize = 1000;
/// How much is kept of a file's values; people's files have some kilobytes of them.
const MAX_BYTES: usize = 32 << 20;

/// A rule that a file breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule.
    pub rule: Rule,
    /// What is the matter, in BuildKit's words.
    pub message: String,
    /// The instruction it is about.
    pub span: Span,
}

/// What the linter looks at.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The file.
    pub file: &'a Dockerfile,
    /// What the parser said about it.
    pub found: &'a [Diagnostic],
    /// The variables that FROM lines see without ARG: `TARGETPLATFORM` and its kind.
    pub predefined: &'a [(String, String)],
    /// The `--build-arg` values.
    pub build_args: &'a BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: &'a Platform,
    /// The patterns of the context's ignore file.
    pub ignore: Option<&'a Ignore>,
    /// What a base image, by the name in its FROM, says about itself; `None`
    /// if that is not known, which leaves out the rules that need it.
    pub base: &'a dyn Fn(&str) -> Option<Base>,
    /// The stages whose instructions are looked at; `None` means all.
    pub stages: Option<&'a BTreeSet<usize>>,
}

impl std::fmt::Display for Warning {
    /// Writes the warning on one line, as BuildKit's summary has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (line {})", self.rule.name(), self.message, self.span.line)
    }
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("file", self.file).finish_non_exhaustive()
    }
}

/// What matters of a base image's config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Whether it sets a shell of its own.
    pub has_shell: bool,
    /// Its platform.
    pub platform: Option<Platform>,
}

impl Base {
    /// Returns what the linter asks of an image's config.
    #[must_use]
    pub fn of(config: &ImageConfig) -> Self {
        let is_known = !config.platform.os.is_empty() && !config.platform.architecture.is_empty();
        Self {
            env: config.config.env.clone(),
            has_shell: config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty()),
            platform: is_known.then(|| config.platform.clone()),
        }
    }
}

/// Returns the options of a file's `# check=` directive.
///
/// # Errors
///
/// Fails on an option that does not exist or a value that does not parse.
pub fn options(text: &str) -> Result<Options, OptionsError> {
    // As in BuildKit, options have no blanks between them.
    let value = directive::check(text).unwrap_or_default();
    Options::parse(value.split(' ').next().unwrap_or_default())
}

/// Returns the error that warnings are where `error=true` says so.
#[must_use]
pub fn violation(warnings: &[Warning], options: &Options) -> Option<String> {
    if !options.error || warnings.is_empty() {
        return None;
    }
    let names: BTreeSet<&str> = warnings.iter().map(|warning| warning.rule.name()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Some(format!("lint violation found for rules: {}", names.join(", ")))
}

/// Returns the rules that a file breaks, in BuildKit's order: first those of
/// the text, then those of stage names, then stage by stage.
#[must_use]
pub fn lint(input: &Input<'_>, options: &Options) -> Vec<Warning> {
    let mut report = Report { options: options.clone(), warnings: Vec::new(), bytes: 0 };
    for found in input.found {
        if found.code == Code::NoEmptyContinuation {
            let message = "Empty continuation line".to_owned();
            report.add(Rule::NoEmptyContinuation, found.span, message);
        }
    }
    stages::check_text(input, &mut report);
    stages::check_names(input.file, &mut report);
    stages::check_casing(input.file, &mut report);
    stages::check_defaults(input, &mut report);
    walk::check(input, &mut report);
    report.warnings
}

/// Collects warnings that the options let through.
#[derive(Debug)]
struct Report {
    options: Options,
    warnings: Vec<Warning>,
    /// How many bytes of values were kept so far.
    bytes: usize,
}

impl Report {
    fn add(&mut self, rule: Rule, span: Span, message: String) {
        if self.options.allows(rule) && self.has_room() {
            self.warnings.push(Warning { rule, message, span });
        }
    }

    /// Returns whether warnings still count: nobody reads more.
    fn has_room(&self) -> bool {
        self.warnings.len() < MAX_WARNINGS
    }

    /// Counts bytes that are kept; returns whether there is room for them. Values multiply: a
    /// file of a megabyte can ask for a terabyte of environment.
    fn keep(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MAX_BYTES
    }

    /// Does `work` with the options that a `check=` comment above an instruction adds.
    fn with_comments(&mut self, comments: &[String], work: impl FnOnce(&mut Self)) {
        let Some(added) = Options::of_comments(comments) else { return work(self) };
        let outer = self.options.clone();
        self.options.merge(added);
        work(self);
        self.options = outer;
    }
}

#[cfg(test)]
mod tests;
