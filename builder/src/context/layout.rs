//! An image in a directory: the OCI image layout (image-spec, `image-layout.md`).
//!
//! `oci-layout://PATH[:TAG][@DIGEST]`. Its blobs are brought into the store one by one,
//! each checked against its digest, so that a build uses it like any other image.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES, Platform};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use store::Lease;

use crate::error::{Error, IoContext as _, Result};

/// What such a context starts with.
pub const SCHEME: &str = "oci-layout://";
/// The annotation that names an entry of `index.json`: image-spec, `annotations.md`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Indexes in indexes: one level is what tools write.
const MAX_DEPTH: usize = 4;

/// An image in a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    path: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Layout {
    /// Reads `oci-layout://PATH[:TAG][@DIGEST]`.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|error: oci::Error| error.to_string())?;
                (rest, Some(digest))
            }
            None => (rest, None),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => {
                (path, Some(tag.to_owned()))
            }
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(format!("{text:?} names no directory"));
        }
        Ok(Self { path: PathBuf::from(path), tag, digest })
    }

    /// Returns the same with an absolute path.
    ///
    /// # Errors
    /// Fails when there is no such directory.
    pub fn canonical(&self) -> Result<String> {
        let path = std::fs::canonicalize(&self.path).doing("open", &self.path)?;
        let tag = self.tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map_or(String::new(), |digest| format!("@{digest}"));
        Ok(format!("{SCHEME}{}{tag}{digest}", path.display()))
    }

    /// Brings the image for a platform into the store; `lease` keeps it.
    ///
    /// # Errors
    /// Fails when the layout has no such image, or a blob is not what its digest says.
    pub fn load(&self, lease: &Lease, platform: &Platform) -> Result<Descriptor> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&self.path, flags, Mode::empty()).doing("open", &self.path)?;
        let index = self.read(&root, Path::new("index.json"))?;
        let index = Index::parse(&index).map_err(|error| self.wrong(&error.to_string()))?;
        let wanted = self.choose(&index)?.clone();
        self.bring(lease, &root, &wanted, platform, 0)
    }

    /// Returns the entry that is meant: by digest, else by tag, else the only one or `latest`.
    fn choose<'i>(&self, index: &'i Index) -> Result<&'i Descriptor> {
        let name = |entry: &&Descriptor, name: &str| {
            entry.annotations.get(REF_NAME).is_some_and(|found| found == name)
        };
        let entries = &index.manifests;
        let found = match (&self.digest, &self.tag) {
            (Some(digest), _) => entries.iter().find(|entry| entry.digest == *digest),
            (None, Some(tag)) => entries.iter().find(|entry| name(entry, tag)),
            (None, None) => match &entries[..] {
                [only] => Some(only),
                _ => entries.iter().find(|entry| name(entry, "latest")),
            },
        };
        found.ok_or_else(|| self.wrong("it has no such image"))
    }

    /// Copies a manifest and what it lists; of an index, what the platform needs.
    fn bring(
        &self,
        lease: &Lease,
        root: &rustix::fd::OwnedFd,
        wanted: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<Descriptor> {
        if wanted.size > MAX_MANIFEST_BYTES as u64 || depth > MAX_DEPTH {
            return Err(self.wrong("its manifests are too large or too deep"));
        }
        self.blob(lease, root, wanted)?;
        match lease.store().document(wanted)? {
            Document::Manifest(manifest) => {
                for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                    self.blob(lease, root, blob)?;
                }
            }
            Document::Index(index) => {
                let fits = |entry: &&Descriptor| {
                    entry.platform.as_ref().is_some_and(|found| platform.matches(found))
                };
                let found = index.manifests.iter().find(fits);
                let found = found
                    .or_else(|| index.manifests.first().filter(|_| index.manifests.len() == 1));
                let found =
                    found.ok_or_else(|| self.wrong(&format!("it has no image for {platform}")))?;
                self.bring(lease, root, found, platform, depth + 1)?;
            }
        }
        Ok(wanted.clone())
    }

    fn blob(&self, lease: &Lease, root: &rustix::fd::OwnedFd, blob: &Descriptor) -> Result<()> {
        lease.pin(&blob.digest)?;
        if lease.store().blobs().size(&blob.digest)? == Some(blob.size) {
            return Ok(());
        }
        let name = format!("blobs/{}/{}", blob.digest.algorithm(), blob.digest.hex());
        let path = self.path.join(&name);
        let mut file = self.open(root, Path::new(&name))?;
        let mut ingest = lease.ingest_with(blob.digest.algorithm())?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = file.read(&mut buffer).doing("read", &path)?;
            if count == 0 {
                break;
            }
            if ingest.size() + count as u64 > blob.size {
                return Err(self.wrong(&format!("{name} is longer than its descriptor says")));
            }
            ingest.write_all(&buffer[..count]).doing("store", &path)?;
        }
        ingest.commit(Some((blob.digest, blob.size)))?;
        Ok(())
    }

    fn read(&self, root: &rustix::fd::OwnedFd, name: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = MAX_MANIFEST_BYTES as u64 + 1;
        let read = self.open(root, name)?.take(limit).read_to_end(&mut bytes);
        read.doing("read", &self.path.join(name))?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(self.wrong(&format!("{} is too large", name.display())));
        }
        Ok(bytes)
    }

    /// Opens a regular file of the layout, wherever links point.
    fn open(&self, root: &rustix::fd::OwnedFd, name: &Path) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = rustix::fs::openat2(root, name, flags, Mode::empty(), ResolveFlags::BENEATH)
            .doing("open", &self.path.join(name))?;
        let file = File::from(fd);
        if !file.metadata().doing("look at", &self.path.join(name))?.is_file() {
            return Err(self.wrong(&format!("{} is no file", name.display())));
        }
        Ok(file)
    }

    fn wrong(&self, reason: &str) -> Error {
        let context = format!("{SCHEME}{}", self.path.display());
        Error::Context { context, reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_named_by_path_tag_and_digest() {
        let parsed = |text: &str| Layout::parse(text).unwrap();
        let digest = Digest::sha256(b"x");
        let full = parsed(&format!("oci-layout://./a/b:v1@{digest}"));
        let expected =
            Layout { path: "./a/b".into(), tag: Some("v1".into()), digest: Some(digest) };
        assert_eq!(full, expected);
        assert_eq!(parsed("oci-layout:///a:5000/b").path, PathBuf::from("/a:5000/b"));
        assert_eq!(parsed("oci-layout:///a").tag, None);
        assert!(Layout::parse("oci-layout://").is_err());
        assert!(Layout::parse("oci-layout://a@sha256:x").is_err());
    }
}
