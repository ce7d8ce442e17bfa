//! Query strings.

use super::error::{ApiError, ErrorCode};

/// How many parameters a request may have: a push sets up to 64 tags.
const MAX_PARAMETERS: usize = 256;

/// The parameters of a request, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what follows the question mark.
    ///
    /// A plus is a plus (RFC 3986), not a space as in forms: media types have
    /// them (`…+json`), and nothing that the API takes has spaces.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = |message: &str| ApiError::new(ErrorCode::Unsupported, message).bad_request();
        let mut parameters = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(invalid("the request has too many parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (percent_decode(name), percent_decode(value)) {
                (Some(name), Some(value)) => parameters.push((name, value)),
                _ => return Err(invalid("a parameter is not percent-encoded text")),
            }
        }
        Ok(Self(parameters))
    }

    /// Returns the first parameter of that name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns every parameter of that name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// Returns what percent-encoded text stands for, if it is text without control
/// characters.
pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        let (high, low) = (digit()?, digit()?);
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}

/// Returns `text` so that it can stand as a value in a query.
pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query =
            Query::parse("n=5&last=a%2Fb&&tag=x&tag=y+z&flag&artifactType=a/b%2Bjson&a+b=%20")
                .unwrap();
        assert_eq!(query.get("n"), Some("5"));
        assert_eq!(query.get("last"), Some("a/b"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["x", "y+z"]);
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("artifactType"), Some("a/b+json"));
        assert_eq!(query.get("a+b"), Some(" "));
        assert_eq!(query.get("missing"), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a=%", "a=%g0", "a=%0", "a=%ff", "a=%00", &"x&".repeat(257)] {
            assert!(Query::parse(text).is_err(), "accepted {text:?}");
        }
    }

    proptest! {
        #[test]
        fn encoding_comes_back(text in "\\PC{0,20}") {
            prop_assert_eq!(percent_decode(&percent_encode(&text)), Some(text));
        }
    }
}
