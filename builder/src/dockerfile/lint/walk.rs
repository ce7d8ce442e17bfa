//! Rules that follow variables: through FROM lines, then through each stage.

use std::collections::{BTreeMap, BTreeSet};

use oci::Platform;

use super::stages::globals;
use super::{Base, Input, Report, Rule};
use crate::dockerfile::ast::{
    ArgDeclaration, CommandLine, Files, Form, Instruction, KeyValue, Kind, Node, Source, Stage,
};
use crate::dockerfile::clean::clean;
use crate::dockerfile::diagnostic::Span;
use crate::dockerfile::expand::{ExpandError, ExpandReason, Expander, Expansion};
use crate::dockerfile::expose::PortWord;
use crate::dockerfile::mount::csv_fields;
use crate::dockerfile::quote::quote;
use crate::dockerfile::suggest::nearest;

/// ARGs that direct the builder and never become variables.
const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A word that cannot be expanded ends the stage: the build reports it.
type Walked = Result<(), ExpandError>;

/// Checks FROM lines, then the instructions of the wanted stages.
pub(super) fn check(input: &Input<'_>, report: &mut Report) {
    let Some(globals) = globals(input, input.build_args) else { return };
    let mut names = Vec::new();
    for stage in &input.file.stages {
        report.with_comments(&stage.node.comments, |report| {
            names.push(from(input, stage, &globals, report));
        });
    }
    let mut ends: Vec<State> = Vec::new();
    for (index, (stage, name)) in input.file.stages.iter().zip(&names).enumerate() {
        let is_wanted = input.stages.is_none_or(|stages| stages.contains(&index));
        let parent = input.file.stages[..index]
            .iter()
            .rposition(|parent| parent.name().is_some() && parent.name() == name.as_deref());
        let state = match (parent, name.as_deref()) {
            (Some(parent), _) => {
                if !report.keep(ends[parent].bytes()) {
                    return;
                }
                ends[parent].child()
            }
            (None, None) => State::unknown(),
            (None, Some("scratch")) => State::of(&Base::default()),
            (None, Some(name)) => (input.base)(name).map_or_else(State::unknown, |base| {
                if is_wanted {
                    platform(input, stage, name, &base, report);
                }
                State::of(&base)
            }),
        };
        let mut walk = Walk {
            input,
            globals: &globals,
            state,
            cmd: None,
            entrypoint: None,
            healthcheck: None,
        };
        if is_wanted {
            for instruction in &stage.instructions {
                let mut walked = Ok(());
                report.with_comments(&instruction.node.comments, |report| {
                    walked = walk.instruction(instruction, report);
                });
                if walked.is_err() {
                    break;
                }
            }
        }
        ends.push(walk.state);
    }
}

/// Checks a FROM line; returns the name of the base.
fn from(
    input: &Input<'_>,
    stage: &Stage,
    globals: &BTreeMap<String, String>,
    report: &mut Report,
) -> Option<String> {
    let expander = Expander::new(input.file.escape);
    let env = |name: &str| globals.get(name).cloned();
    let declared: BTreeSet<&str> = globals
        .keys()
        .map(String::as_str)
        .chain(input.file.globals.iter().flat_map(|global| {
            match &global.kind {
                Kind::Arg(declarations) => declarations.as_slice(),
                _ => &[],
            }
            .iter()
            .map(|found| found.name.as_str())
        }))
        .collect();
    let span = stage.node.span;
    let undeclared = |unset: &BTreeSet<String>, report: &mut Report| {
        for name in unset.iter().filter(|name| !declared.contains(name.as_str())) {
            let near = did_you_mean("", nearest(name, declared.iter().copied()));
            let message = format!("FROM argument '{name}' is not declared{near}");
            report.add(Rule::UndefinedArgInFrom, span, message);
        }
    };
    let base = expander.word(&stage.from.base, &env).ok()?;
    undeclared(&base.unset, report);
    if let Some(written) = &stage.from.platform
        && let Ok(platform) = expander.word(written, &env)
    {
        undeclared(&platform.unset, report);
        from_platform(stage, written, &platform, globals, report);
    }
    Some(base.text)
}

fn from_platform(
    stage: &Stage,
    written: &str,
    platform: &Expansion,
    globals: &BTreeMap<String, String>,
    report: &mut Report,
) {
    let span = stage.node.span;
    let is_target_only = platform.unset.is_empty()
        && platform.used.iter().map(String::as_str).eq(["TARGETPLATFORM"])
        && globals.get("TARGETPLATFORM") == Some(&platform.text);
    if is_target_only {
        let message = format!(
            "Setting platform to predefined {written} in FROM is redundant as this is the default behavior"
        );
        report.add(Rule::RedundantTargetPlatform, span, message);
    }
    let is_constant = platform.unset.is_empty() && platform.used.is_empty();
    if let (true, Ok(parsed)) = (is_constant, platform.text.parse::<Platform>()) {
        // A stage that says in its name what it is for means it.
        let name = stage.name().unwrap_or_default();
        if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
            let platform = quote(&platform.text);
            let message = format!("FROM --platform flag should not use constant value {platform}");
            report.add(Rule::FromPlatformFlagConstDisallowed, span, message);
        }
    }
}

fn platform(input: &Input<'_>, stage: &Stage, name: &str, base: &Base, report: &mut Report) {
    // With a --platform of its own the base was asked for that one.
    let Some(actual) = base.platform.as_ref().filter(|_| stage.from.platform.is_none()) else {
        return;
    };
    let expected = input.platform.normalized();
    let actual = actual.normalized();
    if (&expected.os, &expected.architecture) != (&actual.os, &actual.architecture) {
        let (expected, actual) = (quote(&expected.to_string()), quote(&actual.to_string()));
        let message = format!(
            "Base image {name} was pulled with platform {actual}, expected {expected} for current build"
        );
        report.add(Rule::InvalidBaseImagePlatform, stage.node.span, message);
    }
}

/// What a stage hands to those that start from it.
#[derive(Debug, Clone)]
struct State {
    /// ENV and ARG together.
    variables: BTreeMap<String, String>,
    /// ENV alone: set again over the ARGs of a parent stage.
    env: BTreeMap<String, String>,
    /// The names that ARG declared, with a value or not.
    args: BTreeSet<String>,
    /// Whether the environment of the base is known at all.
    is_known: bool,
    has_shell: bool,
    has_workdir: bool,
}

impl State {
    fn of(base: &Base) -> Self {
        let mut env: BTreeMap<String, String> = base
            .env
            .iter()
            .map(|entry| entry.split_once('=').unwrap_or((entry, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // The builder sets PATH where the base does not; its value is no matter here.
        env.entry("PATH".to_owned()).or_default();
        Self {
            variables: env.clone(),
            env,
            args: BTreeSet::new(),
            is_known: true,
            has_shell: base.has_shell,
            has_workdir: false,
        }
    }

    fn unknown() -> Self {
        Self { is_known: false, ..Self::of(&Base::default()) }
    }

    /// Returns how many bytes a copy takes.
    fn bytes(&self) -> usize {
        let pairs = self.variables.iter().chain(&self.env);
        pairs.map(|(name, value)| name.len() + value.len()).sum()
    }

    fn child(&self) -> Self {
        let mut child = self.clone();
        child.variables.extend(self.env.clone());
        child
    }
}

struct Walk<'a> {
    input: &'a Input<'a>,
    globals: &'a BTreeMap<String, String>,
    state: State,
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl Walk<'_> {
    fn instruction(&mut self, instruction: &Instruction, report: &mut Report) -> Walked {
        let node = &instruction.node;
        match &instruction.kind {
            Kind::Arg(declarations) => return self.arg(node, declarations, report),
            Kind::Env(pairs) => {
                for (key, value) in self.pairs(node, pairs, report)? {
                    secret("ENV", &key, node.span, report);
                    if !report.keep(2 * (key.len() + value.len())) {
                        return Err(too_long(&key));
                    }
                    self.state.variables.insert(key.clone(), value.clone());
                    self.state.env.insert(key, value);
                }
            }
            Kind::Label(pairs) => {
                self.pairs(node, pairs, report)?;
            }
            Kind::Cmd(command) => {
                once(node, &mut self.cmd, report);
                self.json(node, command, report);
            }
            Kind::Entrypoint(command) => {
                once(node, &mut self.entrypoint, report);
                self.json(node, command, report);
            }
            Kind::Healthcheck(_) => once(node, &mut self.healthcheck, report),
            Kind::Copy(copy) => {
                let ignore = self.input.ignore.filter(|_| copy.from.is_none());
                self.files(node, &copy.files, None, "Copy", ignore, report)?;
            }
            Kind::Add(add) => {
                let checksum = add.checksum.as_deref();
                self.files(node, &add.files, checksum, "Add", self.input.ignore, report)?;
            }
            Kind::Run(run) => {
                for mount in &run.mounts {
                    for field in csv_fields(&mount.0).unwrap_or_default() {
                        let value = field.split_once('=').map_or("", |(_, value)| value);
                        self.expand(node, value, report)?;
                    }
                }
            }
            Kind::User(text) | Kind::StopSignal(text) => {
                self.expand(node, text, report)?;
            }
            Kind::Workdir(text) => {
                let path = self.expand(node, text, report)?;
                if !self.state.has_workdir && !path.starts_with('/') {
                    let message = format!(
                        "Relative workdir {} can have unexpected results if the base image changes",
                        quote(&path)
                    );
                    report.add(Rule::WorkdirRelativePath, node.span, message);
                }
                self.state.has_workdir = true;
            }
            Kind::Volume(words) => {
                for word in words {
                    self.expand(node, word, report)?;
                }
            }
            Kind::Expose(words) => self.expose(node, words, report)?,
            Kind::Shell(_) => self.state.has_shell = true,
            Kind::Onbuild(_) | Kind::Maintainer(_) => {}
        }
        Ok(())
    }

    /// Expands a word, and reports the variables in it that nothing sets.
    fn expand(&self, node: &Node, text: &str, report: &mut Report) -> Result<String, ExpandError> {
        self.expand_with(Expander::new(self.input.file.escape), node, text, report)
    }

    fn expand_with(
        &self,
        expander: Expander,
        node: &Node,
        text: &str,
        report: &mut Report,
    ) -> Result<String, ExpandError> {
        let expanded = expander.word(text, &|name| self.state.variables.get(name).cloned())?;
        for name in &expanded.unset {
            if self.state.args.contains(name) || NOT_IN_ENV.contains(&name.as_str()) {
                continue;
            }
            if !report.has_room() {
                break;
            }
            // Comparing costs, and a stage with more names than this is no longer read by people.
            let names = self.state.variables.keys().map(String::as_str).take(1000);
            let near = nearest(name, names);
            // An image that is not here may set it; but not likely where another name is near.
            if !self.state.is_known && near.is_none() {
                continue;
            }
            let near = did_you_mean("$", near);
            let message = format!("Usage of undefined variable '${name}'{near}");
            report.add(Rule::UndefinedVar, node.span, message);
        }
        Ok(expanded.text)
    }

    fn arg(&mut self, node: &Node, declarations: &[ArgDeclaration], report: &mut Report) -> Walked {
        for ArgDeclaration { name, default } in declarations {
            secret("ARG", name, node.span, report);
            let value = match (self.input.build_args.get(name), default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.expand(node, default, report)?),
                (None, None) => self.globals.get(name).cloned(),
            };
            if let Some(value) = value.filter(|_| !NOT_IN_ENV.contains(&name.as_str())) {
                if !report.keep(name.len() + value.len()) {
                    return Err(too_long(name));
                }
                self.state.variables.insert(name.clone(), value);
            }
            self.state.args.insert(name.clone());
        }
        Ok(())
    }

    fn pairs(
        &self,
        node: &Node,
        pairs: &[KeyValue],
        report: &mut Report,
    ) -> Result<Vec<(String, String)>, ExpandError> {
        let mut expanded = Vec::new();
        for KeyValue { key, value } in pairs {
            expanded.push((self.expand(node, key, report)?, self.expand(node, value, report)?));
        }
        if node.form == Form::LegacyPair {
            let keyword = &node.keyword;
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            report.add(Rule::LegacyKeyValueFormat, node.span, message);
        }
        Ok(expanded)
    }

    fn json(&self, node: &Node, command: &CommandLine, report: &mut Report) {
        if matches!(command, CommandLine::Shell(_)) && !self.state.has_shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                node.keyword
            );
            report.add(Rule::JsonArgsRecommended, node.span, message);
        }
    }

    fn files(
        &self,
        node: &Node,
        files: &Files,
        checksum: Option<&str>,
        verb: &str,
        ignore: Option<&crate::ignore::Ignore>,
        report: &mut Report,
    ) -> Walked {
        for word in [files.chown.as_deref(), files.chmod.as_deref(), checksum].into_iter().flatten()
        {
            self.expand(node, word, report)?;
        }
        let mut paths = Vec::new();
        for source in &files.sources {
            if let Source::Path(path) = source {
                paths.push(self.expand(node, path, report)?);
            }
        }
        self.expand(node, &files.destination, report)?;
        for source in &files.sources {
            if let Source::Inline { content, expand: true, .. } = source {
                self.expand_with(Expander::heredoc(), node, content, report)?;
            }
        }
        for path in paths.iter().filter(|path| !is_remote(path)) {
            let path = clean(path);
            if ignore.is_some_and(|ignore| ignore.excludes_source(&path)) {
                let message = format!(
                    "Attempting to {verb} file {} that is excluded by .dockerignore",
                    quote(&path)
                );
                report.add(Rule::CopyIgnoredFile, node.span, message);
            }
        }
        Ok(())
    }

    fn expose(&self, node: &Node, words: &[String], report: &mut Report) -> Walked {
        let expander = Expander::new(self.input.file.escape);
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.sort_unstable();
        for word in words {
            let env = |name: &str| self.state.variables.get(name).cloned();
            for word in expander.words(word, &env)? {
                let port = PortWord::split(&word);
                if port.protocol != port.protocol.to_lowercase() {
                    let message = format!(
                        "Defined protocol '{word}' in EXPOSE instruction should be lowercase"
                    );
                    report.add(Rule::ExposeProtoCasing, node.span, message);
                }
                if !port.address.is_empty() || !port.host.is_empty() {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
                    );
                    report.add(Rule::ExposeInvalidFormat, node.span, message);
                }
            }
        }
        Ok(())
    }
}

/// Reports the earlier of two instructions of which the last one counts.
fn once(node: &Node, seen: &mut Option<Span>, report: &mut Report) {
    if let Some(before) = seen.replace(node.span) {
        let message = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            node.keyword
        );
        report.add(Rule::MultipleInstructionsDisallowed, before, message);
    }
}

/// Judges a variable by the words of its name.
fn secret(instruction: &str, name: &str, span: Span, report: &mut Report) {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    if has(&SECRET) && !has(&HARMLESS) {
        let message = format!(
            "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
            quote(name)
        );
        report.add(Rule::SecretsUsedInArgOrEnv, span, message);
    }
}

/// The error that ends a stage with more values than are kept; the build says the same.
fn too_long(name: &str) -> ExpandError {
    ExpandError { text: name.to_owned(), reason: ExpandReason::TooLong }
}

fn did_you_mean(sign: &str, near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {sign}{near}?)")).unwrap_or_default()
}

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|start| path.starts_with(start))
}
