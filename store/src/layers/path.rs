//! Paths inside a layer: cleaned, bounded, and told apart from whiteouts.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::error::{LayerError, LayerResult};

/// The longest path the kernel takes in one call (`PATH_MAX` without the final NUL). No tool can
/// have packed a longer one by name.
pub(crate) const MAX_PATH_BYTES: usize = 4095;
/// The longest name of one directory entry on every Linux file system.
pub(crate) const MAX_NAME_BYTES: usize = 255;
/// What names of whiteouts start with (image-spec, `layer.md`, "Whiteouts").
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The name that makes its directory opaque (image-spec, `layer.md`, "Opaque Whiteout").
pub(crate) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// What AUFS, docker's first storage driver, called its own files.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// Turns bytes into a path for a message.
pub(crate) fn display(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// A path below the root of a layer: no empty, `.` or `..` component, no leading slash.
///
/// The root itself is the empty path. `..` is taken away by spelling, as docker does; where it
/// would climb above the root the path is refused.
pub(crate) fn clean(path: &[u8]) -> LayerResult<Vec<u8>> {
    let refuse = |reason| Err(LayerError::Path { path: display(path), reason });
    if path.contains(&0) {
        return refuse("the path contains a NUL byte");
    }
    if path.len() > MAX_PATH_BYTES {
        return refuse("the path is longer than 4095 bytes");
    }
    let mut clean: Vec<u8> = Vec::with_capacity(path.len());
    for component in components(path) {
        match component {
            b"." => {}
            b".." if clean.is_empty() => return refuse("the path leaves the root"),
            b".." => {
                let keep = clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                clean.truncate(keep);
            }
            name if name.len() > MAX_NAME_BYTES => {
                return refuse("a name in the path is longer than 255 bytes");
            }
            name => {
                if !clean.is_empty() {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
            }
        }
    }
    Ok(clean)
}

/// A path of a caller, without empty and `.` components.
pub(crate) fn exact(path: &Path) -> Vec<u8> {
    let mut exact = Vec::new();
    for name in components(path.as_os_str().as_bytes()).filter(|name| *name != b".") {
        exact = join(&exact, name);
    }
    exact
}

/// The components of a path, without the empty ones.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// Splits a clean path into its parent and its last name; the root has no name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Joins a clean parent and a name.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        return name.to_vec();
    }
    let mut path = Vec::with_capacity(parent.len() + 1 + name.len());
    path.extend_from_slice(parent);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// The directories above a clean path, from the root (the empty path) down.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!path.is_empty()).then_some(&path[..0]);
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    root.into_iter().chain(slashes.map(|(at, _)| &path[..at]))
}

/// What the name of an entry says about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// An ordinary entry at this clean path.
    Plain(Vec<u8>),
    /// Hides what lower layers have at this clean path.
    Whiteout(Vec<u8>),
    /// Hides what lower layers have inside this directory.
    Opaque(Vec<u8>),
    /// Bookkeeping of AUFS, which other tools skip as well.
    Ignored,
}

/// Reads the path of an entry.
///
/// # Errors
///
/// Refuses paths that leave the root, are too long, or would hide `.`, `..` or nothing at all.
pub(crate) fn classify(raw: &[u8]) -> LayerResult<Naming> {
    let path = clean(raw)?;
    let refuse = |reason| Err(LayerError::Path { path: display(raw), reason });
    let (parent, name) = split(&path);
    if components(&path).any(|name| name.starts_with(AUFS_PREFIX)) && name != OPAQUE_NAME {
        return Ok(Naming::Ignored);
    }
    if components(parent).any(|name| name.starts_with(WHITEOUT_PREFIX)) {
        return refuse("a directory's name starts with `.wh.`, which is reserved for whiteouts");
    }
    if name == OPAQUE_NAME {
        return Ok(Naming::Opaque(parent.to_vec()));
    }
    match name.strip_prefix(WHITEOUT_PREFIX) {
        None => Ok(Naming::Plain(path)),
        Some(b"" | b"." | b"..") => refuse("the whiteout names nothing that could be hidden"),
        Some(hidden) => Ok(Naming::Whiteout(join(parent, hidden))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_docker_does() {
        for (raw, want) in [
            ("a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("./a/./b", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("./", ""),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(clean(raw.as_bytes()).unwrap(), want.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn paths_that_leave_the_root_or_are_too_long_are_refused() {
        let long_name = "n".repeat(256);
        let long_path = "d/".repeat(2100);
        for raw in ["..", "../x", "a/../../x", "/../x", "a\0b", &long_name, &long_path] {
            assert!(clean(raw.as_bytes()).is_err(), "accepted {raw:?}");
        }
    }

    #[test]
    fn whiteouts_are_told_from_names() {
        let whiteout = |path: &str| Naming::Whiteout(path.as_bytes().to_vec());
        for (raw, want) in [
            ("a/.wh.b", whiteout("a/b")),
            (".wh.b", whiteout("b")),
            ("a/.wh..wh..opq", Naming::Opaque(b"a".to_vec())),
            (".wh..wh..opq", Naming::Opaque(Vec::new())),
            (".wh..wh.plnk/12", Naming::Ignored),
            (".wh..wh.aufs", Naming::Ignored),
            ("a/wh.b", Naming::Plain(b"a/wh.b".to_vec())),
        ] {
            assert_eq!(classify(raw.as_bytes()).unwrap(), want, "{raw}");
        }
    }

    #[test]
    fn whiteouts_of_nothing_and_of_the_parent_are_refused() {
        for raw in [".wh.", "a/.wh.", "a/.wh..", "a/.wh...", ".wh.a/b"] {
            assert!(classify(raw.as_bytes()).is_err(), "accepted {raw:?}");
        }
    }

    #[test]
    fn ancestors_run_from_the_root_down() {
        let all: Vec<_> = ancestors(b"a/bc/d").collect();
        assert_eq!(all, [&b""[..], b"a", b"a/bc"]);
        assert_eq!(ancestors(b"").count(), 0);
    }
}
