//! The wildcards of COPY and ADD sources: Go's `filepath.Match`.
//!
//! `*` is any text without `/`, `?` one character but `/`, `[a-z]` and
//! `[^a-z]` one of or none of a set, `\` takes the next character as it is.
//! A pattern is compared with a whole name. There is no `**`.

/// A pattern with brackets or an escape that do not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Returns whether `name` matches `pattern`.
///
/// # Errors
///
/// Fails if the pattern is malformed anywhere, whether or not `name` matches up to there.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let mut rest = pattern;
    let mut name = name;
    'chunks: while !rest.is_empty() {
        let is_star = rest.starts_with('*');
        rest = rest.trim_start_matches('*');
        let (chunk, after) = rest.split_at(chunk_end(rest));
        rest = after;
        if is_star && chunk.is_empty() {
            // A star at the end takes the rest, but not beyond this part.
            return Ok(!name.contains('/'));
        }
        // Only the last chunk has to reach the end of the name.
        let fits = |left: &str| left.is_empty() || !rest.is_empty();
        if let Some(left) = match_chunk(chunk, Some(name))?.filter(|left| fits(left)) {
            name = left;
            continue;
        }
        if is_star {
            for (at, c) in name.char_indices() {
                if c == '/' {
                    break;
                }
                let tail = &name[at + c.len_utf8()..];
                if let Some(left) = match_chunk(chunk, Some(tail))?.filter(|left| fits(left)) {
                    name = left;
                    continue 'chunks;
                }
            }
        }
        check_rest(rest)?;
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Returns whether `pattern` has a wildcard that is not escaped.
#[must_use]
pub fn has_wildcard(pattern: &str) -> bool {
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// The rest of a pattern that did not match must still be well formed.
fn check_rest(mut rest: &str) -> Result<(), BadPattern> {
    while !rest.is_empty() {
        rest = rest.trim_start_matches('*');
        let (chunk, after) = rest.split_at(chunk_end(rest));
        match_chunk(chunk, None)?;
        rest = after;
    }
    Ok(())
}

/// Returns where the text before the next star ends.
fn chunk_end(pattern: &str) -> usize {
    let mut in_brackets = false;
    let mut chars = pattern.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '[' => in_brackets = true,
            ']' => in_brackets = false,
            '*' if !in_brackets => return at,
            _ => {}
        }
    }
    pattern.len()
}

/// Matches a chunk, which has no star, with the start of `name`; returns what
/// is left of it. With a `name` of `None`, or one that does not match, the
/// chunk is still read to its end for errors.
fn match_chunk<'n>(
    mut chunk: &str,
    mut name: Option<&'n str>,
) -> Result<Option<&'n str>, BadPattern> {
    let pop = |text: &str| text.chars().next();
    while let Some(c) = pop(chunk) {
        let wanted = name.and_then(pop);
        chunk = &chunk[c.len_utf8()..];
        let is_match = match c {
            '[' => {
                let (is_match, rest) = match_class(chunk, wanted)?;
                chunk = rest;
                is_match
            }
            '?' => wanted != Some('/'),
            '\\' => {
                let literal = pop(chunk).ok_or(BadPattern)?;
                chunk = &chunk[literal.len_utf8()..];
                wanted == Some(literal)
            }
            literal => wanted == Some(literal),
        };
        name = match (name, wanted) {
            (Some(text), Some(c)) if is_match => Some(&text[c.len_utf8()..]),
            _ => None,
        };
    }
    Ok(name)
}

/// Matches `wanted` with a class whose `[` is read; returns what follows the class.
fn match_class(chunk: &str, wanted: Option<char>) -> Result<(bool, &str), BadPattern> {
    let (mut rest, is_negated) =
        chunk.strip_prefix('^').map_or((chunk, false), |rest| (rest, true));
    let mut is_member = false;
    let mut is_first = true;
    loop {
        if !is_first && let Some(rest) = rest.strip_prefix(']') {
            return Ok((wanted.is_some() && is_member != is_negated, rest));
        }
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.strip_prefix('-') {
            Some(after) => class_char(after)?,
            None => (low, after),
        };
        is_member |= wanted.is_some_and(|c| (low..=high).contains(&c));
        is_first = false;
        rest = after;
    }
}

/// Reads one character of a class; something must follow it, if only the `]`.
fn class_char(text: &str) -> Result<(char, &str), BadPattern> {
    let text = match text.chars().next() {
        None | Some('-' | ']') => return Err(BadPattern),
        Some('\\') => &text[1..],
        Some(_) => text,
    };
    let c = text.chars().next().ok_or(BadPattern)?;
    let rest = &text[c.len_utf8()..];
    if rest.is_empty() { Err(BadPattern) } else { Ok((c, rest)) }
}

#[cfg(test)]
mod tests {
    use super::{BadPattern, has_wildcard, matches};

    #[test]
    fn matches_as_go_does() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "x", true),
            ("**", "ab", true),
            ("**/b", "a/b", true),
            ("**/b", "a/c/b", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("?", "", false),
            ("a]", "a]", true),
        ] {
            assert_eq!(matches(pattern, name), Ok(expected), "{pattern} {name}");
        }
    }

    #[test]
    fn malformed_patterns_are_refused_wherever_the_fault_is() {
        for pattern in [
            "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a*[", "b[a",
            "xyz*[",
        ] {
            assert_eq!(matches(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn wildcards() {
        for (pattern, expected) in [
            ("a", false),
            ("a*", true),
            ("a\\*", false),
            ("a\\*?", true),
            ("[", true),
            ("\\", false),
        ] {
            assert_eq!(has_wildcard(pattern), expected, "{pattern}");
        }
    }
}
