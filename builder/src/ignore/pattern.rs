//! One pattern of an ignore file.

use super::glob;
use super::regex::Regex;
use super::{IgnoreError, glob::BadPattern};
use crate::dockerfile::clean::clean;

/// A pattern, ready to be compared.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// Whether it takes paths back in (`!`).
    pub(super) is_exception: bool,
    text: String,
    matcher: Matcher,
}

#[derive(Debug, Clone)]
enum Matcher {
    /// The path is the pattern.
    Exact,
    /// `dir/**`: the path starts with this.
    Prefix(String),
    /// `**name` or `**/name`: the path ends in this.
    Suffix(String),
    Regex(Regex),
}

impl Pattern {
    /// Reads a line without blanks around it. Returns `None` for a pattern
    /// that says nothing.
    pub(super) fn parse(line: &str, number: usize) -> Result<Option<Self>, IgnoreError> {
        let (text, is_exception) = match line.strip_prefix('!') {
            Some(rest) => (rest.trim(), true),
            None => (line, false),
        };
        let cleaned = if text.is_empty() { String::new() } else { clean(text) };
        let text = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
        // moby cleans the line again with its `!`, which leaves nothing of `!/`.
        if is_exception && matches!(text, "" | "/") {
            return Err(IgnoreError::EmptyException { line: number });
        }
        let bad =
            |_: BadPattern| IgnoreError::BadPattern { line: number, pattern: text.to_owned() };
        // Compared with anything, a malformed pattern gives its error.
        glob::matches(text, ".").map_err(bad)?;
        let matcher = Matcher::new(text).map_err(bad)?;
        Ok(Some(Self { is_exception, text: text.to_owned(), matcher }))
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact => path == self.text,
            Matcher::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix.as_str())
                    // `**/name` is also `name` itself.
                    || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Regex(regex) => regex.matches(path),
        }
    }

    /// Returns whether nothing escapes the pattern.
    pub(super) fn is_everything(&self) -> bool {
        matches!(self.text.as_str(), "*" | "**" | "**/*")
    }

    /// Returns whether some path below `dir` may match. Never wrongly says no.
    pub(super) fn may_match_below(&self, dir: &str) -> bool {
        if self.text.contains("**") {
            // Only the plain parts in front of the stars bind.
            let plain = self.text.split('/').take_while(|part| !glob::has_wildcard(part));
            let plain = plain.take_while(|part| !part.contains('\\'));
            return plain.zip(dir.split('/')).all(|(part, dir)| part == dir);
        }
        if self.text.contains(['[', '\\']) {
            // A class may stand for a slash; not worth knowing exactly.
            return true;
        }
        // Without those, each part of the pattern stands for one part of the path.
        let mut parts = self.text.split('/');
        let fits = dir
            .split('/')
            .all(|dir| parts.next().is_some_and(|part| glob::matches(part, dir).unwrap_or(true)));
        fits && parts.next().is_some()
    }
}

impl Matcher {
    /// Chooses the cheapest way to compare, as moby does: the kinds differ in
    /// what they match, so the choice is part of the language.
    fn new(text: &str) -> Result<Self, BadPattern> {
        let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if is_plain(text) {
            return Ok(Self::Exact);
        }
        if let Some(suffix) = text.strip_prefix("**")
            && is_plain(suffix)
        {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**")
            && is_plain(prefix)
        {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        Regex::from_pattern(text).map(Self::Regex)
    }
}
