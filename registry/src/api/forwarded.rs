//! The path below which a proxy publishes the registry.
//!
//! `Location` and `Link` are paths without scheme and host, so they hold behind
//! every proxy that ends TLS or has another name. One that also takes a prefix
//! off the path says so with `X-Forwarded-Prefix`, and both get it back:
//!
//! ```text
//! X-Forwarded-Prefix   request of the client    here            Location
//! /images              /images/v2/a/…           /v2/a/…         /images/v2/a/…
//! /v2/team             /v2/team/a/…             /v2/a/…         /v2/team/a/…
//! ```
//!
//! The second form is for docker's clients, which ask below `/v2/` and nowhere
//! else. The header is taken from anyone: it can only change the path in the
//! answer to the very request that carries it, never a host.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue, LINK, LOCATION};

use super::Answer;

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The longest prefix in bytes: as long as a repository's name may be.
const MAX_PREFIX_BYTES: usize = 255;

/// Puts the proxy's prefix before the paths in an answer's headers.
pub(super) fn publish(request: &HeaderMap, answer: &mut Answer) {
    let Some(prefix) = prefix_of(request) else { return };
    for (name, opening) in [(LOCATION, ""), (LINK, "<")] {
        let published = answer
            .headers()
            .get(&name)
            .and_then(|value| value.to_str().ok()?.strip_prefix(opening))
            .and_then(|path| published(prefix, path))
            .and_then(|path| HeaderValue::try_from(format!("{opening}{path}")).ok());
        if let Some(value) = published {
            answer.headers_mut().insert(name, value);
        }
    }
}

/// Returns the proxy's prefix, if there is one and it is a plain path.
pub(super) fn prefix_of(request: &HeaderMap) -> Option<&str> {
    let mut prefixes = request.get_all(FORWARDED_PREFIX).iter();
    match (prefixes.next(), prefixes.next()) {
        (Some(value), None) => value.to_str().ok().and_then(prefix),
        _ => None,
    }
}

/// Returns a prefix without its last slash, if it is a plain path.
fn prefix(text: &str) -> Option<&str> {
    let text = text.strip_suffix('/').unwrap_or(text);
    let is_plain = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
    };
    let mut segments = text.strip_prefix('/')?.split('/');
    (text.len() <= MAX_PREFIX_BYTES && segments.all(is_plain)).then_some(text)
}

/// Returns the path that a client must use for one of ours; addresses elsewhere
/// stay what they are.
fn published(prefix: &str, path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v2/")?;
    match prefix == "/v2" || prefix.starts_with("/v2/") {
        true => Some(format!("{prefix}/{rest}")),
        false => Some(format!("{prefix}{path}")),
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;
    use crate::api::respond;

    fn publish(prefixes: &[&str], name: &HeaderName, value: &str) -> String {
        let mut request = HeaderMap::new();
        for prefix in prefixes {
            request.append(FORWARDED_PREFIX, HeaderValue::from_str(prefix).unwrap());
        }
        let mut answer = respond::empty(StatusCode::ACCEPTED);
        respond::set(&mut answer, name.clone(), value);
        super::publish(&request, &mut answer);
        answer.headers()[name].to_str().unwrap().to_owned()
    }

    #[test]
    fn paths_get_the_prefix_that_the_proxy_took_off() {
        let location = "/v2/a/blobs/uploads/1";
        for (prefix, expected) in [
            ("/images", "/images/v2/a/blobs/uploads/1"),
            ("/images/", "/images/v2/a/blobs/uploads/1"),
            ("/x/y-z/1.0", "/x/y-z/1.0/v2/a/blobs/uploads/1"),
            ("/v2/team", "/v2/team/a/blobs/uploads/1"),
            ("/v2/", "/v2/a/blobs/uploads/1"),
            ("/v2x", "/v2x/v2/a/blobs/uploads/1"),
        ] {
            assert_eq!(publish(&[prefix], &LOCATION, location), expected, "{prefix}");
        }
        let link = "</v2/a/tags/list?n=1&last=b>; rel=\"next\"";
        let published = publish(&["/images"], &LINK, link);
        assert_eq!(published, "</images/v2/a/tags/list?n=1&last=b>; rel=\"next\"");
    }

    /// Nobody is sent to another host, whatever the header says.
    #[test]
    fn what_is_not_a_plain_path_changes_nothing() {
        let location = "/v2/a/blobs/uploads/1";
        let long = format!("/{}", "x".repeat(255));
        for prefix in [
            "",
            "/",
            "//evil.example",
            "/a//b",
            "evil.example",
            "http://evil.example",
            "/\\evil.example",
            "/a/../b",
            "/./a",
            "/a b",
            "/a?b",
            "/a#b",
            "/a%2f",
            "/a,/b",
            &long,
        ] {
            assert_eq!(publish(&[prefix], &LOCATION, location), location, "{prefix}");
        }
        assert_eq!(publish(&[], &LOCATION, location), location);
        assert_eq!(publish(&["/a", "/b"], &LOCATION, location), location);
        let elsewhere = "https://bucket.example/v2/a?signature=x";
        assert_eq!(publish(&["/images"], &LOCATION, elsewhere), elsewhere);
    }
}
