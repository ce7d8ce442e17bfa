//! Giving space back on request: names and build records first, then what only they kept.

use std::collections::BTreeSet;
use std::fs;
use std::time::SystemTime;

use oci::{Digest, Reference};

use crate::durable::{self, if_present};
use crate::error::{Error, IoContext as _, Result};
use crate::gc::{self, GcReport};
use crate::images::ImageEntry;
use crate::store::Store;
use crate::{lease, pins};

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
        }
        removal.garbage = self.collect(locked)?;
        Ok(removal)
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
