//! The name a container keeps for its whole life: 64 hexadecimal digits.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Error, IoContext as _, Result};

/// Bytes of randomness in an id; printed it is twice as long.
const ID_BYTES: usize = 32;

/// How many digits people are shown, as docker does.
const SHORT: usize = 12;

/// A container's identity: 256 random bits, printed as 64 lowercase digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Draws a new id.
    ///
    /// # Errors
    ///
    /// When the system's random numbers cannot be read.
    pub fn random() -> Result<Self> {
        Ok(Self(hex(&random_bytes::<ID_BYTES>()?)))
    }

    /// Returns all 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first 12 digits, the form people are shown.
    pub fn short(&self) -> &str {
        &self.0[..SHORT]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.len() == 2 * ID_BYTES && is_hex(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Invalid {
                what: format!("\"{text}\" is not a container id of 64 hexadecimal digits"),
            })
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Tells whether `text` could be the beginning of an id.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Reads `N` random bytes.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .doing("read random numbers from", path)?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_parses_and_differs_from_the_next() {
        let id = ContainerId::random().unwrap();
        assert_eq!(id.as_str().parse::<ContainerId>().unwrap(), id);
        assert_eq!(id.short().len(), 12);
        assert!(id.as_str().starts_with(id.short()));
        assert_ne!(id, ContainerId::random().unwrap());
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        let long = "a".repeat(65);
        let upper = "A".repeat(64);
        let dots = format!("../{}", "a".repeat(61));
        for text in ["", "abc", &long, &upper, &dots] {
            assert!(text.parse::<ContainerId>().is_err(), "accepted {text:?}");
        }
    }

    #[test]
    fn bytes_are_printed_high_digit_first() {
        assert_eq!(hex(&[0x01, 0xaf]), "01af");
    }
}
