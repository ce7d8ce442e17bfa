//! Image names: one file per reference, replaced atomically.
//!
//! `images/` is flat; a file's name is the reference with everything percent-encoded that is not
//! plain, so no reference can leave the directory. The file says again what it names:
//!
//! ```json
//! {"reference":"docker.io/library/busybox:latest","descriptor":{…}}
//! ```
//!
//! An image that was built without a name has an entry too, without `reference`; it goes with the
//! next prune, or when the image gets a name.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use oci::{Descriptor, Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Durability, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::lease::Lease;
use crate::store::Store;

/// The longest encoded name that is used as it is. File systems allow 255 bytes; longer references
/// get a name that ends in their digest.
const MAX_PLAIN_NAME_BYTES: usize = 200;

/// How much of a long name is kept for people who look at the directory.
const READABLE_PREFIX_BYTES: usize = 120;

/// The image names of a store.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    store: &'a Store,
}

/// One entry of the store's table of images.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageEntry {
    /// The name, or `None` for an image that was built without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// The manifest or index it leads to.
    pub descriptor: Descriptor,
}

/// An image that was asked for by name or ID.
#[derive(Clone, Debug)]
pub struct Found {
    /// A name it has: the one asked for, or else its first.
    pub reference: Option<Reference>,
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// The image ID: the digest of the config. `None` where the host's platform has none.
    pub image_id: Option<Digest>,
}

impl<'a> Images<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Returns what a reference leads to.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn get(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let entry = self.read(&self.path(&reference.to_string()))?;
        Ok(entry.map(|entry| entry.descriptor))
    }

    /// Makes a reference lead to an image whose content is in the store.
    ///
    /// Writes nothing if it does already. Another image that had the name loses it.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if the manifest is not in the store.
    pub fn set(&self, lease: &Lease, reference: &Reference, to: &Descriptor) -> Result<()> {
        let path = self.path(&reference.to_string());
        let entry = ImageEntry { reference: Some(reference.clone()), descriptor: to.clone() };
        self.write(lease, &path, &entry)?;
        self.remove_path(&self.untagged_path(&to.digest))?;
        Ok(())
    }

    /// Keeps an image that has no name, until it is pruned or removed by its ID.
    ///
    /// # Errors
    ///
    /// [`Error::BlobUnknown`] if the manifest is not in the store.
    pub fn set_untagged(&self, lease: &Lease, image: &Descriptor) -> Result<()> {
        let named = self.list()?.into_iter().any(|entry| entry.descriptor.digest == image.digest);
        if named {
            return lease.pin(&image.digest);
        }
        let entry = ImageEntry { reference: None, descriptor: image.clone() };
        self.write(lease, &self.untagged_path(&image.digest), &entry)
    }

    /// Removes a name, telling whether it existed. The content goes with the next gc.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn remove(&self, reference: &Reference) -> Result<bool> {
        self.remove_path(&self.path(&reference.to_string()))
    }

    /// Removes an entry of [`list`](Self::list), telling whether it still existed.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn remove_entry(&self, entry: &ImageEntry) -> Result<bool> {
        match &entry.reference {
            Some(reference) => self.remove(reference),
            None => self.remove_path(&self.untagged_path(&entry.descriptor.digest)),
        }
    }

    /// Returns every entry, in the order of their names, images without a name last.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if an entry cannot be understood: nothing may be decided by a list that
    /// is not whole.
    pub fn list(&self) -> Result<Vec<ImageEntry>> {
        let directory = self.store.root().images();
        let mut entries = Vec::new();
        for file in fs::read_dir(&directory).doing("list", &directory)? {
            let path = file.doing("list", &directory)?.path();
            entries.extend(self.read(&path)?);
        }
        entries.sort_by_cached_key(|entry| {
            let name = entry.reference.as_ref().map(ToString::to_string);
            (name.is_none(), name, entry.descriptor.digest)
        });
        Ok(entries)
    }

    /// Finds an image as docker does: by name, by ID, or by the beginning of an ID.
    ///
    /// A name comes before the beginning of an ID, a whole ID before a name. `name@digest` finds
    /// any entry of that repository with that manifest. IDs are config digests; the digest of the
    /// manifest finds an image as well.
    ///
    /// # Errors
    ///
    /// [`Error::ImageUnknown`], or [`Error::ImageAmbiguous`] if several images' IDs begin so.
    pub fn find(&self, text: &str) -> Result<Found> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_id = !hex.is_empty()
            && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && hex.len() <= 64;
        if is_id && hex.len() == 64 {
            return self.find_by_id(hex, text);
        }
        match text.parse::<Reference>() {
            Ok(reference) => match self.find_by_name(&reference)? {
                Some(found) => Ok(found),
                None if is_id => self.find_by_id(hex, text),
                None => Err(Error::ImageUnknown { name: reference.familiar() }),
            },
            Err(_) if is_id => self.find_by_id(hex, text),
            Err(source) => Err(Error::InvalidName { text: text.to_owned(), source }),
        }
    }

    fn find_by_name(&self, reference: &Reference) -> Result<Option<Found>> {
        let mut entry = self.read(&self.path(&reference.to_string()))?;
        if let (None, Some(digest)) = (&entry, reference.digest()) {
            let fits = |entry: &ImageEntry| {
                entry.descriptor.digest == *digest
                    && entry.reference.as_ref().is_some_and(|name| {
                        (name.registry(), name.repository())
                            == (reference.registry(), reference.repository())
                    })
            };
            entry = self.list()?.into_iter().find(fits);
        }
        let Some(entry) = entry else { return Ok(None) };
        let image_id = self.store.image_id(&entry.descriptor)?;
        Ok(Some(Found { reference: entry.reference, descriptor: entry.descriptor, image_id }))
    }

    /// Finds the one image whose ID or manifest digest begins with `hex`.
    fn find_by_id(&self, hex: &str, text: &str) -> Result<Found> {
        let mut found: Option<Found> = None;
        let mut images = BTreeSet::new();
        for entry in self.list()? {
            let image_id = self.store.image_id(&entry.descriptor)?;
            let fits = |digest: Digest| digest.hex().starts_with(hex);
            if image_id.is_some_and(fits) || fits(entry.descriptor.digest) {
                images.insert(image_id.unwrap_or(entry.descriptor.digest));
                found.get_or_insert(Found {
                    reference: entry.reference,
                    descriptor: entry.descriptor,
                    image_id,
                });
            }
        }
        match (found, images.len()) {
            (Some(found), 1) => Ok(found),
            (Some(_), count) => Err(Error::ImageAmbiguous { prefix: text.to_owned(), count }),
            (None, _) => Err(Error::ImageUnknown { name: text.to_owned() }),
        }
    }

    fn read(&self, path: &PathBuf) -> Result<Option<ImageEntry>> {
        let Some(bytes) = if_present(fs::read(path)).doing("read", path)? else {
            return Ok(None);
        };
        let damaged = |error: serde_json::Error| Error::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    fn write(&self, lease: &Lease, path: &PathBuf, entry: &ImageEntry) -> Result<()> {
        let digest = entry.descriptor.digest;
        lease.pin(&digest)?;
        if !self.store.blobs().contains(&digest)? {
            return Err(Error::BlobUnknown { digest });
        }
        let bytes = serde_json::to_vec(entry).expect("an entry has only text for keys");
        if if_present(fs::read(path)).doing("read", path)?.as_deref() == Some(&bytes) {
            return Ok(());
        }
        durable::replace(&lease.temporary(), path, &bytes, Durability::Synced)
    }

    /// Removes an entry for good before anybody may act on its absence.
    fn remove_path(&self, path: &PathBuf) -> Result<bool> {
        if !path.try_exists().doing("read", path)? {
            return Ok(false);
        }
        durable::remove(path)?;
        durable::sync_dir(&self.store.root().images())?;
        Ok(true)
    }

    fn untagged_path(&self, manifest: &Digest) -> PathBuf {
        // No reference begins with `@`.
        self.path(&format!("@{manifest}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.store.root().images().join(file_name(name))
    }
}

/// Returns the flat file name of a reference.
fn file_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    if encoded.len() > MAX_PLAIN_NAME_BYTES {
        encoded.truncate(READABLE_PREFIX_BYTES);
        // `~` is never part of an encoded name, so the two kinds cannot meet.
        encoded.push('~');
        encoded.push_str(&Digest::sha256(name.as_bytes()).hex());
    }
    encoded
}
