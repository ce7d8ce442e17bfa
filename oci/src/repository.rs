//! The two parts of a reference that registries know: repository and tag.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result, excerpt};

/// The longest repository name that clients and registries accept, in bytes.
///
/// `RepositoryNameTotalLengthMax` of distribution's `reference` package.
pub const MAX_REPOSITORY_LENGTH: usize = 255;

/// The longest tag that clients and registries accept, in bytes.
///
/// distribution-spec, "Pulling manifests".
pub const MAX_TAG_LENGTH: usize = 128;

/// The name of a repository within its registry, such as `library/busybox`.
///
/// Lower-case words joined by `.`, `_`, `__` or any number of `-`, in
/// components joined by `/`; see distribution-spec, "Pulling manifests".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Repository(String);

impl Repository {
    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the components between the slashes; there is at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Err(Error::Repository { text: excerpt(text), reason });
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > MAX_REPOSITORY_LENGTH {
            return refuse("it is longer than 255 bytes");
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return refuse("it must be lower-case");
        }
        for component in text.split('/') {
            if component.is_empty() {
                return refuse("a component between slashes is empty");
            }
            if !is_component(component.as_bytes()) {
                return refuse(
                    "components are a-z and 0-9, joined by one `.`, one or two `_`, or `-`",
                );
            }
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether `text` is words of `[a-z0-9]+` joined by `.`, `_`, `__` or `-`+.
fn is_component(text: &[u8]) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_in_words = text.first().is_some_and(|&byte| is_word(byte))
        && text.last().is_some_and(|&byte| is_word(byte));
    // Between words, each run of other bytes must be one separator.
    ends_in_words
        && text
            .split(|&byte| is_word(byte))
            .filter(|run| !run.is_empty())
            .all(|run| matches!(run, b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A name that a repository gives to one manifest at a time, such as `latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tag(String);

impl Tag {
    /// Returns the tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason| Err(Error::Tag { text: excerpt(text), reason });
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.as_bytes() {
            [] => refuse("it is empty"),
            bytes if bytes.len() > MAX_TAG_LENGTH => refuse("it is longer than 128 bytes"),
            [first, ..] if !is_word(*first) => {
                refuse("it must start with a letter, a digit or `_`")
            }
            [_, rest @ ..]
                if !rest.iter().all(|&byte| is_word(byte) || byte == b'.' || byte == b'-') =>
            {
                refuse("it may hold letters, digits, `_`, `.` and `-`")
            }
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_what_the_grammar_allows() {
        for text in [
            "a",
            "0",
            "library/busybox",
            "a/b/c/d",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a.b_c__d-e",
            "0/1",
            "foo/bar.baz",
        ] {
            assert_eq!(text.parse::<Repository>().unwrap().as_str(), text);
        }
        assert!("a".repeat(255).parse::<Repository>().is_ok());
        for text in ["latest", "1", "_x", "1.2.3", "A", "a-b", "a..b", "a.", "a-"] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
        assert!("a".repeat(128).parse::<Tag>().is_ok());
    }

    #[test]
    fn refuses_what_the_grammar_forbids() {
        let long = "a".repeat(256);
        for text in [
            "", "/", "a/", "/a", "a//b", "A", "a/B", "a..b", "a___b", "a._b", "a-.b", ".a", "a.",
            "-a", "a-", "_a", "a_", "a b", "a:b", "é", "a/../b", "a@b", "a\0", &long,
        ] {
            assert!(text.parse::<Repository>().is_err(), "accepted {text:?}");
        }
        let long = "a".repeat(129);
        for text in ["", ".a", "-a", "a b", "a/b", "a:b", "a@b", "é", "aé", "a\n", &long] {
            assert!(text.parse::<Tag>().is_err(), "accepted {text:?}");
        }
    }

    proptest! {
        #[test]
        fn everything_the_grammar_makes_is_accepted(
            text in "[a-z0-9]+((\\.|_|__|-{1,3})[a-z0-9]+){0,3}(/[a-z0-9]+((\\.|_|__|-{1,3})[a-z0-9]+){0,2}){0,2}"
        ) {
            prop_assume!(text.len() <= MAX_REPOSITORY_LENGTH);
            prop_assert_eq!(text.parse::<Repository>().unwrap().to_string(), text);
        }

        #[test]
        fn what_is_accepted_is_printed_unchanged(text in "\\PC{0,12}") {
            if let Ok(repository) = text.parse::<Repository>() {
                prop_assert_eq!(repository.to_string(), text.clone());
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert_eq!(tag.to_string(), text);
            }
        }
    }
}
