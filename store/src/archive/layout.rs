//! OCI layouts: images in a directory (image-spec, image-layout.md).
//!
//! A layout may be anybody's: its files are opened beneath it, none but regular ones are read, and
//! nothing becomes a blob that is not what its name says.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci::{Descriptor, Digest, Document, Index, MAX_MANIFEST_BYTES};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use super::contents::refuse;
use super::load::{Listed, parse_index};
use super::save::{Plan, blob_path, named, tagged};
use super::{INDEX_FILE, LAYOUT, LAYOUT_FILE, NAME_ANNOTATION, REF_NAME_ANNOTATION};
use crate::error::{IoContext as _, Result};
use crate::images::ImageEntry;
use crate::lease::Lease;

/// How many documents one image of a layout may lead to.
const MAX_DOCUMENTS: usize = 10_000;

/// A directory with images.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    directory: OwnedFd,
}

impl Layout {
    /// Opens a layout that exists.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive) if the directory is no layout.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).doing("open", path)?;
        let layout = Self { path: path.to_owned(), directory };
        let Some(text) = layout.read(LAYOUT_FILE)? else {
            return refuse(format!("it has no {LAYOUT_FILE}"));
        };
        let version: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        match version["imageLayoutVersion"].as_str() {
            Some(version) if version.starts_with("1.") => Ok(layout),
            _ => refuse(format!("its {LAYOUT_FILE} has no version that is known")),
        }
    }

    /// Opens a layout, making an empty one where there is nothing.
    ///
    /// # Errors
    ///
    /// If the directory is used for something else, or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).doing("create", path)?;
        if fs::read_dir(path).doing("list", path)?.next().is_none() {
            write(&path.join(INDEX_FILE), &Index::new(Vec::new()).to_bytes())?;
            // Last: what has this file is a layout.
            write(&path.join(LAYOUT_FILE), LAYOUT.as_bytes())?;
        }
        Self::open(path)
    }

    /// Lists the images.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive) if there is no proper list.
    pub fn images(&self) -> Result<Vec<Listed>> {
        self.index()?.manifests.iter().map(Listed::of).collect()
    }

    /// Finds an image by its tag, its whole name, or its digest; without any, the only one there is.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive) says which there are.
    pub fn find(&self, name: Option<&str>) -> Result<Listed> {
        let images = self.images()?;
        let label = |image: &Listed| {
            let name = image.references.first().map(oci::Reference::familiar);
            let name = image.ref_name.clone().or(name);
            name.unwrap_or_else(|| image.descriptor.digest.to_string())
        };
        let known = images.iter().map(label).collect::<BTreeSet<_>>();
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        let Some(name) = name else {
            return match <[Listed; 1]>::try_from(images) {
                Ok([image]) => Ok(image),
                Err(images) if images.is_empty() => refuse("it has no image".to_owned()),
                Err(_) => refuse(format!("it has several images, say which: {known}")),
            };
        };
        let whole = name.parse::<oci::Reference>().ok();
        let fits = |image: &&Listed| {
            image.ref_name.as_deref() == Some(name)
                || image.descriptor.digest.to_string() == name
                || whole.as_ref().is_some_and(|whole| image.references.contains(whole))
        };
        match images.iter().find(fits) {
            Some(image) => Ok(image.clone()),
            None => refuse(format!("it has no image {name}, only {known}")),
        }
    }

    /// Takes an image into the store, with everything that it lists. It has no name there, and stays
    /// as long as the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Archive`](crate::Error::Archive) if it is not whole, [`Error::DigestMismatch`](crate::Error::DigestMismatch) if a blob is not
    /// what its name says.
    pub fn load(&self, lease: &Lease, image: &Descriptor) -> Result<()> {
        let (mut queue, mut documents) = (vec![image.clone()], 0);
        while let Some(next) = queue.pop() {
            documents += 1;
            if documents > MAX_DOCUMENTS {
                return refuse(format!("it leads to more than {MAX_DOCUMENTS} manifests"));
            }
            if next.size > MAX_MANIFEST_BYTES as u64 {
                return refuse(format!("manifest {} has {} bytes", next.digest, next.size));
            }
            // Of an index, some images may be missing: the check below wants at least one.
            if !self.take(lease, &next)? {
                continue;
            }
            let document = lease.store().document(&next)?;
            if let Document::Manifest(manifest) = &document {
                for blob in manifest.blobs() {
                    self.take(lease, blob)?;
                }
            }
            queue.extend(document.manifests().iter().rev().cloned());
        }
        lease.check(image).map(drop)
    }

    /// Adds images, and their names.
    ///
    /// An image that has the tag already loses it. Whoever reads the layout meanwhile sees the old
    /// list or the new one; what was there stays.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`](crate::Error::BlobUnknown) if part of an image is not stored, or if the directory cannot be
    /// written.
    pub fn save(&self, lease: &Lease, images: &[ImageEntry]) -> Result<()> {
        self.add(
            lease,
            images.iter().map(|image| (&image.descriptor, |whole: &_| named(whole, image))),
        )
    }

    /// Adds an image under a tag, which may be any text, or without one.
    ///
    /// # Errors
    ///
    /// As [`save`](Self::save).
    pub fn save_as(&self, lease: &Lease, image: &Descriptor, tag: Option<&str>) -> Result<()> {
        self.add(lease, [(image, |whole: &_| tagged(whole, tag))].into_iter())
    }

    /// Adds images with the entries that are made of their descriptors.
    fn add<'a>(
        &self,
        lease: &Lease,
        images: impl Iterator<Item = (&'a Descriptor, impl Fn(&Descriptor) -> Descriptor)>,
    ) -> Result<()> {
        let mut plan = Plan::new(lease.store());
        let mut index = self.index()?;
        for (image, name) in images {
            lease.pin(&image.digest)?;
            let mut entry = name(&plan.whole(image)?);
            entry.data = None;
            index.manifests.retain(|known| !takes_the_place_of(&entry, known));
            index.manifests.push(entry);
        }
        for (digest, size) in &plan.blobs {
            self.put(lease, digest, *size)?;
        }
        write(&self.path.join(INDEX_FILE), &index.to_bytes())
    }

    fn index(&self) -> Result<Index> {
        match self.read(INDEX_FILE)? {
            Some(bytes) => parse_index(&bytes),
            None => refuse(format!("it has no {INDEX_FILE}")),
        }
    }

    /// Takes one blob into the store; `false` if the layout has it not.
    fn take(&self, lease: &Lease, blob: &Descriptor) -> Result<bool> {
        lease.pin(&blob.digest)?;
        if lease.store().blobs().size(&blob.digest)? == Some(blob.size) {
            return Ok(true);
        }
        let name = blob_path(&blob.digest);
        let Some(file) = self.file(&name)? else { return Ok(false) };
        let mut ingest = lease.ingest_with(blob.digest.algorithm())?;
        // One byte more shows that the file is too long.
        std::io::copy(&mut file.take(blob.size.saturating_add(1)), &mut ingest)
            .doing("read", self.path.join(name))?;
        ingest.flush().doing("write", lease.store().root().ingest())?;
        ingest.commit(Some((blob.digest, blob.size)))?;
        Ok(true)
    }

    /// Copies one blob of the store into the layout.
    fn put(&self, lease: &Lease, digest: &Digest, size: u64) -> Result<()> {
        let path = self.path.join(blob_path(digest));
        if fs::symlink_metadata(&path).is_ok_and(|known| known.is_file() && known.len() == size) {
            return Ok(());
        }
        let directory = path.parent().expect("a blob has a directory");
        fs::create_dir_all(directory).doing("create", directory)?;
        let mut blob = lease.store().blobs().open(digest)?;
        let mut file = tempfile::NamedTempFile::new_in(directory).doing("write in", directory)?;
        std::io::copy(&mut blob, &mut file).doing("write", &path)?;
        publish(file, &path)
    }

    /// Reads a small file.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let limit = MAX_MANIFEST_BYTES as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).doing("read", self.path.join(name))?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return refuse(format!("its {name} has more than {MAX_MANIFEST_BYTES} bytes"));
        }
        Ok(Some(bytes))
    }

    /// Opens a regular file beneath the directory.
    fn file(&self, name: &str) -> Result<Option<File>> {
        // Without NONBLOCK, opening a fifo would wait for somebody to write to it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&self.directory, name, flags, Mode::empty(), resolve);
        let path = || self.path.join(name);
        match opened {
            Ok(file) => {
                let file = File::from(file);
                match file.metadata().doing("read", path())?.is_file() {
                    true => Ok(Some(file)),
                    false => refuse(format!("{name} is not a file")),
                }
            }
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
                refuse(format!("{name} leads out of it"))
            }
            Err(error) => Err(error).doing("open", path()),
        }
    }
}

/// Whether the list has only one of two entries: of those with one name, or, where one of them has
/// only a tag, with one tag; without a tag, of those of one image.
fn takes_the_place_of(new: &Descriptor, known: &Descriptor) -> bool {
    let both = |key: &str| Some((new.annotations.get(key)?, known.annotations.get(key)?));
    if let Some((new, known)) = both(NAME_ANNOTATION) {
        return new == known;
    }
    match new.annotations.get(REF_NAME_ANNOTATION) {
        Some(tag) => known.annotations.get(REF_NAME_ANNOTATION) == Some(tag),
        None => known.digest == new.digest,
    }
}

/// Writes a file of a layout, all or nothing.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().expect("a file of a layout has a directory");
    let mut file = tempfile::NamedTempFile::new_in(directory).doing("write in", directory)?;
    file.write_all(bytes).doing("write", path)?;
    publish(file, path)
}

/// Gives a file its name. A layout is for others to read, too.
fn publish(file: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = fs::Permissions::from_mode(0o644);
    file.as_file().set_permissions(mode).doing("write", path)?;
    file.persist(path).map(drop).map_err(|error| error.error).doing("write", path)
}
