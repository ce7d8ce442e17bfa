//! Node → typed instruction, with every problem of its arguments.

use super::ast::{
    AddInstruction, ArgDeclaration, CommandLine, CopyInstruction, Files, Form, FromInstruction,
    Heredoc, Instruction, KeyValue, Kind, OnbuildInstruction, Source,
};
use super::diagnostic::Code;
use super::expand::Expander;
use super::flags::{Flags, Takes};
use super::healthcheck;
use super::heredoc;
use super::node::{Keyword, RawNode};
use super::problems::Problems;
use super::quote::quote;
use super::run;
use super::words::Word;

/// What the typed reading of a node needs besides the node.
pub(super) struct Context<'a, 'b> {
    /// The heredocs of the node, with their bodies.
    pub(super) heredocs: &'a [Heredoc],
    /// The joined line.
    pub(super) text: &'a str,
    pub(super) escape: char,
    pub(super) problems: &'a mut Problems<'b>,
}

/// Returns the meaning of `node`; `None`, with the reason among the problems, if it has none.
pub(super) fn read(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Kind> {
    match node.keyword {
        Keyword::Add => add(node, context).map(Kind::Add),
        Keyword::Copy => copy(node, context).map(Kind::Copy),
        Keyword::Run => run::read(node, context).map(Kind::Run),
        Keyword::Healthcheck => healthcheck::read(node, context).map(Kind::Healthcheck),
        Keyword::Onbuild => onbuild(node, context).map(Kind::Onbuild),
        Keyword::Arg => args(node, context).map(Kind::Arg),
        Keyword::Env => pairs(node, context).map(Kind::Env),
        Keyword::Label => pairs(node, context).map(Kind::Label),
        Keyword::Cmd => no_flags(node, context).then(|| Kind::Cmd(command_line(node))),
        Keyword::Entrypoint => {
            no_flags(node, context).then(|| Kind::Entrypoint(command_line(node)))
        }
        Keyword::Expose => no_flags(node, context)
            .then(|| at_least_one(node, context))?
            .map(|words| Kind::Expose(texts(words))),
        Keyword::Maintainer => exactly_one(node, context).map(Kind::Maintainer),
        Keyword::User => exactly_one(node, context).map(Kind::User),
        Keyword::Workdir => exactly_one(node, context).map(Kind::Workdir),
        Keyword::StopSignal => exactly_one(node, context).map(Kind::StopSignal),
        Keyword::Shell => shell(node, context).map(Kind::Shell),
        Keyword::Volume => volume(node, context).map(Kind::Volume),
        // FROM opens a stage and never gets here; see `from`.
        Keyword::From => None,
    }
}

/// Returns the meaning of a FROM line.
pub(super) fn from(node: &RawNode, context: &mut Context<'_, '_>) -> Option<FromInstruction> {
    let before = context.problems.found.len();
    let flags = Flags::read(&node.flags, &[("platform", Takes::Text)], context.problems);
    let name = match node.args.as_slice() {
        [_] => None,
        [_, word, name] if word.text.eq_ignore_ascii_case("as") => {
            let lower = name.text.to_lowercase();
            if !is_stage_name(&lower) {
                let message = format!(
                    "invalid name for build stage: {}, name can't start with a number or contain symbols",
                    quote(&name.text)
                );
                context.problems.error(Code::BadStageName, name.range.clone(), message);
            }
            Some(lower)
        }
        _ => {
            let message = "FROM requires either one or three arguments".to_owned();
            context.problems.error(Code::BadArguments, line_range(node), message);
            return None;
        }
    };
    let base = node.args.first()?.text.clone();
    context.is_clean_since(before).then(|| FromInstruction {
        base,
        name,
        platform: flags.text("platform"),
    })
}

impl Context<'_, '_> {
    /// Returns whether no error was found since `before` problems were known.
    pub(super) fn is_clean_since(&self, before: usize) -> bool {
        let new = self.problems.found.get(before..).unwrap_or_default();
        !new.iter().any(|found| found.is_error() || found.code == Code::BrokenTrigger)
    }
}

/// Returns whether `name`, in lower case, may name a stage.
#[must_use]
pub fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

/// The place of the arguments, or of the keyword if there are none.
pub(super) fn line_range(node: &RawNode) -> std::ops::Range<usize> {
    match (node.args.first(), node.args.last()) {
        (Some(first), Some(last)) => first.range.start..last.range.end.max(first.range.end),
        _ => node.keyword_word.range.clone(),
    }
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

fn no_flags(node: &RawNode, context: &mut Context<'_, '_>) -> bool {
    let before = context.problems.found.len();
    Flags::read(&node.flags, &[], context.problems);
    context.is_clean_since(before)
}

/// BuildKit reads over flags of ARG, STOPSIGNAL and HEALTHCHECK NONE; we too, but say so.
pub(super) fn ignored_flags(node: &RawNode, context: &mut Context<'_, '_>) {
    for flag in &node.flags {
        let message = format!("{} has no flags: {} is ignored", node.keyword.name(), flag.text);
        context.problems.warn(Code::IgnoredFlag, flag.range.clone(), message);
    }
}

fn wrong_arguments(node: &RawNode, context: &mut Context<'_, '_>, what: &str) {
    let message = format!("{} {what}", node.keyword.name());
    context.problems.error(Code::BadArguments, line_range(node), message);
}

pub(super) fn at_least_one<'n>(
    node: &'n RawNode,
    context: &mut Context<'_, '_>,
) -> Option<&'n [Word]> {
    if node.args.is_empty() {
        wrong_arguments(node, context, "requires at least one argument");
        return None;
    }
    Some(&node.args)
}

fn exactly_one(node: &RawNode, context: &mut Context<'_, '_>) -> Option<String> {
    let [word] = node.args.as_slice() else {
        wrong_arguments(node, context, "requires exactly one argument");
        return None;
    };
    if node.keyword == Keyword::StopSignal {
        ignored_flags(node, context);
        return Some(word.text.clone());
    }
    no_flags(node, context).then(|| word.text.clone())
}

/// The shell form is one line, also when it is empty: BuildKit runs `/bin/sh -c ""` then.
fn command_line(node: &RawNode) -> CommandLine {
    if node.form == Form::Json {
        return CommandLine::Exec(texts(&node.args));
    }
    CommandLine::Shell(node.args.first().map(|word| word.text.clone()).unwrap_or_default())
}

fn shell(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Vec<String>> {
    let is_clean = no_flags(node, context);
    let words = at_least_one(node, context)?;
    if node.form != Form::Json {
        wrong_arguments(node, context, "requires the arguments to be in JSON form");
        return None;
    }
    is_clean.then(|| texts(words))
}

fn volume(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Vec<String>> {
    let is_clean = no_flags(node, context);
    let words = at_least_one(node, context)?;
    if words.iter().any(|word| word.text.trim().is_empty()) {
        wrong_arguments(node, context, "specified can not be an empty string");
        return None;
    }
    is_clean.then(|| words.iter().map(|word| word.text.trim().to_owned()).collect())
}

fn pairs(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Vec<KeyValue>> {
    let mut is_clean = no_flags(node, context);
    let words = at_least_one(node, context)?;
    let mut pairs = Vec::with_capacity(words.len() / 2);
    for pair in words.chunks_exact(2) {
        let [key, value] = pair else { continue };
        if key.text.is_empty() {
            let message = format!("{} names can not be blank", node.keyword.name());
            context.problems.error(Code::BadArguments, key.range.clone(), message);
            is_clean = false;
        }
        pairs.push(KeyValue { key: key.text.clone(), value: value.text.clone() });
    }
    is_clean.then_some(pairs)
}

fn args(node: &RawNode, context: &mut Context<'_, '_>) -> Option<Vec<ArgDeclaration>> {
    ignored_flags(node, context);
    let words = at_least_one(node, context)?;
    let mut declarations = Vec::with_capacity(words.len());
    for word in words {
        let (name, default) = match word.text.split_once('=') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (word.text.as_str(), None),
        };
        if name.is_empty() {
            let message = "ARG names can not be blank".to_owned();
            context.problems.error(Code::BadArguments, word.range.clone(), message);
            return None;
        }
        declarations.push(ArgDeclaration { name: name.to_owned(), default });
    }
    Some(declarations)
}

/// Returns sources and destination of COPY and ADD.
fn files(node: &RawNode, flags: &Flags<'_>, context: &mut Context<'_, '_>) -> Option<Files> {
    let (destination, sources) = match node.args.split_last() {
        Some((destination, sources)) if !sources.is_empty() => (destination, sources),
        _ => {
            wrong_arguments(
                node,
                context,
                "requires at least two arguments, but only one was provided. Destination could not be determined",
            );
            return None;
        }
    };
    let is_heredoc = |word: &Word| {
        let parsed = (node.form != Form::Json).then(|| heredoc::parse_word(&word.text));
        parsed.and_then(Result::ok).flatten()
    };
    if is_heredoc(destination).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", node.keyword.name());
        context.problems.error(Code::BadHeredoc, destination.range.clone(), message);
        return None;
    }
    let source = |word: &Word| match is_heredoc(word) {
        None => Source::Path(word.text.clone()),
        Some(heredoc) => {
            // Of two heredocs with one name the later file replaces the earlier.
            let found = context.heredocs.iter().rev().find(|found| found.name == heredoc.name);
            Source::Inline {
                content: found.map(Heredoc::content).unwrap_or_default(),
                name: heredoc.name,
                expand: heredoc.expand,
            }
        }
    };
    Some(Files {
        sources: sources.iter().map(source).collect(),
        destination: destination.text.clone(),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.boolean("link").unwrap_or(false),
        exclude: flags.texts("exclude"),
    })
}

fn add(node: &RawNode, context: &mut Context<'_, '_>) -> Option<AddInstruction> {
    let before = context.problems.found.len();
    let known = [
        ("chown", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Bool),
        ("keep-git-dir", Takes::Bool),
        ("checksum", Takes::Text),
        ("unpack", Takes::Bool),
        ("exclude", Takes::Texts),
    ];
    let flags = Flags::read(&node.flags, &known, context.problems);
    let files = files(node, &flags, context)?;
    context.is_clean_since(before).then(|| AddInstruction {
        files,
        checksum: flags.text("checksum"),
        unpack: flags.boolean("unpack"),
        keep_git_dir: flags.boolean("keep-git-dir"),
    })
}

fn copy(node: &RawNode, context: &mut Context<'_, '_>) -> Option<CopyInstruction> {
    let before = context.problems.found.len();
    let known = [
        ("chown", Takes::Text),
        ("from", Takes::Text),
        ("chmod", Takes::Text),
        ("link", Takes::Bool),
        ("exclude", Takes::Texts),
        ("parents", Takes::Bool),
    ];
    let flags = Flags::read(&node.flags, &known, context.problems);
    let files = files(node, &flags, context)?;
    if let Some(from) = flags.one("from") {
        let expanded = Expander::new(context.escape).word(from.text, &|_| None);
        if !expanded.is_ok_and(|expanded| expanded.text == from.text) {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
            context.problems.error(Code::NoExpansion, from.word.range.clone(), message.to_owned());
        }
    }
    context.is_clean_since(before).then(|| CopyInstruction {
        files,
        from: flags.text("from"),
        parents: flags.boolean("parents").unwrap_or(false),
    })
}

/// What is wrong with the trigger is no error here: it may never be used.
fn onbuild(node: &RawNode, context: &mut Context<'_, '_>) -> Option<OnbuildInstruction> {
    let is_clean = no_flags(node, context);
    // BuildKit stores a `--` in front and blanks behind too; neither triggers better.
    let mut expression = at_least_one(node, context)?.first()?.text.clone();
    for heredoc in context.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.body);
        expression.push_str(&heredoc.name);
    }
    let trigger = node.child.as_ref().and_then(|child| {
        let is_trigger = std::mem::replace(&mut context.problems.is_trigger, true);
        let kind = read(child, context);
        context.problems.is_trigger = is_trigger;
        let span = context
            .problems
            .source
            .span(context.problems.line.range(child.keyword_word.range.start..context.text.len()));
        let text = context.text.get(child.keyword_word.range.start..).unwrap_or_default();
        let mut trigger = child.to_node(context.heredocs.to_vec(), context.text, span);
        text.trim().clone_into(&mut trigger.text);
        kind.map(|kind| Box::new(Instruction { node: trigger, kind }))
    });
    is_clean.then_some(OnbuildInstruction { expression, trigger })
}
