//! `check=skip=A,B;experimental=all;error=true`.

use std::collections::BTreeSet;

use super::rule::Rule;
use crate::dockerfile::mount::parse_bool;
use crate::dockerfile::quote::quote;

/// Which rules count, and whether breaking one fails the build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Rules that do not count.
    pub skip: Selection,
    /// Experimental rules that count too.
    pub experimental: Selection,
    /// Whether a warning is an error.
    pub error: bool,
}

/// Some rules by name, or all. Names that are no rule's select nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Every rule.
    All,
    /// These.
    Names(BTreeSet<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Names(BTreeSet::new())
    }
}

/// A `check=` value that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No `=`, or a name that is none.
    #[error("invalid check option {}", quote(.0))]
    Unknown(String),
    /// A value of `error` that is no boolean.
    #[error("failed to parse check option {}", quote(.0))]
    BadValue(String),
}

impl Selection {
    fn parse(text: &str) -> Self {
        if text == "all" {
            return Self::All;
        }
        Self::Names(text.split(',').map(|name| name.trim().to_owned()).collect())
    }

    fn contains(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(rule.name()),
        }
    }

    fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Names(names), Self::Names(others)) => names.extend(others),
        }
    }
}

impl Options {
    /// Reads the value of a `check` directive.
    ///
    /// # Errors
    ///
    /// Fails on an option that does not exist or a value that does not parse.
    pub fn parse(text: &str) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| OptionsError::Unknown(part.to_owned()))?;
            let value = value.trim();
            match key.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => {
                    let bad = || OptionsError::BadValue(part.to_owned());
                    options.error = parse_bool(value).ok_or_else(bad)?;
                }
                key => return Err(OptionsError::Unknown(key.to_owned())),
            }
        }
        Ok(options)
    }

    /// Returns the options of the first `check=` among the comments above an instruction.
    pub(super) fn of_comments(comments: &[String]) -> Option<Self> {
        let value = comments.iter().find_map(|comment| {
            let (key, value) = comment.split_once('=')?;
            key.trim_end().eq_ignore_ascii_case("check").then(|| value.trim())
        })?;
        Self::parse(value.split(' ').next().unwrap_or_default()).ok()
    }

    /// Adds rules; `error` is the whole file's affair.
    pub(super) fn merge(&mut self, other: Self) {
        self.skip.merge(other.skip);
        self.experimental.merge(other.experimental);
    }

    /// Returns whether breaking `rule` is reported.
    #[must_use]
    pub fn allows(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental.contains(rule)
        } else {
            !self.skip.contains(rule)
        }
    }
}
