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
use std::time::SystemTime;

use oci::{Descriptor, Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::durable::{self, Durability, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::lease::Lease;
use crate::settle;
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
        settle::image(lease, &entry.descriptor)?;
        // A part of the image may be another program's, which is about to sync its name only now.
        durable::sync_dir(&self.store.root().blobs(digest.algorithm()))?;
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

    /// Tells whether an entry was written before a time.
    pub(crate) fn named_before(&self, entry: &ImageEntry, time: SystemTime) -> Result<bool> {
        let path = match &entry.reference {
            Some(reference) => self.path(&reference.to_string()),
            None => self.untagged_path(&entry.descriptor.digest),
        };
        let metadata = if_present(fs::metadata(&path)).doing("read", &path)?;
        let Some(metadata) = metadata else { return Ok(false) };
        Ok(metadata.modified().doing("read", &path)? < time)
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

#[cfg(test)]
mod tests {
    use super::file_name;
    use crate::error::{Error, Result};
    use crate::images::Found;
    use crate::testing::{blob, image, image_for, name, store};
    use oci::{Descriptor, Digest, Index, MediaType, Platform, Reference};
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::fs;

    #[test]
    fn file_names_are_flat_and_plain() {
        for (name, expected) in [
            ("docker.io/library/busybox:latest", "docker.io%2Flibrary%2Fbusybox%3Alatest"),
            ("[::1]:5000/a_b-c:1.0", "%5B%3A%3A1%5D%3A5000%2Fa_b-c%3A1.0"),
            ("../%2F~\n", "..%2F%252F%7E%0A"),
        ] {
            assert_eq!(file_name(name), expected);
        }
        let long = |end: &str| file_name(&format!("host/{}:{end}", "a".repeat(250)));
        assert_ne!(long("1"), long("2"));
        assert_eq!(long("1").len(), 120 + 1 + 64);
    }

    proptest! {
        #[test]
        fn different_names_get_different_files(a in "[a-z/:.~%@é]{0,90}", b in "[a-z/:.~%@é]{0,90}") {
            prop_assert_eq!(a == b, file_name(&a) == file_name(&b));
            prop_assert!(file_name(&a).len() <= 255 && !file_name(&a).contains('/'));
        }
    }

    #[test]
    fn names_are_set_moved_and_removed() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (one, two) = (image(&lease, &[b"1"]).unwrap(), image(&lease, &[b"2"]).unwrap());
        let images = store.images();
        assert_eq!(images.get(&name("app")).unwrap(), None);
        images.set(&lease, &name("app"), &one).unwrap();
        images.set(&lease, &name("app:latest"), &two).unwrap();
        images.set(&lease, &name("example.com/app"), &one).unwrap();
        assert_eq!(images.get(&name("docker.io/library/app")).unwrap(), Some(two.clone()));
        let listed: Vec<_> = images
            .list()
            .unwrap()
            .into_iter()
            .map(|entry| (entry.reference.unwrap().familiar(), entry.descriptor.digest))
            .collect();
        let expected = [("app:latest", two.digest), ("example.com/app:latest", one.digest)];
        assert_eq!(listed, expected.map(|(name, digest)| (name.to_owned(), digest)));
        assert!(images.remove(&name("app")).unwrap());
        assert!(!images.remove(&name("app")).unwrap());
    }

    #[test]
    fn name_for_what_is_not_stored_is_refused() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let missing = Descriptor::new(MediaType::OCI_MANIFEST, Digest::sha256(b"?"), 1);
        let error = store.images().set(&lease, &name("app"), &missing).unwrap_err();
        assert!(matches!(error, Error::BlobUnknown { .. }), "{error}");
        assert_eq!(store.images().list().unwrap().len(), 0);
    }

    #[test]
    fn setting_what_is_set_writes_nothing() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let one = image(&lease, &[b"1"]).unwrap();
        store.images().set(&lease, &name("app"), &one).unwrap();
        let file = store.root().images().join(file_name("docker.io/library/app:latest"));
        let inode = |path: &std::path::Path| {
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
        };
        let before = inode(&file);
        let (result, was_reached) =
            crate::fault::after(0, || store.images().set(&lease, &name("app"), &one));
        result.unwrap();
        assert!(was_reached, "zero operations were allowed, and none was asked for");
        assert_eq!(inode(&file), before);
    }

    #[test]
    fn image_without_a_name_is_listed_until_it_gets_one() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let one = image(&lease, &[b"1"]).unwrap();
        let images = store.images();
        images.set_untagged(&lease, &one).unwrap();
        assert!(images.list().unwrap()[0].reference.is_none());
        images.set(&lease, &name("app"), &one).unwrap();
        images.set_untagged(&lease, &one).unwrap();
        let listed = images.list().unwrap();
        assert_eq!((listed.len(), listed[0].reference.clone()), (1, Some(name("app"))));
    }

    #[test]
    fn damaged_entry_is_named() {
        let (_dir, store) = store();
        fs::write(store.root().images().join("docker.io%2Fx"), "{").unwrap();
        let error = store.images().list().unwrap_err();
        assert!(error.to_string().contains("images/docker.io%2Fx is damaged"), "{error}");
    }

    /// One table for docker's rules of finding an image.
    #[test]
    fn images_are_found_as_docker_finds_them() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (one, two) = (image(&lease, &[b"1"]).unwrap(), image(&lease, &[b"2"]).unwrap());
        let id = |image: &Descriptor| store.image_id(image).unwrap().unwrap();
        let (id_one, id_two) = (id(&one), id(&two));
        // A name that looks like the beginning of the other image's ID.
        let lure: Reference = name(&id_two.hex()[..6]);
        for (reference, image) in
            [(name("app:1"), &one), (name("localhost:5000/app:1"), &one), (lure.clone(), &one)]
        {
            store.images().set(&lease, &reference, image).unwrap();
        }
        store.images().set(&lease, &name("other"), &two).unwrap();
        let find = |text: &str| -> Result<Found> { store.images().find(text) };
        for (text, expected, reference) in [
            ("app:1", id_one, "app:1"),
            ("docker.io/library/app:1", id_one, "app:1"),
            ("localhost:5000/app:1", id_one, "localhost:5000/app:1"),
            ("other", id_two, "other:latest"),
            (&id_two.to_string(), id_two, "other:latest"),
            (&id_two.hex(), id_two, "other:latest"),
            (&id_two.hex()[..12], id_two, "other:latest"),
            (&format!("sha256:{}", &id_two.hex()[..7]), id_two, "other:latest"),
            (&two.digest.hex()[..12], id_two, "other:latest"),
            (&format!("other@{}", two.digest), id_two, "other:latest"),
            (&id_two.hex()[..6], id_one, &lure.familiar()),
        ] {
            let found = find(text).unwrap();
            assert_eq!(found.image_id, Some(expected), "{text}");
            assert_eq!(found.reference.unwrap().familiar(), reference, "{text}");
        }
        for text in ["app", "app:2", "localhost:5000/other", "0000000000", &"0".repeat(64)] {
            assert!(matches!(find(text).unwrap_err(), Error::ImageUnknown { .. }), "{text}");
        }
        let elsewhere = format!("app@{}", two.digest);
        assert!(matches!(find(&elsewhere).unwrap_err(), Error::ImageUnknown { .. }));
        for text in ["", "UPPER", "a b", "-x"] {
            assert!(matches!(find(text).unwrap_err(), Error::InvalidName { .. }), "{text:?}");
        }
    }

    #[test]
    fn beginning_of_several_ids_is_ambiguous() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut firsts = BTreeSet::new();
        // Among seventeen IDs, two begin with the same digit.
        let common = (0..17_u8).find_map(|n| {
            let image = image(&lease, &[&[n]]).unwrap();
            store.images().set(&lease, &name(&format!("app:{n}")), &image).unwrap();
            // The same image again is not a second one.
            store.images().set(&lease, &name(&format!("same:{n}")), &image).unwrap();
            let first = store.image_id(&image).unwrap().unwrap().hex()[..1].to_owned();
            (!firsts.insert(first.clone())).then_some(first)
        });
        let error = store.images().find(&common.unwrap()).unwrap_err();
        assert!(matches!(error, Error::ImageAmbiguous { count: 2.., .. }), "{error}");
    }

    #[test]
    fn index_without_an_image_for_this_host_has_no_id_and_is_found_by_name() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let other = Platform::new("plan9", "mips", None);
        let mut manifest = image_for(&lease, other.clone(), &[b"1"]).unwrap();
        manifest.platform = Some(other);
        let bytes = Index::new(vec![manifest]).to_bytes();
        let digest = blob(&lease, &bytes).unwrap();
        let index = Descriptor::new(MediaType::OCI_INDEX, digest, bytes.len() as u64);
        store.images().set(&lease, &name("app"), &index).unwrap();
        let found = store.images().find("app").unwrap();
        assert_eq!((found.image_id, found.descriptor.digest), (None, digest));
        assert_eq!(store.images().find(&digest.hex()[..12]).unwrap().descriptor.digest, digest);
    }
}
