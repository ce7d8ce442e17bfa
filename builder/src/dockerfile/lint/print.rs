//! What a check prints: BuildKit's JSON, and buildx's text.

use std::fmt::Write as _;

use base64::Engine as _;
use serde::Serialize;

use super::Warning;

/// The file that was checked.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its name: the last part of its path in JSON, the path as given in text.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// What keeps the file from being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// The message, in BuildKit's form.
    pub message: String,
    /// The first and last line it is about, if it is about any.
    pub lines: Option<(usize, usize)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Results<'a> {
    /// `null` where there are none, as Go has it.
    warnings: Option<Vec<Entry<'a>>>,
    sources: [SourceInfo<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<Failure<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct SourceInfo<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct Failure<'a> {
    message: &'a str,
    location: Location,
}

/// A place in a document of BuildKit's: one range for each line, no columns.
#[derive(Serialize, Debug)]
pub(crate) struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize, Debug)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize, Debug)]
struct Position {
    line: usize,
}

impl Location {
    pub(crate) fn of_lines(first: usize, last: usize) -> Self {
        let position = |line| Position { line };
        let range = |line| Range { start: position(line), end: position(line) };
        Self { ranges: (first..=last.max(first)).map(range).collect() }
    }
}

/// Returns the results of a check as `--call=check,format=json` prints them. The source has
/// no `definition`: there it is how BuildKit got the file, here it was read.
#[must_use]
pub fn to_json(warnings: &[Warning], error: Option<&BuildError>, source: Source<'_>) -> String {
    let entries = warnings.iter().map(|warning| Entry {
        rule_name: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: &warning.message,
        location: Location::of_lines(warning.span.line, warning.span.end_line),
    });
    let results = Results {
        warnings: (!warnings.is_empty()).then(|| entries.collect()),
        sources: [SourceInfo {
            filename: source.name,
            data: encode(source.text),
            language: "Dockerfile",
        }],
        build_error: error.map(|error| Failure {
            message: &error.message,
            location: error.lines.map_or(Location { ranges: Vec::new() }, |(first, last)| {
                Location::of_lines(first, last)
            }),
        }),
    };
    pretty(&results)
}

/// Returns a text in base64, as Go writes bytes into JSON.
pub(crate) fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Writes JSON as Go does: two blanks a level, and nothing in it that HTML could take for its own.
pub(crate) fn pretty(value: &impl Serialize) -> String {
    // These types have string keys and no maps: writing them cannot fail.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns the warnings as buildx prints them: how many, then each with its lines.
#[must_use]
pub fn to_text(warnings: &[Warning], source: Source<'_>) -> String {
    let mut out = match warnings.len() {
        0 => return String::new(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let mut sorted: Vec<&Warning> = warnings.iter().collect();
    sorted.sort_by_key(|warning| warning.span.line);
    let lines: Vec<&str> = source.text.split('\n').collect();
    for warning in sorted {
        let _ = write!(out, "\nWARNING: {}", warning.rule.name());
        if let Some(url) = warning.rule.url() {
            let _ = write!(out, " - {url}");
        }
        let _ = writeln!(out, "\n{}", printable(&warning.message));
        out.push_str(&excerpt(source.name, &lines, warning.span.line, warning.span.end_line));
    }
    out
}

/// Returns the lines around those from `first` to `last`, which are marked; nothing if they
/// are none of the file's.
fn excerpt(name: &str, lines: &[&str], first: usize, last: usize) -> String {
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let last = last.max(first).min(lines.len());
    let (mut from, mut to, mut shown) = (first, last, 0);
    // One line alone is hard to find again: it gets more company.
    let wanted = if first == last { 4 } else { 2 };
    while shown < wanted {
        if from > 1 {
            from -= 1;
            shown += 1;
        }
        if to < lines.len() {
            to += 1;
            shown += 1;
        }
        shown += 1;
    }
    let mut out = format!("{name}:{first}\n--------------------\n");
    for (number, line) in (1..).zip(lines).skip(from - 1).take(to + 1 - from) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:3} | {mark} {}", printable(line));
    }
    out.push_str("--------------------\n");
    out
}

/// Returns a text of the file without what commands a terminal; the end of a line of
/// Windows is dropped.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '\t' => "\t".to_owned(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.into(),
    };
    text.trim_end_matches('\r').chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;
    use crate::dockerfile::Span;

    const TEXT: &str = "FROM a AS B\nRUN x\nRUN y \\\n  z\nCMD <q>\nUSER 1\n";

    fn warning(rule: Rule, first: usize, last: usize, message: &str) -> Warning {
        let span = Span { line: first, column: 1, length: 1, end_line: last };
        Warning { rule, message: message.to_owned(), span }
    }

    #[test]
    fn json_is_written_as_go_writes_it() {
        let warnings = [warning(Rule::InvalidBaseImagePlatform, 3, 4, "<a> & \"b\"")];
        let error = BuildError { message: "no".to_owned(), lines: None };
        let source = Source { name: "Dockerfile", text: "FROM a\n" };
        insta::assert_snapshot!(to_json(&warnings, Some(&error), source), @r#"
        {
          "warnings": [
            {
              "ruleName": "InvalidBaseImagePlatform",
              "description": "Base image platform does not match expected target platform",
              "detail": "\u003ca\u003e \u0026 \"b\"",
              "location": {
                "ranges": [
                  {
                    "start": {
                      "line": 3
                    },
                    "end": {
                      "line": 3
                    }
                  },
                  {
                    "start": {
                      "line": 4
                    },
                    "end": {
                      "line": 4
                    }
                  }
                ]
              }
            }
          ],
          "sources": [
            {
              "filename": "Dockerfile",
              "data": "RlJPTSBhCg==",
              "language": "Dockerfile"
            }
          ],
          "buildError": {
            "message": "no",
            "location": {}
          }
        }
        "#);
        assert!(to_json(&[], None, source).starts_with("{\n  \"warnings\": null,\n"));
    }

    #[test]
    fn text_is_sorted_by_line_and_shows_the_place() {
        let warnings = [
            warning(Rule::JsonArgsRecommended, 5, 5, "JSON \u{1b}[31m"),
            warning(Rule::StageNameCasing, 1, 1, "Stage"),
        ];
        let source = Source { name: "dir/File", text: TEXT };
        assert_eq!(
            to_text(&warnings, source),
            "Check complete, 2 warnings have been found!\n\
             \nWARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
             Stage\ndir/File:1\n--------------------\n   1 | >>> FROM a AS B\n   2 |     RUN x\n   \
             3 |     RUN y \\\n--------------------\n\
             \nWARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\
             JSON \\u{1b}[31m\ndir/File:5\n--------------------\n   3 |     RUN y \\\n   4 |       z\n   \
             5 | >>> CMD <q>\n   6 |     USER 1\n   7 |     \n--------------------\n"
        );
        assert_eq!(to_text(&[], source), "");
    }

    #[test]
    fn places_outside_of_the_file_show_nothing() {
        let lines: Vec<&str> = TEXT.split('\n').collect();
        assert_eq!(
            (excerpt("f", &lines, 0, 0), excerpt("f", &lines, 9, 9)),
            (String::new(), String::new())
        );
        assert_eq!(
            excerpt("f", &lines, 3, 90),
            "f:3\n--------------------\n   2 |     RUN x\n   3 | >>> RUN y \\\n   4 | >>>   z\n   \
             5 | >>> CMD <q>\n   6 | >>> USER 1\n   7 | >>> \n--------------------\n"
        );
    }
}
