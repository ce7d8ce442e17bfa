//! Giving space back on request: names and build records first, then what only they kept.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use oci::{Descriptor, Digest, Reference};

use crate::durable::{self, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::gc::{self, GcReport};
use crate::images::ImageEntry;
use crate::store::Store;
use crate::{lease, pins, remote};

/// What a prune removes besides garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneOptions {
    /// Which build records are forgotten, and with them the layers that only they kept.
    pub records: PruneRecords,
    /// Which images are removed.
    pub images: PruneImages,
}

/// Which build records are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneRecords {
    /// None.
    Keep,
    /// Those that no build has used since.
    UnusedSince(SystemTime),
    /// All of them.
    All,
}

/// Which images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PruneImages {
    /// None.
    Keep,
    /// Those that were built without a name.
    Untagged,
    /// Those that no container was made from and no running program uses.
    Unused,
    /// Those without a name that were built before.
    UntaggedSince(SystemTime),
    /// Those of the unused that were named before.
    UnusedSince(SystemTime),
}

/// What a prune removed.
#[derive(Clone, Debug, Default)]
pub struct PruneReport {
    /// The images whose names were removed.
    pub images: Vec<ImageEntry>,
    /// How many build records were forgotten.
    pub records: usize,
    /// What went with them.
    pub garbage: GcReport,
}

/// What the removal of one image did.
#[derive(Clone, Debug, Default)]
pub struct Removal {
    /// The names that are gone.
    pub untagged: Vec<Reference>,
    /// The image ID, if that was its last name.
    pub deleted: Option<Digest>,
    /// What went with it.
    pub garbage: GcReport,
}

impl Store {
    /// Removes images and build records, and then everything that nothing uses any more.
    ///
    /// # Errors
    ///
    /// As [`gc`](Self::gc).
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport> {
        let locked = self.root().lock_exclusive()?;
        let mut used = lease::survey(self.root(), &locked)?.pins;
        used.extend(pins::survey(self.root(), &locked)?.into_values().flatten());
        let mut report = PruneReport::default();
        for entry in self.images().list()? {
            if self.is_prunable(&entry, options.images, &used)? {
                self.images().remove_entry(&entry)?;
                report.images.push(entry);
            }
        }
        report.records = self.forget(options.records)?;
        report.garbage = self.collect(locked)?;
        Ok(report)
    }

    /// Removes an image as `docker rmi` does: a name, or by its ID all of its names.
    ///
    /// The content goes with its last name, unless something else uses it.
    ///
    /// # Errors
    ///
    /// [`Error::ImageUnknown`]; without `force` also [`Error::ImageHasNames`] if it is asked for
    /// by its ID and has several, and [`Error::ImageInUse`] if it is the last name and a container
    /// was made from it.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Removal> {
        let found = self.images().find(text)?;
        let is_named = text.parse().ok().is_some_and(|name| found.reference == Some(name));
        let mut entries = self.names_of(found.image_id, &found.descriptor.digest)?;
        let is_last = if is_named {
            let count = entries.len();
            entries.retain(|entry| entry.reference == found.reference);
            count == entries.len()
        } else {
            if entries.len() > 1 && !force {
                let id = found.image_id.unwrap_or(found.descriptor.digest).short();
                return Err(Error::ImageHasNames { id, count: entries.len() });
            }
            true
        };
        let locked = self.root().lock_exclusive()?;
        if is_last && !force {
            let ids = [Some(found.descriptor.digest), found.image_id];
            for (container, pins) in pins::survey(self.root(), &locked)? {
                if ids.iter().flatten().any(|id| pins.contains(id)) {
                    return Err(Error::ImageInUse { name: text.to_owned(), container });
                }
            }
        }
        let mut removal = Removal::default();
        for entry in entries {
            if self.images().remove_entry(&entry)? {
                removal.untagged.extend(entry.reference);
            }
        }
        if is_last {
            removal.deleted = found.image_id.or(Some(found.descriptor.digest));
            self.remove_referrers(found.descriptor)?;
        }
        removal.garbage = self.collect(locked)?;
        Ok(removal)
    }

    /// Removes the lists of what refers to an image that is gone, and to what they list.
    fn remove_referrers(&self, image: Descriptor) -> Result<()> {
        let is_list = |entry: &mut ImageEntry| {
            let tag = entry.reference.as_ref().and_then(Reference::tag);
            tag.is_some_and(remote::is_referrers_tag)
        };
        let mut images = self.images().list()?;
        let mut lists: Vec<ImageEntry> = images.extract_if(.., is_list).collect();
        let mut queue = vec![image];
        while let Some(subject) = queue.pop() {
            // An image of the index may have a name of its own.
            if images.iter().any(|entry| entry.descriptor.digest == subject.digest) {
                continue;
            }
            let tag = remote::referrers_tag(&subject.digest);
            if let Ok(document) = self.document(&subject) {
                queue.extend_from_slice(document.manifests());
            }
            let is_about = |entry: &mut ImageEntry| {
                entry.reference.as_ref().and_then(Reference::tag) == Some(&tag)
            };
            for list in lists.extract_if(.., is_about) {
                self.images().remove_entry(&list)?;
                queue.push(list.descriptor);
            }
        }
        Ok(())
    }

    /// Returns every entry that leads to the same image.
    fn names_of(&self, image_id: Option<Digest>, manifest: &Digest) -> Result<Vec<ImageEntry>> {
        let mut entries = Vec::new();
        for entry in self.images().list()? {
            let is_same = entry.descriptor.digest == *manifest
                || (image_id.is_some() && self.image_id(&entry.descriptor)? == image_id);
            if is_same {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn is_prunable(
        &self,
        entry: &ImageEntry,
        which: PruneImages,
        used: &BTreeSet<Digest>,
    ) -> Result<bool> {
        let image_id = self.image_id(&entry.descriptor)?;
        let is_used = used.contains(&entry.descriptor.digest)
            || image_id.is_some_and(|image_id| used.contains(&image_id));
        Ok(match which {
            PruneImages::Keep => false,
            PruneImages::Untagged => entry.reference.is_none() && !is_used,
            PruneImages::Unused => !is_used,
            PruneImages::UntaggedSince(time) => {
                entry.reference.is_none() && !is_used && self.images().named_before(entry, time)?
            }
            PruneImages::UnusedSince(time) => {
                !is_used && self.images().named_before(entry, time)?
            }
        })
    }

    /// Forgets build records; with all of them, also which blobs are compressed forms of layers.
    fn forget(&self, which: PruneRecords) -> Result<usize> {
        let mut count = 0;
        let mut paths = self.record_paths()?;
        if which == PruneRecords::All {
            paths.extend(gc::list(&self.root().compressed())?);
        }
        let limit = match which {
            PruneRecords::Keep => return Ok(0),
            PruneRecords::UnusedSince(time) => Some(time),
            PruneRecords::All => None,
        };
        for path in paths {
            let Some(metadata) = if_present(fs::metadata(&path)).doing("read", &path)? else {
                continue;
            };
            let is_old = match limit {
                None => true,
                Some(limit) => metadata.modified().doing("read", &path)? < limit,
            };
            if is_old {
                durable::remove(&path)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{PruneImages, PruneOptions, PruneRecords};
    use crate::error::Error;
    use crate::steps::StepRecord;
    use crate::store::Store;
    use crate::testing::{blob, image, name, store};
    use crate::{Lease, Pins};
    use oci::{Compression, Descriptor, DiffId, Digest, MediaType};
    use std::fs;
    use std::time::{Duration, SystemTime};

    fn keep() -> PruneOptions {
        PruneOptions { records: PruneRecords::Keep, images: PruneImages::Keep }
    }

    fn record(store: &Store, lease: &Lease, layer: &[u8]) -> Digest {
        let key = Digest::sha256(&[b"key of ", layer].concat());
        let digest = blob(lease, layer).unwrap();
        let blob = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, layer.len() as u64);
        let layer = Some((DiffId(digest), blob));
        store
            .steps()
            .put(lease, &key, &StepRecord { layer, blobs: Vec::new(), extra: ().into() })
            .unwrap();
        key
    }

    fn container(store: &Store, id: &str, pins: &[Digest]) {
        let directory = store.containers_dir().join(id);
        fs::create_dir(&directory).unwrap();
        Pins::write(store, &directory, pins).unwrap();
    }

    #[test]
    fn records_go_when_asked_and_their_layers_with_them() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let (old, new) = (record(&store, &lease, b"old"), record(&store, &lease, b"new"));
        let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, Digest::sha256(b"new"), 3);
        lease.compressed(&DiffId(layer.digest), &layer, Compression::Gzip, None).unwrap();
        drop(lease);
        let hour_ago = fs::metadata(store.root().step(&new)).unwrap().modified().unwrap()
            - Duration::from_secs(3600);
        let before: SystemTime = hour_ago - Duration::from_secs(3600);
        fs::File::open(store.root().step(&old)).unwrap().set_modified(before).unwrap();

        assert_eq!(store.prune(&keep()).unwrap().records, 0);
        let recent = PruneOptions { records: PruneRecords::UnusedSince(hour_ago), ..keep() };
        let report = store.prune(&recent).unwrap();
        assert_eq!((report.records, report.garbage.blobs), (1, 1));
        assert!(store.blobs().contains(&Digest::sha256(b"new")).unwrap());

        let all = PruneOptions { records: PruneRecords::All, ..keep() };
        let report = store.prune(&all).unwrap();
        // The record and the note of the compressed form; the layer in both forms.
        assert_eq!((report.records, report.garbage.blobs), (2, 2));
    }

    #[test]
    fn record_that_is_used_becomes_young_again() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let key = record(&store, &lease, b"layer");
        let file = fs::File::open(store.root().step(&key)).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        let hour_ago = written - Duration::from_secs(3600);
        file.set_modified(hour_ago - Duration::from_secs(1)).unwrap();
        store.steps().get(&lease, &key).unwrap().unwrap();
        let options = PruneOptions { records: PruneRecords::UnusedSince(hour_ago), ..keep() };
        assert_eq!(store.prune(&options).unwrap().records, 0);
    }

    #[test]
    fn images_in_use_are_not_pruned() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let mut images = Vec::new();
        for n in 0..4_u8 {
            images.push(image(&lease, &[&[n]]).unwrap());
        }
        store.images().set(&lease, &name("unused"), &images[0]).unwrap();
        store.images().set(&lease, &name("contained"), &images[1]).unwrap();
        store.images().set(&lease, &name("running"), &images[2]).unwrap();
        store.images().set_untagged(&lease, &images[3]).unwrap();
        container(&store, "c", &[store.image_id(&images[1]).unwrap().unwrap()]);
        drop(lease);
        let program = store.lease().unwrap();
        program.pin(&images[2].digest).unwrap();

        let untagged = PruneOptions { images: PruneImages::Untagged, ..keep() };
        let report = store.prune(&untagged).unwrap();
        assert_eq!(report.images.len(), 1);
        assert_eq!(report.images[0].descriptor.digest, images[3].digest);
        let unused = PruneOptions { images: PruneImages::Unused, ..keep() };
        let report = store.prune(&unused).unwrap();
        let names: Vec<_> =
            report.images.iter().map(|entry| entry.reference.clone().unwrap().familiar()).collect();
        assert_eq!(names, ["unused:latest"]);
        assert_eq!(report.garbage.blobs, 3, "manifest, config and layer");
        assert_eq!(store.images().list().unwrap().len(), 2);
    }

    #[test]
    fn content_goes_with_the_last_name() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let image = image(&lease, &[b"layer"]).unwrap();
        for text in ["app:1", "app:2"] {
            store.images().set(&lease, &name(text), &image).unwrap();
        }
        drop(lease);
        let id = store.image_id(&image).unwrap().unwrap();
        let removal = store.remove_image("app:1", false).unwrap();
        assert_eq!((removal.untagged, removal.deleted), (vec![name("app:1")], None));
        assert_eq!(removal.garbage.blobs, 0);
        let removal = store.remove_image("app:2", false).unwrap();
        assert_eq!((removal.untagged, removal.deleted), (vec![name("app:2")], Some(id)));
        assert_eq!(removal.garbage.blobs, 3);
        let error = store.remove_image("app:2", false).unwrap_err();
        assert_eq!(error.to_string(), "image app:2 is not in the store");
    }

    #[test]
    fn image_with_several_names_goes_by_its_id_only_by_force() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let image = image(&lease, &[b"layer"]).unwrap();
        for text in ["app:1", "app:2"] {
            store.images().set(&lease, &name(text), &image).unwrap();
        }
        let id = store.image_id(&image).unwrap().unwrap();
        let error = store.remove_image(&id.short(), false).unwrap_err();
        assert!(matches!(error, Error::ImageHasNames { count: 2, .. }), "{error}");
        let removal = store.remove_image(&id.short(), true).unwrap();
        assert_eq!((removal.untagged.len(), removal.deleted), (2, Some(id)));
        assert_eq!(store.images().list().unwrap().len(), 0);
    }

    #[test]
    fn image_of_a_container_goes_only_by_force_and_its_content_never() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let image = image(&lease, &[b"layer"]).unwrap();
        for text in ["app:1", "app:2"] {
            store.images().set(&lease, &name(text), &image).unwrap();
        }
        drop(lease);
        container(&store, "web", &[image.digest]);
        store.remove_image("app:1", false).unwrap();
        let error = store.remove_image("app:2", false).unwrap_err().to_string();
        assert_eq!(error, "image app:2 is used by container web");
        let removal = store.remove_image("app:2", true).unwrap();
        assert_eq!((removal.untagged.len(), removal.garbage.blobs), (1, 0));
        assert!(store.blobs().contains(&Digest::sha256(b"layer")).unwrap());
    }
}
