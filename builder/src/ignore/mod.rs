//! `.dockerignore`: which paths of a context stay out of the build.
//!
//! The rules are those of moby/patternmatcher, which are not those of git:
//!
//! - patterns are anchored at the context's root (`*.md` is not `a/b.md`);
//! - the last pattern that matches a path, or one of its parents, decides;
//!   `!` in front of a pattern takes paths back in, also below a directory
//!   that is excluded;
//! - `*` and `?` stay within one part of a path, `**` crosses any number of
//!   them, and `**name` matches whatever *ends* in `name`.
//!
//! [`glob`] holds the other pattern language, the one of COPY and ADD sources.

pub mod glob;
mod pattern;
mod regex;

use std::path::Path;

use pattern::Pattern;

/// The patterns of one ignore file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// A pattern that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A `!` with nothing behind it.
    #[error("line {line}: illegal exclusion pattern: \"!\"")]
    EmptyException {
        /// The line, from 1.
        line: usize,
    },
    /// Brackets or escapes that do not end, or are none.
    #[error("line {line}: syntax error in pattern {pattern:?}")]
    BadPattern {
        /// The line, from 1.
        line: usize,
        /// The pattern, cleaned.
        pattern: String,
    },
}

/// Which patterns a directory matches, itself or through its parents: what a
/// walk hands down, so that no path is compared twice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matched {
    /// One bit for each of the first patterns: few files have more, and a walk
    /// asks for every path of a context.
    first: u64,
    /// The others, only as far as one is set.
    rest: Vec<u64>,
}

impl Matched {
    fn contains(&self, index: usize) -> bool {
        let word = match index / 64 {
            0 => self.first,
            at => self.rest.get(at - 1).copied().unwrap_or(0),
        };
        word >> (index % 64) & 1 == 1
    }

    fn insert(&mut self, index: usize) {
        let word = match index / 64 {
            0 => &mut self.first,
            at => {
                self.rest.resize(self.rest.len().max(at), 0);
                &mut self.rest[at - 1]
            }
        };
        *word |= 1 << (index % 64);
    }
}

impl Ignore {
    /// Reads an ignore file: one pattern a line, `#` in the first column for
    /// comments, blanks around patterns dropped, a leading `/` too.
    ///
    /// # Errors
    ///
    /// Fails on the first pattern that is none.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            patterns.extend(Pattern::parse(trimmed, index + 1)?);
        }
        Ok(Self { patterns })
    }

    /// Returns whether there is no pattern: everything belongs to the context.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Returns whether `path`, relative to the root and with `/` between its
    /// parts, is excluded. The root itself never is, but `/` is a path like others.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let path = match path.trim_matches('/') {
            "" if !path.is_empty() => return self.check("/", &Matched::default()).0,
            "" | "." => return false,
            path => path,
        };
        let mut parent = Matched::default();
        for (at, _) in path.match_indices('/') {
            parent = self.check(&path[..at], &parent).1;
        }
        self.check(path, &parent).0
    }

    /// Returns whether `path`, relative to the root, is excluded. A name that is
    /// not UTF-8 is compared with U+FFFD in the place of what is not.
    #[must_use]
    pub fn is_ignored(&self, path: &Path) -> bool {
        !self.is_empty() && self.matches(&path.to_string_lossy())
    }

    /// Returns whether `path` is excluded, given what its parent directory
    /// matched (`Matched::default()` below the root), and what to hand down to
    /// its own entries. For walks; the same answer as [`Self::matches`].
    #[must_use]
    pub fn check(&self, path: &str, parent: &Matched) -> (bool, Matched) {
        let mut is_excluded = false;
        let mut matched = Matched::default();
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherits = parent.contains(index);
            // A pattern that cannot change the answer is not asked. That this
            // also hides it from the entries below is how BuildKit walks.
            let is_match =
                inherits || (pattern.is_exception == is_excluded && pattern.matches(path));
            if is_match {
                is_excluded = !pattern.is_exception;
                matched.insert(index);
            }
        }
        (is_excluded, matched)
    }

    /// Returns whether copying `source`, a cleaned path or pattern, must come to
    /// nothing. With exceptions that cannot be told from the words alone, so
    /// then the answer is no; and the root is excluded only by what excludes everything.
    #[must_use]
    pub fn excludes_source(&self, source: &str) -> bool {
        if self.patterns.iter().any(|pattern| pattern.is_exception) {
            return false;
        }
        if matches!(source, "." | "/") {
            return self.patterns.iter().any(Pattern::is_everything);
        }
        self.matches(source)
    }

    /// Returns whether an exception (`!pattern`) may match something below
    /// `dir`; if not, the walk need not enter an excluded `dir`.
    #[must_use]
    pub fn may_reinclude_below(&self, dir: &Path) -> bool {
        let mut exceptions = self.patterns.iter().filter(|pattern| pattern.is_exception).peekable();
        if exceptions.peek().is_none() {
            return false;
        }
        let dir = dir.to_string_lossy();
        let dir = dir.trim_matches('/');
        let is_root = matches!(dir, "" | ".");
        exceptions.any(|pattern| is_root || pattern.may_match_below(dir))
    }
}

#[cfg(test)]
mod tests;
