//! The names of volumes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name. Docker has no limit; a file name has, and this leaves
/// room for what is put around it.
const MAX_LENGTH: usize = 200;

/// The name of a volume: a letter or digit, then letters, digits, `_`, `.`, `-`.
///
/// It is safe as a file name: never empty, never `.` or `..`, no slash, and not
/// hidden.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl VolumeName {
    /// Returns the name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        // Two characters at least, as docker has it.
        if starts_well && text.chars().all(is_allowed) && (2..=MAX_LENGTH).contains(&text.len()) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "\"{text}\" is no name of a volume: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to {MAX_LENGTH} of them"
        ))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_as_file_names() {
        for text in ["db", "db-data_1.0", "0a", &"a".repeat(200)] {
            assert_eq!(text.parse::<VolumeName>().unwrap().as_str(), text);
        }
        for text in
            ["", "a", ".hidden", "..", "a/b", "/ab", "a b", "-ab", "äb", "a\0b", &"a".repeat(201)]
        {
            let error = text.parse::<VolumeName>().unwrap_err();
            assert!(error.contains("is no name of a volume"), "{text:?} gave {error:?}");
        }
    }
}
