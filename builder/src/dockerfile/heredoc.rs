//! Heredocs: finding `<<WORD` in a line, and what the word says.
//!
//! A word `3<<-'EOF'` has a file descriptor (3), a `-` that drops leading tabs
//! of the body, and a name; a quote anywhere in the name means that the body
//! is not expanded. Quoting the whole (`"<<EOF"`) makes it no heredoc, as does
//! a third `<`. `<< EOF` is one, `<<- EOF` in a line is not, as in BuildKit.

use super::ast::Heredoc;
use super::expand::{ExpandError, Expander};

/// Returns the heredocs that `line` opens, their bodies still empty.
///
/// # Errors
///
/// Fails if a word's quotes make no sense. A line that cannot be split at all
/// opens none.
pub(super) fn find(line: &str) -> Result<Vec<Heredoc>, ExpandError> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let words = Expander::for_heredocs(true, true).words(line, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| parse_word(word).transpose()).collect()
}

/// Returns the heredoc that `word` opens, `None` if it opens none.
///
/// # Errors
///
/// Fails if quotes in it do not end.
pub(super) fn parse_word(word: &str) -> Result<Option<Heredoc>, ExpandError> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &word[..word.len() - rest.len()];
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (rest, chomp) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    let raw = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if raw.is_empty() || raw.contains('<') {
        return Ok(None);
    }
    let names = Expander::for_heredocs(false, false).words(raw, &|_| None)?;
    let quoted = Expander::for_heredocs(true, false).words(raw, &|_| None)?;
    let ([name], [quoted]) = (names.as_slice(), quoted.as_slice()) else { return Ok(None) };
    Ok(Some(Heredoc {
        expand: count_quotes(name) == count_quotes(quoted),
        name: name.clone(),
        // A number too large for a descriptor is one that the shell will refuse.
        fd: if digits.is_empty() { 0 } else { digits.parse().unwrap_or(u32::MAX) },
        chomp,
        body: String::new(),
    }))
}

fn count_quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

#[cfg(test)]
mod tests {
    use super::{find, parse_word};

    #[test]
    fn words_that_are_heredocs() {
        for (word, name, fd, expand, chomp) in [
            ("<<EOF", "EOF", 0, true, false),
            ("<<-EOF", "EOF", 0, true, true),
            ("<<'EOF'", "EOF", 0, false, false),
            ("<<-\"EOF\"", "EOF", 0, false, true),
            ("<<EO\"F\"", "EOF", 0, false, false),
            ("<< EOF", "EOF", 0, true, false),
            ("<<- EOF", "EOF", 0, true, true),
            ("4<<EOF", "EOF", 4, true, false),
            ("99999999999<<EOF", "EOF", u32::MAX, true, false),
            (r"<<eo\'f", "eo'f", 0, true, false),
            (r"<<'e'o\'f", "eo'f", 0, false, false),
            ("<<'one two'", "one two", 0, false, false),
            ("<<$EOF", "$EOF", 0, true, false),
            ("<<${EOF:-x}", "${EOF:-x}", 0, true, false),
        ] {
            let found = parse_word(word).unwrap().unwrap();
            assert_eq!(
                (found.name.as_str(), found.fd, found.expand, found.chomp),
                (name, fd, expand, chomp),
                "{word}"
            );
        }
    }

    #[test]
    fn words_that_are_not() {
        for word in ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh", "x<<EOF", "<<a<b"] {
            assert_eq!(parse_word(word), Ok(None), "{word}");
        }
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'", "<<EOF\""] {
            assert!(parse_word(word).is_err(), "accepted {word}");
        }
    }

    #[test]
    fn heredocs_of_a_line() {
        for (line, expected) in [
            ("RUN <<EOF", &["EOF"][..]),
            ("RUN << -EOF", &["-EOF"]),
            ("RUN <<- EOF", &[]),
            ("RUN 4<<EOF cat", &["EOF"]),
            ("COPY <<A <<B /x", &["A", "B"]),
            ("RUN <<  EOF  > foo", &["EOF"]),
            ("RUN '<<EOF'", &[]),
            ("RUN \"<<EOF\"", &[]),
            ("RUN cat <<<EOF", &[]),
            ("RUN it's <<EOF", &[]),
            ("RUN cat <<EOF; echo", &["EOF;"]),
        ] {
            let names: Vec<String> = find(line).unwrap().into_iter().map(|h| h.name).collect();
            assert_eq!(names, expected, "{line}");
        }
    }
}
