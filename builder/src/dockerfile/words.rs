//! Cutting a line into words: blanks, quotes, flags, JSON.
//!
//! Quotes and escapes stay in the words; expansion takes them out later
//! ([`super::expand`]). Only flags lose theirs here, as in BuildKit.

use std::ops::Range;

/// A word and where it stands in its logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) range: Range<usize>,
}

/// A part of a logical line that knows where it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) start: usize,
}

impl<'a> Text<'a> {
    pub(super) fn trim(self) -> Self {
        let rest = self.text.trim_start();
        let start = self.start + (self.text.len() - rest.len());
        Self { text: rest.trim_end(), start }
    }

    /// Cuts off the first `length` bytes.
    pub(super) fn skip(self, length: usize) -> Self {
        Self { text: &self.text[length..], start: self.start + length }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub(super) fn word(self) -> Word {
        Word { text: self.text.to_owned(), range: self.range() }
    }

    /// Cuts at the first run of blanks; `None` if there is none.
    pub(super) fn split_once(self) -> Option<(Text<'a>, Text<'a>)> {
        let end = self.text.find(is_blank)?;
        let first = Text { text: &self.text[..end], start: self.start };
        let rest = self.text[end..].trim_start_matches(is_blank);
        Some((first, self.skip(self.text.len() - rest.len())))
    }
}

/// The blanks that separate words. Other white space of Unicode does not.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Cuts at blanks, with no regard to quotes (FROM, EXPOSE, COPY, …).
pub(super) fn split_blanks(text: Text<'_>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = text;
    if rest.text.is_empty() {
        return words;
    }
    while let Some((word, tail)) = rest.split_once() {
        words.push(word.word());
        rest = tail;
    }
    words.push(rest.word());
    words
}

/// Cuts at white space outside quotes (ENV, LABEL, ARG). Quotes and escapes stay.
pub(super) fn split_quoted(text: Text<'_>, escape: char) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word = Word { text: String::new(), range: 0..0 };
    let mut in_word = false;
    let mut quote: Option<char> = None;
    let mut chars = text.text.char_indices();
    while let Some((at, c)) = chars.next() {
        let end = text.start + at + c.len_utf8();
        if !in_word {
            if c.is_whitespace() {
                continue;
            }
            in_word = true;
            word = Word { text: String::new(), range: end - c.len_utf8()..end };
        } else if c.is_whitespace() && quote.is_none() {
            in_word = false;
            words.push(std::mem::replace(&mut word, Word { text: String::new(), range: 0..0 }));
            continue;
        }
        word.range.end = end;
        // Nothing escapes in single quotes.
        if c == escape && quote != Some('\'') {
            // At the very end the escape character is dropped.
            if let Some((at, next)) = chars.next() {
                word.text.push(c);
                word.text.push(next);
                word.range.end = text.start + at + next.len_utf8();
            }
            continue;
        }
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '\'' | '"') {
            quote = Some(c);
        }
        word.text.push(c);
    }
    if in_word && !word.text.is_empty() {
        words.push(word);
    }
    words
}

/// Takes the `--flag` words off the front; returns them and what follows.
///
/// Quotes and escapes in them are removed, so that `--mount="a b"` is one
/// flag. A lone `--` ends the flags and is dropped.
pub(super) fn split_flags(text: Text<'_>, escape: char) -> (Vec<Word>, Text<'_>) {
    let mut flags = Vec::new();
    let mut rest = text.trim();
    while rest.text.starts_with("--") {
        let (flag, length) = read_flag(rest.text, escape);
        let range = rest.start..rest.start + length;
        rest = rest.skip(length);
        if flag == "--" {
            break;
        }
        flags.push(Word { text: flag, range });
        rest = rest.trim();
    }
    (flags, rest)
}

/// Reads one flag; returns it and its length in the line.
fn read_flag(text: &str, escape: char) -> (String, usize) {
    let mut flag = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == escape {
            // At the very end the escape character is dropped.
            if let Some((_, next)) = chars.next() {
                flag.push(next);
            }
        } else if quote == Some(c) {
            quote = None;
        } else if quote.is_some() {
            flag.push(c);
        } else if c.is_whitespace() {
            return (flag, at);
        } else if matches!(c, '\'' | '"') {
            quote = Some(c);
        } else {
            flag.push(c);
        }
    }
    (flag, text.len())
}

/// What a text that may be a JSON array turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// An array of strings.
    Strings(Vec<String>),
    /// Not JSON: the text stands for itself.
    Not,
    /// A JSON array with something else than strings in it.
    Mixed,
}

/// Reads a JSON array of strings. Anything that is not valid JSON to the end
/// of the text is [`Json::Not`].
pub(super) fn json_array(text: &str) -> Json {
    if !text.starts_with('[') {
        return Json::Not;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
        return Json::Not;
    };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    });
    strings.collect::<Option<_>>().map_or(Json::Mixed, Json::Strings)
}

#[cfg(test)]
mod tests {
    use super::{Json, Text, json_array, split_blanks, split_flags, split_quoted};

    fn text(text: &str) -> Text<'_> {
        Text { text, start: 0 }
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        for (line, expected) in [
            ("", &[][..]),
            ("a b", &["a", "b"]),
            ("a=\"b c\" d='e f'", &["a=\"b c\"", "d='e f'"]),
            (r"a=b\ c d", &[r"a=b\ c", "d"]),
            (r#"a="b\" c" d"#, &[r#"a="b\" c""#, "d"]),
            (r"a='b\' c'", &[r"a='b\'", "c'"]),
            ("a=\"unclosed b", &["a=\"unclosed b"]),
            (r"a\", &["a"]),
            (r"\", &[]),
            ("\"\" b", &["\"\"", "b"]),
            ("a\u{a0}b", &["a", "b"]),
        ] {
            let words: Vec<String> =
                split_quoted(text(line), '\\').into_iter().map(|w| w.text).collect();
            assert_eq!(words, expected, "{line:?}");
        }
    }

    #[test]
    fn words_know_where_they_stand() {
        let line = "  a=\"b c\"  dé=f ";
        for word in split_quoted(text(line), '\\') {
            assert_eq!(&line[word.range], word.text);
        }
        for word in split_blanks(text("a  b\tc")) {
            assert_eq!(&"a  b\tc"[word.range], word.text);
        }
    }

    #[test]
    fn flags_lose_quotes_and_escapes() {
        for (line, flags, rest) in [
            ("--a --b=c rest --d", &["--a", "--b=c"][..], "rest --d"),
            ("--a='b c' x", &["--a=b c"], "x"),
            (r"--a=b\ c x", &["--a=b c"], "x"),
            ("-- --a x", &[], "--a x"),
            ("--a -- --b", &["--a"], "--b"),
            ("-a --b", &[], "-a --b"),
            ("--a", &["--a"], ""),
            ("--chown=ü:é x", &["--chown=ü:é"], "x"),
            (r"--a\", &["--a"], ""),
        ] {
            let (found, after) = split_flags(text(line), '\\');
            let found: Vec<String> = found.into_iter().map(|w| w.text).collect();
            assert_eq!(
                (found, after.trim().text),
                (flags.iter().map(ToString::to_string).collect(), rest),
                "{line:?}"
            );
        }
    }

    #[test]
    fn json_is_an_array_of_strings_or_nothing() {
        for (line, expected) in [
            ("[]", Json::Strings(vec![])),
            (r#"["a", "b\n\u00e9"]"#, Json::Strings(vec!["a".into(), "b\né".into()])),
            (r#"["a", 1]"#, Json::Mixed),
            (r#"["a", ["b"]]"#, Json::Mixed),
            ("['a']", Json::Not),
            (r#"["a""#, Json::Not),
            (r#"["a"] b"#, Json::Not),
            ("[]random", Json::Not),
            ("a", Json::Not),
        ] {
            assert_eq!(json_array(line), expected, "{line}");
        }
    }
}
