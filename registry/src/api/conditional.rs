//! Conditional requests (RFC 9110, section 13). Entity tags are digests in
//! quotes: content with the same digest is the same content.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, IF_RANGE};
use oci::Digest;

use crate::content::{Conditions, EntityTags};

/// Returns the entity tag of content.
pub(super) fn etag(digest: &Digest) -> HeaderValue {
    HeaderValue::try_from(format!("\"{digest}\"")).expect("digests are letters, digits and a colon")
}

/// Whether the client already has the content.
pub(super) fn is_current(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| given == "*" || given.strip_prefix("W/").unwrap_or(given) == etag)
}

/// Whether a range may be answered: its client has seen this very content.
pub(super) fn may_continue(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    headers.get(IF_RANGE).is_none_or(|given| given == etag)
}

/// Returns what a push demands of the name it pushes to.
pub(super) fn conditions(headers: &HeaderMap) -> Conditions {
    Conditions {
        if_match: entity_tags(headers, IF_MATCH),
        if_none_match: entity_tags(headers, IF_NONE_MATCH),
    }
}

/// Reads a list of entity tags. A weak one matches nothing of ours: all are strong.
fn entity_tags(headers: &HeaderMap, name: HeaderName) -> Option<EntityTags> {
    let mut values = headers.get_all(name).iter().peekable();
    values.peek()?;
    let mut digests = Vec::new();
    for given in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
    {
        if given == "*" {
            return Some(EntityTags::Any);
        }
        let unquoted = given.strip_prefix('"').and_then(|given| given.strip_suffix('"'));
        digests.extend(unquoted.and_then(|text| text.parse::<Digest>().ok()));
    }
    Some(EntityTags::Digests(digests))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared() {
        let etag = etag(&Digest::sha256(b""));
        let text = etag.to_str().unwrap().to_owned();
        let is_current = |value: &str| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]);
            super::is_current(&headers, &etag)
        };
        assert!(is_current(&text));
        assert!(is_current(&format!("\"x\", W/{text}")));
        assert!(is_current("*"));
        assert!(!is_current("\"x\""));
        assert!(!is_current(text.trim_matches('"')));
        assert!(!super::is_current(&HeaderMap::new(), &etag));
        assert!(may_continue(&HeaderMap::new(), &etag));
        let headers = HeaderMap::from_iter([(IF_RANGE, HeaderValue::from_static("\"x\""))]);
        assert!(!may_continue(&headers, &etag));
    }

    #[test]
    fn conditions_of_a_push_are_read() {
        let (one, two) = (Digest::sha256(b"1"), Digest::sha512(b"2"));
        let read = |values: &[&str]| {
            let headers =
                values.iter().map(|value| (IF_MATCH, HeaderValue::from_str(value).unwrap()));
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(name, value);
            }
            conditions(&map)
        };
        let matching = |digests: &[Digest]| Conditions {
            if_match: Some(EntityTags::Digests(digests.to_vec())),
            if_none_match: None,
        };
        assert_eq!(read(&[]), Conditions::default());
        assert_eq!(read(&[&format!("\"{one}\"")]), matching(&[one]));
        assert_eq!(read(&[&format!("\"{one}\", \"{two}\"")]), matching(&[one, two]));
        let two_lines = [format!("\"{one}\""), format!("\"x\", \"{two}\"")];
        assert_eq!(read(&two_lines.each_ref().map(String::as_str)), matching(&[one, two]));
        // What cannot be ours is still a condition, which never holds.
        for none in ["\"x\"", &format!("W/\"{one}\""), &one.to_string(), "\"", ""] {
            assert_eq!(read(&[none]), matching(&[]), "{none}");
        }
        assert_eq!(read(&["*"]).if_match, Some(EntityTags::Any));
    }
}
