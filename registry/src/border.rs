//! The parsers of what comes from outside, for the fuzz targets: each is called
//! as the server calls it, and checked against what it promises.

use hyper::Method;

use crate::access;
use crate::api;

/// Parses what a request says: its target, and its `Range`, `Content-Range` and
/// `Authorization` headers, a line each. Returns how many of them make sense.
///
/// # Panics
/// When a parser breaks its word.
pub fn request(text: &str) -> usize {
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let target = next();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let methods = [Method::GET, Method::PUT, Method::POST];
    let understood = methods.map(|method| api::understands(&method, path, query));
    let range = api::understands_range(next(), 2048);
    let chunk = api::understands_chunk(next());
    let authorization = access::understands(next());
    [understood.contains(&true), range, chunk, authorization]
        .into_iter()
        .filter(|made| *made)
        .count()
}

/// Parses a configuration file, and says whether it can be used.
pub fn configuration(text: &str) -> bool {
    crate::config::Config::parse(text).is_ok()
}
