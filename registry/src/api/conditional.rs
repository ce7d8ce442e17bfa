//! Conditional requests (RFC 9110, section 13). Entity tags are digests in
//! quotes: content with the same digest is the same content.

use hyper::HeaderMap;
use hyper::header::{HeaderValue, IF_NONE_MATCH, IF_RANGE};
use oci::Digest;

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
}
