//! Patterns of names: which repositories, which tags.

use std::fmt;
use std::str::FromStr;

/// How long a pattern may be, in bytes: as long as the longest name, and a little.
const MAX_PATTERN_BYTES: usize = 256;

/// A pattern of repositories' names.
///
/// `*` stands for any part of one component of a name, `**` for any number of
/// components where it stands alone between slashes:
///
/// ```text
/// library/*       library/app, not library/app/tools
/// team/**         team, team/app and team/app/tools
/// **              every repository
/// */release-*     app/release-1
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern(String);

impl RepositoryPattern {
    /// Returns whether the pattern stands for that repository.
    pub fn matches(&self, repository: &oci::Repository) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let name: Vec<&str> = repository.as_str().split('/').collect();
        matches_components(&pattern, &name)
    }
}

/// A pattern of tags, in which `*` stands for anything, nothing included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPattern(String);

impl TagPattern {
    /// Returns whether the pattern stands for that tag.
    pub fn matches(&self, tag: &oci::Tag) -> bool {
        matches_text(self.0.as_bytes(), tag.as_str().as_bytes())
    }
}

/// Text that is no pattern.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no pattern of {what}: {reason}")]
pub struct InvalidPattern {
    text: String,
    what: &'static str,
    reason: &'static str,
}

impl FromStr for RepositoryPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid =
            |reason| InvalidPattern { text: text.to_owned(), what: "repositories", reason };
        let is_known = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*/".contains(&byte)
        };
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(invalid("it has between 1 and 256 bytes"));
        }
        if !text.bytes().all(is_known) {
            return Err(invalid("names have lower-case letters, digits, `.`, `_`, `-` and `/`"));
        }
        for component in text.split('/') {
            if component.is_empty() {
                return Err(invalid("a component between slashes is empty"));
            }
            if component != "**" && component.contains("**") {
                return Err(invalid("`**` stands alone between slashes"));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for TagPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = |reason| InvalidPattern { text: text.to_owned(), what: "tags", reason };
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(invalid("it has between 1 and 256 bytes"));
        }
        match text.bytes().all(is_known) {
            true => Ok(Self(text.to_owned())),
            false => Err(invalid("tags have letters, digits, `.`, `_` and `-`")),
        }
    }
}

/// Lets configuration hold a pattern as text, checked where it is read.
macro_rules! as_text {
    ($type:ident, $example:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "examples": [$example] })
            }
        }
    };
}

as_text!(RepositoryPattern, "team/**");
as_text!(TagPattern, "v*");

/// Compares component by component. Two wildcards in a row say no more than one,
/// so the last `**` is the only one that a mismatch must go back to: the time is
/// at most the product of the lengths.
fn matches_components(pattern: &[&str], name: &[&str]) -> bool {
    wildcard(
        pattern,
        name,
        |component| *component == "**",
        |component, part| matches_text(component.as_bytes(), part.as_bytes()),
    )
}

fn matches_text(pattern: &[u8], text: &[u8]) -> bool {
    wildcard(pattern, text, |byte| *byte == b'*', |byte, other| byte == other)
}

/// Matches a sequence with wildcards that stand for any number of elements.
fn wildcard<T>(
    pattern: &[T],
    text: &[T],
    is_wildcard: impl Fn(&T) -> bool,
    matches: impl Fn(&T, &T) -> bool,
) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(element) if is_wildcard(element) => {
                retry = Some((at + 1, read));
                at += 1;
            }
            Some(element) if matches(element, &text[read]) => {
                at += 1;
                read += 1;
            }
            _ => {
                // The last wildcard takes one more.
                let Some((after, taken)) = retry else { return false };
                retry = Some((after, taken + 1));
                (at, read) = (after, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(is_wildcard)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        pattern.parse::<RepositoryPattern>().unwrap().matches(&name.parse().unwrap())
    }

    #[test]
    fn repositories_are_matched_by_component() {
        for (pattern, name, expected) in [
            ("**", "a", true),
            ("**", "a/b/c", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("library/*", "library/app", true),
            ("library/*", "library/app/tools", false),
            ("library/*", "library", false),
            ("team/**", "team", true),
            ("team/**", "team/app", true),
            ("team/**", "team/app/tools", true),
            ("team/**", "team-b/app", false),
            ("team/**", "a/team/app", false),
            ("**/cache", "team/app/cache", true),
            ("**/cache", "cache", true),
            ("**/cache", "team/cached", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/b/c", false),
            ("*/release-*", "app/release-1", true),
            ("*/release-*", "app/release", false),
            ("app", "app", true),
            ("app", "apps", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn tags_are_matched_as_text() {
        for (pattern, tag, expected) in [
            ("v*", "v1.2", true),
            ("v*", "latest", false),
            ("*", "anything", true),
            ("*-rc*", "1.0-rc1", true),
            ("*-rc*", "1.0", false),
            ("v*.*", "v1", false),
            ("latest", "latest", true),
        ] {
            let pattern: TagPattern = pattern.parse().unwrap();
            assert_eq!(pattern.matches(&tag.parse().unwrap()), expected, "{pattern} and {tag}");
        }
    }

    #[test]
    fn what_matches_nothing_is_refused() {
        for text in ["", "/a", "a//b", "a/", "Team/*", "a b", "a/b**", "a:b", &"a".repeat(257)] {
            assert!(text.parse::<RepositoryPattern>().is_err(), "accepted {text:?}");
        }
        for text in ["", "a b", "a/b", "v1:2"] {
            assert!(text.parse::<TagPattern>().is_err(), "accepted {text:?}");
        }
    }

    proptest! {
        /// The fast way and the plain definition agree.
        #[test]
        fn wildcards_mean_what_they_say(pattern in "[ab*]{0,7}", text in "[ab]{0,7}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|taken| plain(rest, &text[taken..])),
                    Some((byte, rest)) => {
                        text.first() == Some(byte) && plain(rest, &text[1..])
                    }
                }
            }
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches_text(pattern, text), plain(pattern, text));
        }
    }
}
