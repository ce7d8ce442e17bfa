//! The typed flags of an instruction.

use std::collections::BTreeMap;

use super::diagnostic::Code;
use super::problems::Problems;
use super::suggest::nearest;
use super::words::Word;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `--name`, `--name=true` or `--name=false`.
    Bool,
    /// `--name=value`, once.
    Text,
    /// `--name=value`, as often as wanted.
    Texts,
}

/// A flag's value and where the flag stands in the logical line.
#[derive(Debug, Clone)]
pub(super) struct Value<'a> {
    pub(super) text: &'a str,
    pub(super) word: &'a Word,
}

/// The flags found, by name.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    values: BTreeMap<&'static str, Vec<Value<'a>>>,
}

impl<'a> Flags<'a> {
    /// Reads `words`; everything that `known` does not allow becomes a problem.
    pub(super) fn read(
        words: &'a [Word],
        known: &[(&'static str, Takes)],
        problems: &mut Problems<'_>,
    ) -> Self {
        let mut values: BTreeMap<&'static str, Vec<Value<'a>>> = BTreeMap::new();
        for word in words {
            let (flag, text) = match word.text.split_once('=') {
                Some((flag, text)) => (flag, Some(text)),
                None => (word.text.as_str(), None),
            };
            let name = flag.trim_start_matches("--");
            let Some((name, takes)) = known.iter().find(|(known, _)| format!("--{known}") == flag)
            else {
                let names = known.iter().map(|(name, _)| *name);
                problems.suggest(
                    Code::UnknownFlag,
                    word.range.clone(),
                    format!("unknown flag: {flag}"),
                    nearest(name, names),
                );
                continue;
            };
            let problem = match (takes, text) {
                (Takes::Bool | Takes::Text, _) if values.contains_key(name) => {
                    Some(format!("duplicate flag specified: {flag}"))
                }
                (Takes::Bool, Some("")) | (Takes::Text | Takes::Texts, None) => {
                    Some(format!("missing a value on flag: {flag}"))
                }
                (Takes::Bool, Some(text)) if parse_bool(text).is_none() => {
                    Some(format!("expecting boolean value for flag {flag}, not: {text}"))
                }
                (Takes::Bool | Takes::Text | Takes::Texts, _) => None,
            };
            match problem {
                Some(message) => problems.error(Code::BadFlag, word.range.clone(), message),
                None => {
                    let text = text.unwrap_or("true");
                    values.entry(*name).or_default().push(Value { text, word });
                }
            }
        }
        Self { values }
    }

    /// Returns every value of a flag, in order.
    pub(super) fn all(&self, name: &str) -> &[Value<'a>] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a flag that is given once.
    pub(super) fn one(&self, name: &str) -> Option<&Value<'a>> {
        self.all(name).first()
    }

    /// Returns the value of a flag; an empty value says as much as no flag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.one(name).filter(|value| !value.text.is_empty()).map(|value| value.text.to_owned())
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.all(name).iter().map(|value| value.text.to_owned()).collect()
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        self.one(name).and_then(|value| parse_bool(value.text))
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}
