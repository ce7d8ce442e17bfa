//! Quoting as Go's `%q` does it: BuildKit's messages, dumps and history use it.

use std::fmt::Write as _;

/// Returns `text` as a double-quoted Go string literal (`strconv.Quote`).
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if is_print(c) => out.push(c),
            c => {
                let code = u32::from(c);
                // Writing to a String cannot fail.
                let _ = match code {
                    0..0x80 => write!(out, "\\x{code:02x}"),
                    0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push('"');
    out
}

/// Returns `items` as Go prints a list of strings with `%q`: `["a" "b"]`.
#[must_use]
pub fn quote_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Returns whether Go would print `c` as it is. Behind a letter, so that
/// combining marks count as printable, as they do there.
fn is_print(c: char) -> bool {
    let pair: String = ['a', c].iter().collect();
    pair.escape_debug().skip(1).eq(std::iter::once(c)) || c == '\''
}

#[cfg(test)]
mod tests {
    use super::{quote, quote_list};

    #[test]
    fn quotes_as_go_does() {
        for (text, expected) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            (r#"a"b\c'd"#, r#""a\"b\\c'd""#),
            ("\t\n\r\u{7}\u{8}\u{b}\u{c}", r#""\t\n\r\a\b\v\f""#),
            ("\u{0}\u{1b}\u{7f}", r#""\x00\x1b\x7f""#),
            ("한국어 é e\u{301}", "\"한국어 é e\u{301}\""),
            ("\u{a0}\u{200b}\u{e0001}", r#""\u00a0\u200b\U000e0001""#),
        ] {
            assert_eq!(quote(text), expected);
        }
        assert_eq!(quote_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
        assert_eq!(quote_list(&[]), "[]");
    }
}
