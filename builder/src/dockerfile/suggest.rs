//! "Did you mean …": the nearest valid word.

/// Words this far from the nearest one get no suggestion, as in BuildKit.
const MAX_DISTANCE: usize = 2;

/// Longer input is not a slip of the keyboard, and comparing it costs its square.
const MAX_CHARS: usize = 64;

/// Returns the word of `options` nearest to `word`, or `None` if none is near
/// or `word` is one of them. Case counts.
#[must_use]
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > MAX_CHARS {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let distance = distance(word, option);
        if distance == 0 {
            return None;
        }
        if distance <= MAX_DISTANCE && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, option));
        }
    }
    best.map(|(_, option)| option)
}

/// Returns how many insertions, deletions and replacements lead from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn suggests_only_what_is_near() {
        let words = ["RUN", "ENV", "COPY", "FROM"];
        for (word, expected) in [
            ("RUNN", Some("RUN")),
            ("FORM", Some("FROM")),
            ("CP", Some("COPY")),
            ("RUN", None),
            ("SOMETHING", None),
            ("", None),
            (&"R".repeat(1_000_000), None),
        ] {
            assert_eq!(nearest(word, words), expected, "{word:.20}");
        }
    }
}
