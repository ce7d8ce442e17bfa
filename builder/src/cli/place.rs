//! Where an image can be: a registry, the store, a layout, an archive; written as in skopeo.

use std::path::{Path, PathBuf};

use anyhow::bail;
use oci::Reference;

/// A place that `rbuild copy` reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `docker://NAME`, or just `NAME`: in a registry.
    Registry(Reference),
    /// `store:NAME`: in the store; a name or an ID.
    Store(String),
    /// `oci:DIRECTORY[:NAME]`: in an OCI layout.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]`: in a tar with an OCI layout.
    OciArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME]`: in a tar for `docker load`.
    DockerArchive(PathBuf, Option<String>),
}

impl std::str::FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(name) = text.strip_prefix("docker://") {
            return Ok(Self::Registry(name.parse()?));
        }
        let Some((transport, rest)) = text.split_once(':') else {
            return Ok(Self::Registry(text.parse()?));
        };
        let path = || -> anyhow::Result<(PathBuf, Option<String>)> {
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
                None => (rest, None),
            };
            if path.is_empty() {
                bail!("{text:?} has no path");
            }
            Ok((PathBuf::from(path), name))
        };
        Ok(match transport {
            "store" if rest.is_empty() => bail!("{text:?} has no name"),
            "store" => Self::Store(rest.to_owned()),
            "oci" => path().map(|(path, name)| Self::Layout(path, name))?,
            "oci-archive" => path().map(|(path, name)| Self::OciArchive(path, name))?,
            "docker-archive" => path().map(|(path, name)| Self::DockerArchive(path, name))?,
            "docker-daemon" | "containers-storage" | "dir" | "sif" | "ostree" | "tarball" => {
                bail!(
                    "{transport}: is not supported: there are docker://, store:, oci:, \
                     oci-archive: and docker-archive:"
                )
            }
            _ => Self::Registry(text.parse()?),
        })
    }
}

/// Returns the directory a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_in_skopeo() {
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        let path = PathBuf::from;
        for (text, expected) in [
            ("busybox", Place::Registry(reference("busybox"))),
            ("docker://busybox:1", Place::Registry(reference("busybox:1"))),
            ("localhost:5000/app", Place::Registry(reference("localhost:5000/app"))),
            ("app:1", Place::Registry(reference("app:1"))),
            ("store:app:1", Place::Store("app:1".into())),
            ("oci:/a/b", Place::Layout(path("/a/b"), None)),
            ("oci:dir:app:1", Place::Layout(path("dir"), Some("app:1".into()))),
            ("oci:dir:", Place::Layout(path("dir"), None)),
            ("oci-archive:a.tar:1", Place::OciArchive(path("a.tar"), Some("1".into()))),
            ("docker-archive:a.tar", Place::DockerArchive(path("a.tar"), None)),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), expected, "{text}");
        }
        for text in ["", "oci:", "oci-archive::x", "store:", "dir:/a", "docker://", "UPPER"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
