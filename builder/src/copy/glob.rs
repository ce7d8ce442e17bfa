//! The wildcards of COPY and ADD: one name at a time, as Go's `filepath.Match` has them.

/// Returns whether a word has wildcards or escapes, and is not just a name.
#[must_use]
pub(super) fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '[', '\\'])
}

/// Returns whether `name` (without slashes) matches `pattern`; a malformed pattern matches nothing.
#[must_use]
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // The classical two-pointer match: on a mismatch, the last star takes one more.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], name[n]) {
            Some(taken) => {
                p += taken;
                n += 1;
            }
            None => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
}

/// Matches one character; returns how much of the pattern that took.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '?' => Some(1),
        '\\' => (*pattern.get(1)? == c).then_some(2),
        '[' => class(pattern, c),
        literal => (literal == c).then_some(1),
    }
}

/// Matches a `[a-z]` class at the start of `pattern`.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    if negated {
        at += 1;
    }
    let (mut found, mut ranges) = (false, 0);
    loop {
        if ranges > 0 && *pattern.get(at)? == ']' {
            return (found != negated).then_some(at + 1);
        }
        let (low, next) = class_char(pattern, at)?;
        let (high, next) =
            if *pattern.get(next)? == '-' { class_char(pattern, next + 1)? } else { (low, next) };
        found |= (low..=high).contains(&c);
        at = next;
        ranges += 1;
    }
}

fn class_char(pattern: &[char], at: usize) -> Option<(char, usize)> {
    match *pattern.get(at)? {
        '-' | ']' => None,
        '\\' => Some((*pattern.get(at + 1)?, at + 2)),
        c => Some((c, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_filepath_match_does() {
        let table = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b*c*d*e*", "axbxcxdxe", true),
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
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("[-]", "-", false),
            ("[]a]", "]", false),
            ("a[", "a", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} on {name:?}");
        }
    }
}
