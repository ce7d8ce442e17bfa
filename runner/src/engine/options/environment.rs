//! `--env`, `--env-file` and `--label`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;

/// One `--env` argument: `KEY=value`, or `KEY` to take the caller's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvEntry {
    /// The variable's name.
    pub key: String,
    /// Its value; `None` takes over the caller's, if there is one.
    pub value: Option<String>,
}

impl FromStr for EnvEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        if key.is_empty() {
            return Err("the variable has no name".to_owned());
        }
        Ok(Self { key: key.to_owned(), value })
    }
}

/// One `--label` argument: `KEY=value`, or `KEY` for an empty value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The label's key.
    pub key: String,
    /// Its value, possibly empty.
    pub value: String,
}

impl FromStr for Label {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// Reads an environment file as docker does: one `KEY=value` or `KEY` per
/// line, `#` comments, no quoting, no expansion.
///
/// # Errors
///
/// A sentence naming the line that is not UTF-8, has no name, or has blanks in
/// its name.
pub fn parse_env_file(bytes: &[u8]) -> Result<Vec<EnvEntry>, String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let number = index + 1;
        let line = std::str::from_utf8(line).map_err(|_| format!("line {number} is not UTF-8"))?;
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry: EnvEntry = line.parse().map_err(|reason| format!("line {number}: {reason}"))?;
        if entry.key.contains(char::is_whitespace) {
            return Err(format!("line {number}: the name \"{}\" contains blanks", entry.key));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Lays environments over each other, later entries winning, and keeps the
/// order in which names first appeared.
pub fn merge_environment<'a>(entries: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut places = BTreeMap::new();
    let mut merged: Vec<String> = Vec::new();
    for entry in entries {
        let key = entry.split_once('=').map_or(entry, |(key, _)| key);
        match places.get(key) {
            Some(&place) => entry.clone_into(&mut merged[place]),
            None => {
                places.insert(key, merged.len());
                merged.push(entry.to_owned());
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: Option<&str>) -> EnvEntry {
        EnvEntry { key: key.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn entries_split_at_the_first_equals_sign() {
        for (text, expected) in [
            ("A=1", entry("A", Some("1"))),
            ("A=", entry("A", Some(""))),
            ("A", entry("A", None)),
            ("A=b=c", entry("A", Some("b=c"))),
            ("A= x ", entry("A", Some(" x "))),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
        assert!("=x".parse::<EnvEntry>().is_err());
        assert!("".parse::<EnvEntry>().is_err());
    }

    #[test]
    fn files_have_comments_blank_lines_and_no_quoting() {
        let text = "\u{feff}# comment\n\n  A=1\r\nB\nC=\"quoted\" # not a comment\n";
        assert_eq!(
            parse_env_file(text.as_bytes()).unwrap(),
            [
                entry("A", Some("1")),
                entry("B", None),
                entry("C", Some("\"quoted\" # not a comment"))
            ]
        );
    }

    #[test]
    fn bad_lines_are_named() {
        for (bytes, message) in [
            (&b"A=1\nB C=2"[..], "line 2: the name \"B C\" contains blanks"),
            (b"=x", "line 1: the variable has no name"),
            (b"A=\xff", "line 1 is not UTF-8"),
        ] {
            assert_eq!(parse_env_file(bytes).unwrap_err(), message);
        }
    }

    #[test]
    fn later_values_win_in_the_first_place() {
        assert_eq!(merge_environment(["A=1", "B=2", "A=3", "C"]), ["A=3", "B=2", "C"]);
    }

    #[test]
    fn a_label_without_a_value_has_an_empty_one() {
        assert_eq!("a".parse::<Label>().unwrap().value, "");
        assert_eq!("a=b=c".parse::<Label>().unwrap().value, "b=c");
    }
}
