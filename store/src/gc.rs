//! Garbage collection: removes what nothing uses.
//!
//! ```text
//! exclusive lock ─┬─ survey   leases (dead or alive), containers' pins, image names, build records
//!                 ├─ mark     manifests → configs → layers, fix-ups, compressed forms
//!                 ├─ sweep    rename what is not marked into trash/
//! unlock ─────────┘
//! empty trash/              as long as it takes; nobody waits for it
//! ```
//!
//! # Invariants
//!
//! - Whoever pinned something before the lock was taken keeps it; whoever pins it after finds it
//!   gone, and makes it again. There is nothing in between.
//! - Gc never waits for a container or a build. It is itself killed at any point without harm: a
//!   rename either happened or did not, and the trash is anybody's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use oci::{Algorithm, Digest};

use crate::durable::{self, if_present};
use crate::error::{IoContext as _, Result};
use crate::lease::{self, Survey};
use crate::mark::Marks;
use crate::root::StoreLock;
use crate::store::Store;
use crate::{compress, pins, steps, trash};

/// What a garbage collection removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// How many blobs nothing referred to.
    pub blobs: usize,
    /// How many unpacked layers nothing referred to.
    pub layers: usize,
    /// How many fix-ups nothing referred to.
    pub chains: usize,
    /// How many build records and notes about compressed layers named what is gone.
    pub records: usize,
    /// How many programs died and left their lease.
    pub leases: usize,
    /// How many unfinished files they left.
    pub unfinished: usize,
    /// The disk space that came back, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes what no image, container, build record or running program uses.
    ///
    /// Others are held up only while garbage is told from the rest, not while it is deleted.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or written, or if it is not certain what something keeps.
    pub fn gc(&self) -> Result<GcReport> {
        let locked = self.root().lock_exclusive()?;
        self.collect(locked)
    }

    /// Collects garbage under a lock that the caller took, and gives it back in time.
    pub(crate) fn collect(&self, locked: StoreLock) -> Result<GcReport> {
        let _span = tracing::info_span!("gc").entered();
        let mut report = GcReport::default();
        let survey = lease::survey(self.root(), &locked)?;
        let marks = self.mark(&survey, &locked)?;
        self.sweep_leases(&survey, &mut report)?;
        self.sweep_records(&marks, &mut report)?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let name = algorithm.as_str();
            let sweep = |kind: &str| self.sweep(&self.root().path().join(kind).join(name), &marks);
            report.blobs += sweep("blobs")?;
            report.layers += sweep("layers")?;
            report.chains += sweep("chains")?;
        }
        self.sweep_links()?;
        self.sweep_origins(&marks)?;
        drop(locked);
        report.bytes = trash::empty(self.root())?;
        tracing::debug!(?report, "collected garbage");
        Ok(report)
    }

    /// Finds everything that must stay.
    fn mark(&self, survey: &Survey, locked: &StoreLock) -> Result<Marks> {
        let mut marks = Marks::default();
        for entry in self.images().list()? {
            marks.image(self, &entry.descriptor)?;
        }
        let containers = pins::survey(self.root(), locked)?;
        for pin in survey.pins.iter().chain(containers.values().flatten()) {
            marks.pin(self, pin)?;
        }
        for path in self.record_paths()? {
            if let Some(record) = steps::read(&path)? {
                marks.extend(&record.digests());
            }
        }
        // Last, since a compressed form stays exactly as long as its layer does.
        for note in compress::notes(self)? {
            if marks.contains(&note.diff_id.0) {
                marks.extend(&[note.descriptor.digest]);
            }
        }
        Ok(marks)
    }

    /// Removes what dead programs left.
    fn sweep_leases(&self, survey: &Survey, report: &mut GcReport) -> Result<()> {
        for directory in &survey.dead {
            report.leases += usize::from(trash::hide(self.root(), directory)?.is_some());
        }
        for path in list(&self.root().ingest())? {
            let name = name_of(&path);
            let owner = name.split('.').next().unwrap_or_default();
            if !survey.live.contains(owner) {
                report.unfinished += usize::from(trash::hide(self.root(), &path)?.is_some());
            }
        }
        Ok(())
    }

    /// Removes records that are torn or name what is gone.
    fn sweep_records(&self, marks: &Marks, report: &mut GcReport) -> Result<()> {
        for path in self.record_paths()? {
            let is_whole = match steps::read(&path)? {
                Some(record) => record.is_backed(self)?,
                None => false,
            };
            if !is_whole {
                durable::remove(&path)?;
                report.records += 1;
            }
        }
        let mut kept = BTreeSet::new();
        for note in compress::notes(self)? {
            if marks.contains(&note.diff_id.0) && self.blobs().contains(&note.descriptor.digest)? {
                kept.insert(note.path);
            }
        }
        for path in list(&self.root().compressed())? {
            if !kept.contains(&path) {
                durable::remove(&path)?;
                report.records += 1;
            }
        }
        Ok(())
    }

    /// Hides everything in a directory whose name is not the hex of a marked digest.
    fn sweep(&self, directory: &Path, marks: &Marks) -> Result<usize> {
        let algorithm = name_of(directory);
        let mut count = 0;
        for path in list(directory)? {
            let digest = format!("{algorithm}:{}", name_of(&path)).parse::<Digest>();
            if !digest.is_ok_and(|digest| marks.contains(&digest)) {
                count += usize::from(trash::hide(self.root(), &path)?.is_some());
            }
        }
        Ok(count)
    }

    /// Removes short links to layers that are gone.
    fn sweep_links(&self) -> Result<()> {
        for link in list(&self.root().links())? {
            if if_present(fs::metadata(&link)).doing("read", &link)?.is_none() {
                durable::remove(&link)?;
            }
        }
        Ok(())
    }

    /// Returns the files of all build records.
    pub(crate) fn record_paths(&self) -> Result<Vec<PathBuf>> {
        let steps = self.root().path().join("steps");
        let mut paths = list(&steps.join(Algorithm::Sha256.as_str()))?;
        paths.extend(list(&steps.join(Algorithm::Sha512.as_str()))?);
        Ok(paths)
    }
}

/// Returns the paths of a directory's entries.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).doing("list", directory)?;
    entries.map(|entry| Ok(entry.doing("list", directory)?.path())).collect()
}

/// Returns the paths of a directory's entries, or `None` if it is gone.
pub(crate) fn list_if_present(directory: &Path) -> Result<Option<Vec<PathBuf>>> {
    let entries = if_present(fs::read_dir(directory)).doing("list", directory)?;
    let Some(entries) = entries else { return Ok(None) };
    entries.map(|entry| Ok(entry.doing("list", directory)?.path())).collect::<Result<_>>().map(Some)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::GcReport;
    use crate::error::Error;
    use crate::steps::StepRecord;
    use crate::store::Store;
    use crate::testing::{blob, image, name, store};
    use crate::{Lease, Pins};
    use oci::{ChainId, Compression, Descriptor, DiffId, Digest, MediaType};
    use std::fs;
    use std::path::PathBuf;

    /// Puts an empty unpacked layer or fix-up in place, as the layers module does.
    fn unpacked(path: PathBuf) -> PathBuf {
        fs::create_dir_all(path.join("fs/usr")).unwrap();
        fs::write(path.join("fs/usr/file"), "content").unwrap();
        path
    }

    fn diff(layer: &[u8]) -> DiffId {
        DiffId(Digest::sha256(layer))
    }

    /// Says what gc removed, without the bytes, which depend on the file system.
    fn counts(store: &Store) -> GcReport {
        GcReport { bytes: 0, ..store.gc().unwrap() }
    }

    #[test]
    fn what_an_image_uses_stays_and_the_rest_goes() {
        let (_dir, store) = store();
        let root = store.root();
        let lease = store.lease().unwrap();
        let to = image(&lease, &[b"one", b"two"]).unwrap();
        store.images().set(&lease, &name("app"), &to).unwrap();
        let plain = Descriptor::new(MediaType::OCI_LAYER_TAR, diff(b"two").0, 3);
        let packed = lease.compressed(&diff(b"two"), &plain, Compression::Gzip, None).unwrap();
        let chain = ChainId::of(&[diff(b"one"), diff(b"two")]).unwrap().digest();
        let kept = [
            unpacked(root.layer(&diff(b"one").0)),
            unpacked(root.layer(&diff(b"two").0)),
            unpacked(root.chain(&chain)),
            root.blob(&packed.digest),
            root.blob(&diff(b"one").0),
            root.blob(&to.digest),
        ];
        let garbage = [
            unpacked(root.layer(&diff(b"other").0)),
            unpacked(root.chain(&diff(b"other").0)),
            root.blob(&blob(&lease, &vec![7; 1_000_000]).unwrap()),
        ];
        std::os::unix::fs::symlink(garbage[0].join("fs"), root.links().join("gone")).unwrap();
        std::os::unix::fs::symlink(kept[0].join("fs"), root.links().join("here")).unwrap();

        assert_eq!(
            counts(&store),
            GcReport { layers: 1, chains: 1, ..GcReport::default() },
            "the lease keeps the blob that it made"
        );
        drop(lease);
        let report = store.gc().unwrap();
        assert_eq!((report.blobs, report.layers), (1, 0));
        assert!((1_000_000..1_100_000).contains(&report.bytes), "{report:?}");
        assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
        assert!(!garbage.iter().any(|path| path.exists()), "{garbage:?}");
        let links: Vec<_> = super::list(&root.links()).unwrap();
        assert_eq!(links, [root.links().join("here")]);
        assert_eq!(counts(&store), GcReport::default(), "nothing is left for a second gc");

        store.images().remove(&name("app")).unwrap();
        let all = GcReport { blobs: 5, layers: 2, chains: 1, records: 1, ..GcReport::default() };
        assert_eq!(counts(&store), all);
    }

    #[test]
    fn everything_that_can_keep_content_does() {
        type Keep = fn(&Store, &Lease, &Descriptor) -> Option<Lease>;
        let keepers: [(&str, Keep); 6] = [
            ("name", |store, lease, image| {
                store.images().set(lease, &name("app:1"), image).unwrap();
                None
            }),
            ("untagged", |store, lease, image| {
                store.images().set_untagged(lease, image).unwrap();
                None
            }),
            ("container with a manifest", |store, _, image| {
                let container = store.containers_dir().join("c");
                fs::create_dir(&container).unwrap();
                Pins::write(store, &container, &[image.digest]).unwrap();
                None
            }),
            ("container with all it needs", |store, _, image| {
                let container = store.containers_dir().join("c");
                fs::create_dir(&container).unwrap();
                let config = store.image_id(image).unwrap().unwrap();
                Pins::write(store, &container, &[image.digest, config, diff(b"layer").0]).unwrap();
                None
            }),
            ("another lease", |store, _, image| {
                let other = store.lease().unwrap();
                other.pin(&image.digest).unwrap();
                Some(other)
            }),
            ("record", |store, lease, image| {
                let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, diff(b"layer").0, 5);
                let layer = Some((diff(b"layer"), layer));
                let record =
                    StepRecord { layer, blobs: Vec::new(), extra: serde_json::Value::Null };
                store.steps().put(lease, &image.digest, &record).unwrap();
                None
            }),
        ];
        for (keeper, keep) in keepers {
            let (_dir, store) = store();
            let lease = store.lease().unwrap();
            let image = image(&lease, &[b"layer"]).unwrap();
            let layer = unpacked(store.root().layer(&diff(b"layer").0));
            let other = keep(&store, &lease, &image);
            drop(lease);
            let report = counts(&store);
            assert!(layer.exists() && store.root().blob(&diff(b"layer").0).exists(), "{keeper}");
            // A record keeps its layer, not the image that was made of it.
            assert_eq!(report.blobs, if keeper == "record" { 2 } else { 0 }, "{keeper}");
            drop(other);
        }
    }

    #[test]
    fn leftovers_of_dead_programs_are_collected() {
        let (_dir, store) = store();
        let root = store.root();
        let lease = store.lease().unwrap();
        let alive = lease.ingest().unwrap();
        let dead = root.leases().join("dead");
        fs::create_dir_all(dead.join("scratch/run-0/upper")).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("pins"), format!("{}\n", Digest::sha256(b"x"))).unwrap();
        fs::write(root.ingest().join("dead.0"), vec![1; 9000]).unwrap();
        fs::write(root.ingest().join("older-still"), "").unwrap();
        fs::create_dir_all(root.trash().join("emptied-half-way/fs")).unwrap();
        fs::write(root.blobs(oci::Algorithm::Sha256).join("not-a-digest"), "").unwrap();
        fs::write(root.step(&Digest::sha256(b"key")), "{\"layer\":[\"sha").unwrap();
        fs::write(root.compressed().join("torn"), "").unwrap();
        let report =
            GcReport { leases: 1, unfinished: 2, blobs: 1, records: 2, ..GcReport::default() };
        assert_eq!(counts(&store), report);
        assert_eq!(alive.commit(None).unwrap().size, 0, "the living are not disturbed");
        drop(lease);
        for directory in [root.ingest(), root.leases(), root.trash()] {
            assert_eq!(super::list(&directory).unwrap(), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn doubt_about_what_a_container_needs_stops_gc() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let layer = blob(&lease, b"layer").unwrap();
        drop(lease);
        let container = store.containers_dir().join("c");
        fs::create_dir(&container).unwrap();
        Pins::write(&store, &container, &[layer]).unwrap();
        fs::write(container.join("pins"), "").unwrap();
        assert!(matches!(store.gc().unwrap_err(), Error::Damaged { .. }));
        assert!(store.blobs().contains(&layer).unwrap());
        fs::remove_dir_all(&container).unwrap();
        assert_eq!(counts(&store).blobs, 1);
    }

    /// The law that leases exist for: found after it was pinned means there until it is let go.
    #[test]
    fn pinned_content_never_vanishes_while_gc_runs() {
        let (_dir, store) = store();
        let contents: Vec<Vec<u8>> = (0..4_u8).map(|n| vec![n; 100]).collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for round in 0..60 {
                            let lease = store.lease().unwrap();
                            let bytes = &contents[round % contents.len()];
                            let digest = Digest::sha256(bytes);
                            lease.pin(&digest).unwrap();
                            if !store.blobs().contains(&digest).unwrap() {
                                assert_eq!(blob(&lease, bytes).unwrap(), digest);
                            }
                            std::thread::yield_now();
                            assert_eq!(&store.blobs().read(&digest, 100).unwrap(), bytes);
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        store.gc().unwrap();
                    }
                });
            }
            for worker in workers {
                worker.join().unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        store.gc().unwrap();
        assert_eq!(super::list(&store.root().blobs(oci::Algorithm::Sha256)).unwrap().len(), 0);
    }
}
