//! Paths as text, with Go's rules: the ones Dockerfiles are written against.

/// Returns the shortest path that means the same: no `//`, no `.`, no `a/..`.
///
/// A rooted path never climbs above `/`; the empty path is `.`
/// (Go's `path.Clean`).
#[must_use]
pub fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if matches!(parts.last(), Some(last) if *last != "..") => {
                parts.pop();
            }
            ".." if is_rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (is_rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Returns the last part of `path`, `.` if there is none and `/` for the root
/// (Go's `path.Base`).
#[must_use]
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

#[cfg(test)]
mod tests {
    use super::{base, clean};

    #[test]
    fn cleans_as_go_does() {
        for (path, expected) in [
            ("", "."),
            (".", "."),
            ("..", ".."),
            ("/", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a/..", "../.."),
            ("a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("//a", "/a"),
            ("a/b/../../..", ".."),
        ] {
            assert_eq!(clean(path), expected, "{path:?}");
        }
    }

    #[test]
    fn last_parts() {
        for (path, expected) in
            [("", "."), ("/", "/"), ("//", "/"), ("a", "a"), ("a/b/", "b"), ("/a", "a")]
        {
            assert_eq!(base(path), expected, "{path:?}");
        }
    }
}
