//! What an importer asks of a folder.

use std::fs::File;

use oci::{Digest, MAX_MANIFEST_BYTES};

use super::Result;
use super::folder::Folder;

/// Where a folder keeps the content of one repository.
pub(super) enum Source<'a> {
    /// A repository of a distribution registry whose storage is at `root`.
    Distribution {
        /// The folder.
        folder: &'a Folder,
        /// The path of its `v2`.
        root: &'static str,
        /// The repository's name, which is also its path.
        repository: &'a str,
    },
    /// An OCI layout.
    Layout(&'a Folder),
}

/// How long the text of a digest may be, with a line break.
const MAX_LINK_BYTES: usize = 256;

impl Source<'_> {
    fn folder(&self) -> &Folder {
        match self {
            Self::Distribution { folder, .. } | Self::Layout(folder) => folder,
        }
    }

    fn path(&self, digest: &Digest) -> String {
        let (algorithm, hex) = (digest.algorithm(), digest.hex());
        match self {
            Self::Distribution { root, .. } => {
                format!("{root}/blobs/{algorithm}/{}/{hex}/data", &hex[..2])
            }
            Self::Layout(_) => format!("blobs/{algorithm}/{hex}"),
        }
    }

    /// Opens a blob if the repository has it.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        match self.lists("_layers", digest)? {
            true => self.folder().file(&self.path(digest)),
            false => Ok(None),
        }
    }

    /// Reads a manifest if the repository has it.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        match self.lists("_manifests/revisions", digest)? {
            true => self.folder().read(&self.path(digest), MAX_MANIFEST_BYTES),
            false => Ok(None),
        }
    }

    /// Whether the repository has a manifest that can be opened.
    pub(super) fn has_manifest(&self, digest: &Digest) -> bool {
        let file = self.lists("_manifests/revisions", digest).and_then(|listed| {
            if listed { self.folder().file(&self.path(digest)) } else { Ok(None) }
        });
        file.is_ok_and(|file| file.is_some())
    }

    /// Whether the repository's list `kind` has `digest`; everything in a layout
    /// belongs to its one repository.
    fn lists(&self, kind: &str, digest: &Digest) -> Result<bool> {
        match self {
            Self::Layout(_) => Ok(true),
            Self::Distribution { folder, root, repository } => {
                let (algorithm, hex) = (digest.algorithm(), digest.hex());
                let path =
                    format!("{root}/repositories/{repository}/{kind}/{algorithm}/{hex}/link");
                Ok(link(folder, &path)? == Some(*digest))
            }
        }
    }
}

/// Reads a file that holds a digest, or returns `None` where it holds none.
pub(super) fn link(folder: &Folder, path: &str) -> Result<Option<Digest>> {
    let Some(text) = folder.read(path, MAX_LINK_BYTES)? else { return Ok(None) };
    Ok(str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()))
}
