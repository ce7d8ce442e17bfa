//! A logical line → keyword, flags and arguments, each with its place.

use super::ast::{Form, Heredoc, Node};
use super::diagnostic::{Code, Span};
use super::problems::Problems;
use super::quote::quote;
use super::suggest::nearest;
use super::words::{
    Json, Text, Word, is_blank, json_array, split_blanks, split_flags, split_quoted,
};

/// The instructions of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    pub(super) const ALL: [(&'static str, Self); 18] = [
        ("ADD", Self::Add),
        ("ARG", Self::Arg),
        ("CMD", Self::Cmd),
        ("COPY", Self::Copy),
        ("ENTRYPOINT", Self::Entrypoint),
        ("ENV", Self::Env),
        ("EXPOSE", Self::Expose),
        ("FROM", Self::From),
        ("HEALTHCHECK", Self::Healthcheck),
        ("LABEL", Self::Label),
        ("MAINTAINER", Self::Maintainer),
        ("ONBUILD", Self::Onbuild),
        ("RUN", Self::Run),
        ("SHELL", Self::Shell),
        ("STOPSIGNAL", Self::StopSignal),
        ("USER", Self::User),
        ("VOLUME", Self::Volume),
        ("WORKDIR", Self::Workdir),
    ];

    /// Returns the instruction that `word` names, in any case.
    pub(super) fn of(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, keyword)| *keyword)
    }

    pub(super) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, keyword)| *keyword == self);
        found.map(|(name, _)| *name).expect("the table has every keyword")
    }

    fn takes_heredocs(self) -> bool {
        matches!(self, Self::Add | Self::Copy | Self::Run)
    }
}

/// A node whose words still know where they stand in the logical line.
#[derive(Debug)]
pub(super) struct RawNode {
    pub(super) keyword: Keyword,
    pub(super) keyword_word: Word,
    pub(super) flags: Vec<Word>,
    pub(super) args: Vec<Word>,
    pub(super) form: Form,
    pub(super) child: Option<Box<RawNode>>,
}

impl RawNode {
    /// Reads a logical line, or the part of it behind ONBUILD.
    ///
    /// Returns `None`, and says why in `problems`, when the line is no instruction.
    pub(super) fn read(text: Text<'_>, escape: char, problems: &mut Problems<'_>) -> Option<Self> {
        let text = text.trim();
        let (first, rest) = text.split_once().unwrap_or((text, text.skip(text.text.len())));
        let Some(keyword) = Keyword::of(first.text) else {
            unknown_instruction(first, problems);
            return None;
        };
        let (flags, rest) = split_flags(rest, escape);
        let mut node = Self {
            keyword,
            keyword_word: first.word(),
            flags,
            args: Vec::new(),
            form: Form::Line,
            child: None,
        };
        node.read_args(rest.trim(), escape, problems).then_some(node)
    }

    fn read_args(&mut self, rest: Text<'_>, escape: char, problems: &mut Problems<'_>) -> bool {
        match self.keyword {
            Keyword::Maintainer | Keyword::StopSignal | Keyword::User | Keyword::Workdir => {
                self.args = line(rest);
                true
            }
            Keyword::Expose | Keyword::From => {
                self.form = Form::Words;
                self.args = split_blanks(rest);
                true
            }
            Keyword::Arg => {
                self.form = Form::Words;
                self.args = split_quoted(rest, escape);
                true
            }
            Keyword::Add | Keyword::Copy | Keyword::Volume => {
                self.read_json(rest, problems, |node| {
                    node.form = Form::Words;
                    node.args = split_blanks(rest);
                })
            }
            Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell => {
                self.read_json(rest, problems, |node| node.args = line(rest))
            }
            Keyword::Env | Keyword::Label => self.read_pairs(rest, escape, problems),
            Keyword::Healthcheck => self.read_health(rest, problems),
            Keyword::Onbuild => self.read_trigger(rest, escape, problems),
        }
    }

    /// Reads a JSON array, or does `otherwise` if there is none.
    fn read_json(
        &mut self,
        rest: Text<'_>,
        problems: &mut Problems<'_>,
        otherwise: impl FnOnce(&mut Self),
    ) -> bool {
        match json_array(rest.text) {
            Json::Strings(strings) => {
                self.form = Form::Json;
                let word = |text| Word { text, range: rest.range() };
                self.args = strings.into_iter().map(word).collect();
                true
            }
            Json::Not => {
                otherwise(self);
                true
            }
            Json::Mixed => {
                mixed_json(rest, problems);
                false
            }
        }
    }

    /// Reads `key=value …`, or `key value` if the first word has no `=`.
    fn read_pairs(&mut self, rest: Text<'_>, escape: char, problems: &mut Problems<'_>) -> bool {
        self.form = Form::Pairs;
        let words = split_quoted(rest, escape);
        let Some(first) = words.first() else { return true };
        if !first.text.contains('=') {
            self.form = Form::LegacyPair;
            let Some((key, value)) = rest.split_once() else {
                let message = format!("{} must have two arguments", self.keyword.name());
                problems.error(Code::BadArguments, rest.range(), message);
                return false;
            };
            self.args = vec![key.word(), value.word()];
            return true;
        }
        let mut is_good = true;
        for word in words {
            let Some((key, value)) = word.text.split_once('=') else {
                let message = format!(
                    "Syntax error - can't find = in {}. Must be of the form: name=value",
                    quote(&word.text)
                );
                problems.error(Code::BadArguments, word.range, message);
                is_good = false;
                continue;
            };
            let range = word.range;
            self.args.push(Word { text: key.to_owned(), range: range.clone() });
            self.args.push(Word { text: value.to_owned(), range });
        }
        is_good
    }

    fn read_health(&mut self, rest: Text<'_>, problems: &mut Problems<'_>) -> bool {
        self.form = Form::TypedLine;
        let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
        let kind = Text { text: &rest.text[..end], start: rest.start };
        if kind.text.is_empty() {
            return true;
        }
        let rest = rest.skip(end).trim();
        let is_good = self.read_json(rest, problems, |node| node.args = line(rest));
        self.form = if self.form == Form::Json { Form::TypedJson } else { Form::TypedLine };
        self.args.insert(0, kind.word());
        is_good
    }

    /// Reads the instruction behind ONBUILD. An unknown word is kept, as BuildKit
    /// does, for a builder that knows it may trigger it; but we warn.
    fn read_trigger(&mut self, rest: Text<'_>, escape: char, problems: &mut Problems<'_>) -> bool {
        self.form = Form::Instruction;
        self.args = line(rest);
        if rest.text.is_empty() {
            return true;
        }
        let first = rest.text.split(is_blank).next().unwrap_or_default();
        let first = Text { text: first, start: rest.start };
        let refused = match Keyword::of(first.text) {
            // Refused before it is read, so that no chain of them nests.
            Some(Keyword::Onbuild) => {
                "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned()
            }
            Some(keyword @ (Keyword::From | Keyword::Maintainer)) => {
                format!("{} isn't allowed as an ONBUILD trigger", keyword.name())
            }
            Some(_) => {
                self.child = Self::read(rest, escape, problems).map(Box::new);
                return self.child.is_some();
            }
            None => {
                let is_trigger = std::mem::replace(&mut problems.is_trigger, true);
                unknown_instruction(first, problems);
                problems.is_trigger = is_trigger;
                return true;
            }
        };
        problems.error(Code::MisplacedInstruction, first.range(), refused);
        false
    }

    /// Returns whether `<<WORD` in the line opens a heredoc.
    pub(super) fn takes_heredocs(&self) -> bool {
        let node = self.child.as_deref().unwrap_or(self);
        node.keyword.takes_heredocs() && node.form != Form::Json
    }

    /// Returns the node without places, as the tree keeps it.
    pub(super) fn to_node(&self, heredocs: Vec<Heredoc>, text: &str, span: Span) -> Node {
        let texts = |words: &[Word]| words.iter().map(|word| word.text.clone()).collect();
        let child = self.child.as_ref().map(|child| {
            let start = child.keyword_word.range.start;
            Box::new(child.to_node(Vec::new(), text.get(start..).unwrap_or_default(), span))
        });
        Node {
            keyword: self.keyword_word.text.clone(),
            flags: texts(&self.flags),
            args: texts(&self.args),
            form: self.form,
            heredocs,
            child,
            comments: Vec::new(),
            text: text.trim().to_owned(),
            span,
        }
    }
}

/// The rest of a line as one argument; none if there is no rest.
fn line(rest: Text<'_>) -> Vec<Word> {
    if rest.text.is_empty() { Vec::new() } else { vec![rest.word()] }
}

fn mixed_json(rest: Text<'_>, problems: &mut Problems<'_>) {
    let message = "when using JSON array syntax, arrays must be comprised of strings only";
    problems.error(Code::BadJson, rest.range(), message.to_owned());
}

fn unknown_instruction(word: Text<'_>, problems: &mut Problems<'_>) {
    let upper = word.text.to_uppercase();
    let names = Keyword::ALL.iter().map(|(name, _)| *name);
    let is_lower = word.text == word.text.to_lowercase();
    let near = nearest(&upper, names)
        .map(|name| if is_lower { name.to_lowercase() } else { name.to_owned() });
    let message = format!("unknown instruction: {}", word.text);
    problems.suggest(Code::UnknownInstruction, word.range(), message, near.as_deref());
}
