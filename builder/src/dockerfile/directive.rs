//! Parser directives: `# key=value` lines at the very top of a file.
//!
//! The first line that is not one, be it a comment, a blank line or an unknown
//! key, ends them for good. The frontend a file names is looked for in more
//! places (behind `#!`, in `//` comments, in JSON): [`syntax`].

use super::ast::{Directive, DirectiveKey};
use super::diagnostic::{Code, Diagnostic, Severity, Span};

/// Reads directives line by line.
#[derive(Debug)]
pub(super) struct Directives {
    comment: &'static str,
    is_done: bool,
    pub(super) found: Vec<Directive>,
}

impl Directives {
    pub(super) fn new(comment: &'static str) -> Self {
        Self { comment, is_done: false, found: Vec::new() }
    }

    /// Reads the next line; returns whether it is a directive.
    pub(super) fn read(&mut self, line: &str, span: Span) -> Result<bool, Diagnostic> {
        if self.is_done {
            return Ok(false);
        }
        let parsed = line.strip_prefix(self.comment).and_then(parse);
        let Some((key, value)) = parsed else {
            self.is_done = true;
            return Ok(false);
        };
        let bad = |message: String| Diagnostic {
            code: Code::BadDirective,
            severity: Severity::Error,
            span,
            message,
            suggestion: None,
        };
        if self.found.iter().any(|found| found.key == key) {
            return Err(bad(format!("only one {} parser directive can be used", key.name())));
        }
        self.found.push(Directive { key, value: value.to_owned(), span });
        if key == DirectiveKey::Escape && !matches!(value, "\\" | "`") {
            return Err(bad(format!("invalid escape token '{value}' does not match ` or \\")));
        }
        Ok(true)
    }

    /// Returns the escape character that the directives ask for.
    pub(super) fn escape(&self) -> char {
        let value = self.value(DirectiveKey::Escape);
        if value == Some("`") { '`' } else { '\\' }
    }

    fn value(&self, key: DirectiveKey) -> Option<&str> {
        self.found.iter().find(|found| found.key == key).map(|found| found.value.as_str())
    }
}

impl DirectiveKey {
    /// Returns the key as it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Escape => "escape",
            Self::Check => "check",
        }
    }
}

fn parse(text: &str) -> Option<(DirectiveKey, &str)> {
    let (key, value) = text.trim_start().split_once('=')?;
    let key = key.trim_end_matches(is_space);
    let value = value.trim_matches(is_space);
    let key = [DirectiveKey::Syntax, DirectiveKey::Escape, DirectiveKey::Check]
        .into_iter()
        .find(|known| known.name().eq_ignore_ascii_case(key))?;
    (!value.is_empty()).then_some((key, value))
}

fn is_space(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ')
}

/// Returns the frontend that a file names: the first word of `# syntax=`, of
/// `// syntax=`, or of the member `syntax` if the whole file is a JSON object.
/// A `#!` line in front is skipped.
#[must_use]
pub fn syntax(text: &str) -> Option<String> {
    find(text, "#", DirectiveKey::Syntax)
        .or_else(|| find(text, "//", DirectiveKey::Syntax))
        .or_else(|| {
            let text = skip_shebang(text);
            if !text.trim_start().starts_with('{') {
                return None;
            }
            let object: serde_json::Value = serde_json::from_str(text).ok()?;
            object.get("syntax")?.as_str().map(str::to_owned)
        })
        .map(|value| value.split(' ').next().unwrap_or_default().to_owned())
}

/// Returns the value of `# check=`, also behind a `#!` line.
#[must_use]
pub fn check(text: &str) -> Option<String> {
    find(text, "#", DirectiveKey::Check)
}

fn find(text: &str, comment: &'static str, key: DirectiveKey) -> Option<String> {
    let mut directives = Directives::new(comment);
    for line in skip_shebang(text).lines() {
        if !matches!(directives.read(line, Span::default()), Ok(true)) {
            break;
        }
    }
    directives.value(key).map(str::to_owned)
}

fn skip_shebang(text: &str) -> &str {
    let text = text.trim_start_matches('\u{feff}');
    if !text.starts_with("#!") {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::{check, syntax};

    #[test]
    fn frontends() {
        for (text, expected) in [
            ("# syntax=docker/dockerfile:1\nFROM x", Some("docker/dockerfile:1")),
            ("#SYNTAX = a/b c\n", Some("a/b")),
            ("\u{feff}# syntax=a", Some("a")),
            ("#!/usr/bin/env x\n# syntax=a", Some("a")),
            ("# escape=`\n# syntax=a", Some("a")),
            ("// syntax=a\n", Some("a")),
            ("{\"syntax\": \"a\", \"x\": 1}", Some("a")),
            ("# hi\n# syntax=a", None),
            ("\n# syntax=a", None),
            ("# syntax=\n", None),
            ("# unknown=x\n# syntax=a", None),
            ("FROM x\n# syntax=a", None),
            ("{\"syntax\": 1}", None),
            ("", None),
        ] {
            assert_eq!(syntax(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(check("#!x\n#check=skip=all").as_deref(), Some("skip=all"));
    }
}
