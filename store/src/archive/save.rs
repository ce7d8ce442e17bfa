//! Store → archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write};
use std::path::Path;

use oci::{Descriptor, Digest, Document, Index, Platform};

use super::docker::{self, DockerImage};
use super::{INDEX_FILE, LAYOUT, LAYOUT_FILE, MANIFEST_FILE, NAME_ANNOTATION, REF_NAME_ANNOTATION};
use crate::error::{Error, IoContext as _, Result};
use crate::images::ImageEntry;
use crate::layers::tar::Writer;
use crate::layers::{Entry, Kind, Metadata};
use crate::lease::Lease;
use crate::store::Store;

/// How much of a blob is copied at once.
const COPY_BYTES: usize = 256 * 1024;

impl Lease {
    /// Writes images into one tar that OCI tools and docker can load.
    ///
    /// Of an index that was not pulled as a whole, the image for the host's platform is written.
    /// The same images give the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if part of an image is not stored, or if the output fails.
    pub fn save(&self, images: &[ImageEntry], output: impl Write) -> Result<()> {
        self.save_as(images, ArchiveFormat::Docker, output)
    }

    /// Writes images into one tar of a format; else as [`save`](Self::save).
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_as(
        &self,
        images: &[ImageEntry],
        format: ArchiveFormat,
        output: impl Write,
    ) -> Result<()> {
        let mut plan = Plan::new(self.store());
        let mut index = Vec::new();
        let mut list: Vec<DockerImage> = Vec::new();
        for image in images {
            self.pin(&image.descriptor.digest)?;
            let descriptor = plan.whole(&image.descriptor)?;
            if let Some(listed) = plan.docker_image(&descriptor)? {
                add_docker(&mut list, listed, image);
            }
            index.push(named(&descriptor, image));
        }
        let mut lists = vec![
            (LAYOUT_FILE, LAYOUT.as_bytes().to_vec()),
            (INDEX_FILE, Index::new(index).to_bytes()),
        ];
        if format == ArchiveFormat::Docker {
            lists.push((MANIFEST_FILE, docker::to_bytes(&list)));
        }
        plan.write(&lists, output)
    }

    /// Writes one image into a tar, under a tag that may be any text, or without one.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_tagged(
        &self,
        image: &Descriptor,
        tag: Option<&str>,
        output: impl Write,
    ) -> Result<()> {
        let mut plan = Plan::new(self.store());
        self.pin(&image.digest)?;
        let whole = plan.whole(image)?;
        let lists = [
            (LAYOUT_FILE, LAYOUT.as_bytes().to_vec()),
            (INDEX_FILE, Index::new(vec![tagged(&whole, tag)]).to_bytes()),
        ];
        plan.write(&lists, output)
    }
}

/// Returns the descriptor for `index.json`, under a tag.
pub(super) fn tagged(descriptor: &Descriptor, tag: Option<&str>) -> Descriptor {
    let mut entry = descriptor.clone();
    let tag = tag.map(|tag| (REF_NAME_ANNOTATION.to_owned(), tag.to_owned()));
    entry.annotations.extend(tag);
    entry
}

/// For whom images are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// For everyone who reads OCI layouts.
    Oci,
    /// For docker as well, which has a list of its own.
    Docker,
}

/// What goes into an archive.
pub(super) struct Plan<'a> {
    store: &'a Store,
    pub(super) blobs: BTreeMap<Digest, u64>,
}

impl Plan<'_> {
    pub(super) fn new(store: &Store) -> Plan<'_> {
        Plan { store, blobs: BTreeMap::new() }
    }

    /// Adds an image, and returns the descriptor of what is there as a whole.
    pub(super) fn whole(&mut self, descriptor: &Descriptor) -> Result<Descriptor> {
        let mut blobs = BTreeMap::new();
        match self.add(descriptor, &mut blobs) {
            Ok(()) => {
                self.blobs.extend(blobs);
                Ok(descriptor.clone())
            }
            Err(Error::BlobUnknown { .. }) => {
                let image = self.store.image(descriptor, &Platform::host())?;
                let mut blobs = BTreeMap::new();
                self.add(&image.manifest_descriptor, &mut blobs)?;
                self.blobs.extend(blobs);
                Ok(image.manifest_descriptor)
            }
            Err(error) => Err(error),
        }
    }

    /// Lists everything that a manifest or index needs, if all of it is stored.
    fn add(&self, descriptor: &Descriptor, blobs: &mut BTreeMap<Digest, u64>) -> Result<()> {
        let mut queue = vec![descriptor.clone()];
        let mut seen = BTreeSet::new();
        while let Some(descriptor) = queue.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            blobs.insert(descriptor.digest, self.size(&descriptor)?);
            let document = self.store.document(&descriptor)?;
            for blob in document.blobs() {
                blobs.insert(blob.digest, self.size(blob)?);
            }
            queue.extend_from_slice(document.manifests());
        }
        Ok(())
    }

    fn size(&self, descriptor: &Descriptor) -> Result<u64> {
        let digest = descriptor.digest;
        self.store.blobs().size(&digest)?.ok_or(Error::BlobUnknown { digest })
    }

    /// Returns docker's view of an image, if it is one for this host.
    fn docker_image(&self, descriptor: &Descriptor) -> Result<Option<DockerImage>> {
        let manifest = match self.store.document(descriptor)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => match self.store.image(descriptor, &Platform::host()) {
                Ok(image) => image.manifest,
                Err(Error::PlatformUnavailable { .. } | Error::NotAnImage { .. }) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Some(DockerImage {
            config: blob_path(&manifest.config.digest),
            repo_tags: Vec::new(),
            layers: manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        }))
    }

    fn write(&self, lists: &[(&str, Vec<u8>)], output: impl Write) -> Result<()> {
        let to = Path::new("the archive");
        let mut tar = Writer::new(std::io::BufWriter::with_capacity(COPY_BYTES, output));
        for (name, bytes) in lists {
            tar.entry(&file(name, bytes.len() as u64)).doing("write", to)?;
            tar.data(bytes).doing("write", to)?;
        }
        tar.entry(&directory("blobs/")).doing("write", to)?;
        let algorithms: BTreeSet<_> =
            self.blobs.keys().map(|digest| digest.algorithm().as_str()).collect();
        for algorithm in algorithms {
            tar.entry(&directory(&format!("blobs/{algorithm}/"))).doing("write", to)?;
        }
        let mut buffer = vec![0; COPY_BYTES];
        for (digest, size) in &self.blobs {
            let mut blob = self.store.blobs().open(digest)?;
            tar.entry(&file(&blob_path(digest), *size)).doing("write", to)?;
            loop {
                let count = blob.read(&mut buffer).doing("read", self.store.root().blob(digest))?;
                if count == 0 {
                    break;
                }
                tar.data(&buffer[..count]).doing("write", to)?;
            }
        }
        tar.finish().and_then(|mut buffered| buffered.flush()).doing("write", to)
    }
}

/// Adds an image to docker's list, or its name to the entry of the same image.
fn add_docker(list: &mut Vec<DockerImage>, image: DockerImage, named: &ImageEntry) {
    let name = named.reference.as_ref().filter(|name| name.tag().is_some());
    let tag = name.map(|name| name.without_digest().familiar());
    let place = match list.iter().position(|known| known.config == image.config) {
        Some(place) => place,
        None => {
            list.push(image);
            list.len() - 1
        }
    };
    list[place].repo_tags.extend(tag);
}

/// Returns the descriptor for `index.json`, with the name that loading gives back.
pub(super) fn named(descriptor: &Descriptor, image: &ImageEntry) -> Descriptor {
    let mut descriptor = descriptor.clone();
    if let Some(reference) = &image.reference {
        let annotations = &mut descriptor.annotations;
        annotations.insert(NAME_ANNOTATION.to_owned(), reference.to_string());
        if let Some(tag) = reference.tag() {
            annotations.insert(REF_NAME_ANNOTATION.to_owned(), tag.to_string());
        }
    }
    descriptor
}

pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn file(path: &str, size: u64) -> Entry {
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    Entry { path: path.into(), kind: Kind::File { size }, metadata }
}

fn directory(path: &str) -> Entry {
    let metadata = Metadata { mode: 0o755, ..Metadata::default() };
    Entry { path: path.into(), kind: Kind::Directory, metadata }
}
