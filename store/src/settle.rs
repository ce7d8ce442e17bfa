//! Settling: blobs that wait for the disk together, instead of each for itself.
//!
//! A sync waits for the file system's journal, so a build of ten steps would wait twenty times.
//! A lease that [defers](Lease::defer_syncs) names its blobs without waiting; they are *unsettled*
//! until an image name is about to lead to them, which syncs all of them at once.
//!
//! ```text
//! <root>/unsettled       on the disk before the first unsettled blob has its name: the run of the
//!                        kernel (boot id) that makes such blobs
//! blobs/…/<hex>  0400    unsettled: whole in this run of the kernel, maybe not on the disk
//!                0600    settled: on the disk, with its name
//! ```
//!
//! # Invariants
//!
//! - In the run of the kernel that wrote it an unsettled blob is as good as any: memory has what the
//!   disk may lack. `kill -9` changes nothing about that.
//! - After a crash of the machine, which `unsettled` with another boot id tells, the next program
//!   hashes every unsettled blob and drops what is not its name, before it looks at anything else.
//! - The mode is part of the inode from its creation, so no file system can keep an unsettled blob
//!   and lose the mark. It changes only after file and directory were synced.
//! - A name in `images/` leads to settled blobs only.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use oci::{Algorithm, Descriptor, Digest, Document, Hasher};

use crate::durable::{self, Durability, if_present};
use crate::error::{IoContext as _, Result};
use crate::layers::this_boot;
use crate::lease::Lease;
use crate::root::Root;
use crate::store::Store;
use crate::{fault, gc};

/// The mode of a blob that may not be on the disk yet.
pub(crate) const UNSETTLED_MODE: u32 = 0o400;
/// The mode of a blob that is.
pub(crate) const SETTLED_MODE: u32 = 0o600;
/// How many manifests of an index are followed; what is beyond is not of this machine.
const MAX_DEPTH: usize = 4;

/// Says on the disk that this run of the kernel has unsettled blobs.
pub(crate) fn announce(lease: &Lease) -> Result<()> {
    let path = lease.store().root().unsettled();
    let boot = this_boot()?;
    if read(&path)?.as_deref() == Some(boot) {
        return Ok(());
    }
    durable::replace(&lease.temporary(), &path, boot.as_bytes(), Durability::Synced)
}

/// Waits until these blobs are on the disk; those that are not stored are left out.
///
/// # Errors
///
/// If one cannot be synced: then it is not known to be on the disk, and stays unsettled.
pub(crate) fn blobs(store: &Store, digests: &BTreeSet<Digest>) -> Result<()> {
    let mut open: Vec<(File, PathBuf)> = Vec::new();
    let mut directories = BTreeSet::new();
    for digest in digests {
        let path = store.root().blob(digest);
        if !is_unsettled(&path)? {
            continue;
        }
        if let Some(file) = if_present(File::open(&path)).doing("open", &path)? {
            directories.insert(store.root().blobs(digest.algorithm()));
            open.push((file, path));
        }
    }
    durable::sync_all(&open)?;
    for directory in &directories {
        durable::sync_dir(directory)?;
    }
    for (file, path) in &open {
        settled(file, path)?;
    }
    Ok(())
}

/// Waits until an image is on the disk, as far as it is stored.
pub(crate) fn image(lease: &Lease, descriptor: &Descriptor) -> Result<()> {
    lease.finish_syncs()?;
    let mut digests = BTreeSet::new();
    collect(lease.store(), descriptor, MAX_DEPTH, &mut digests)?;
    blobs(lease.store(), &digests)
}

fn collect(
    store: &Store,
    descriptor: &Descriptor,
    depth: usize,
    digests: &mut BTreeSet<Digest>,
) -> Result<()> {
    if depth == 0 || !store.blobs().contains(&descriptor.digest)? {
        return Ok(());
    }
    if !digests.insert(descriptor.digest) {
        return Ok(());
    }
    match store.document(descriptor)? {
        Document::Manifest(manifest) => {
            digests.insert(manifest.config.digest);
            digests.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
        Document::Index(index) => {
            for manifest in &index.manifests {
                collect(store, manifest, depth - 1, digests)?;
            }
        }
    }
    Ok(())
}

fn is_unsettled(path: &Path) -> Result<bool> {
    let metadata = if_present(fs::metadata(path)).doing("read", path)?;
    Ok(metadata.is_some_and(|found| found.permissions().mode() & 0o777 == UNSETTLED_MODE))
}

/// Takes the mark from a blob that is on the disk. Where that is lost again, it is hashed once more.
fn settled(file: &File, path: &Path) -> Result<()> {
    let mode = Permissions::from_mode(SETTLED_MODE);
    fault::point().and_then(|()| file.set_permissions(mode)).doing("change", path)
}

/// Looks, after a crash of the machine, at every blob that may not have reached the disk.
///
/// # Errors
///
/// If the store cannot be read or written.
pub(crate) fn recover(root: &Root) -> Result<()> {
    let path = root.unsettled();
    let is_past = |text: Option<String>| -> Result<bool> {
        Ok(text.is_some_and(|text| this_boot().map_or(true, |boot| text != boot)))
    };
    if !is_past(read(&path)?)? {
        return Ok(());
    }
    let _exclusive = root.lock_exclusive()?;
    // Another program may have done it meanwhile, and even have blobs of its own by now.
    if !is_past(read(&path)?)? {
        return Ok(());
    }
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let directory = root.blobs(algorithm);
        let mut is_changed = false;
        for path in gc::list(&directory)? {
            if is_unsettled(&path)? {
                verify(&path, algorithm)?;
                is_changed = true;
            }
        }
        if is_changed {
            durable::sync_dir(&directory)?;
        }
    }
    durable::remove(&path)?;
    durable::sync_dir(root.path())
}

/// Keeps a blob that hashes to its name, and removes any other.
fn verify(path: &Path, algorithm: Algorithm) -> Result<()> {
    let mut file = File::open(path).doing("open", path)?;
    let mut hasher = Hasher::new(algorithm);
    io::copy(&mut file, &mut Hashing(&mut hasher)).doing("read", path)?;
    let name = path.file_name().unwrap_or_default();
    if name.to_str() != Some(hasher.finish().hex().as_str()) {
        tracing::info!(path = %path.display(), "a blob did not survive the crash of the machine");
        return durable::remove(path);
    }
    durable::sync(&file, path)?;
    settled(&file, path)
}

struct Hashing<'a>(&'a mut Hasher);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    if_present(fs::read_to_string(path)).doing("read", path)
}

#[cfg(test)]
mod tests {
    use super::{SETTLED_MODE, UNSETTLED_MODE};
    use crate::steps::StepRecord;
    use crate::store::Store;
    use crate::testing::{blob, image, name, store};
    use oci::{Descriptor, DiffId, Digest, MediaType};
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(store: &Store, digest: &Digest) -> u32 {
        fs::metadata(store.root().blob(digest)).unwrap().permissions().mode() & 0o777
    }

    /// The machine goes down: another boot id, and what the disk does not have.
    fn crash(store: &Store, lost: &[Digest]) {
        for digest in lost {
            let path = store.root().blob(digest);
            let length = fs::metadata(&path).unwrap().len();
            fs::set_permissions(&path, fs::Permissions::from_mode(SETTLED_MODE)).unwrap();
            fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(UNSETTLED_MODE)).unwrap();
        }
        fs::write(store.root().unsettled(), "boot another").unwrap();
    }

    #[test]
    fn a_name_leads_to_settled_blobs_only() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        lease.defer_syncs();
        let made = image(&lease, &[b"one", b"two"]).unwrap();
        let layers = [Digest::sha256(b"one"), Digest::sha256(b"two")];
        assert_eq!(layers.map(|layer| mode(&store, &layer)), [UNSETTLED_MODE; 2]);
        assert!(store.root().unsettled().exists());
        blob(&lease, b"of no image").unwrap();
        store.images().set(&lease, &name("app"), &made).unwrap();
        let config = store.image(&made, &oci::Platform::host()).unwrap().config_digest;
        for digest in [made.digest, config, layers[0], layers[1]] {
            assert_eq!(mode(&store, &digest), SETTLED_MODE, "{digest}");
        }
        assert_eq!(mode(&store, &Digest::sha256(b"of no image")), UNSETTLED_MODE);
    }

    #[test]
    fn whoever_does_not_defer_settles_what_is_there_already() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        lease.defer_syncs();
        let digest = blob(&lease, b"shared").unwrap();
        let put = lease.put(b"document").unwrap().digest;
        assert_eq!((mode(&store, &digest), mode(&store, &put)), (UNSETTLED_MODE, UNSETTLED_MODE));
        let other = store.lease().unwrap();
        blob(&other, b"shared").unwrap();
        other.put(b"document").unwrap();
        assert_eq!((mode(&store, &digest), mode(&store, &put)), (SETTLED_MODE, SETTLED_MODE));
    }

    #[test]
    fn after_a_power_cut_what_is_torn_is_gone_and_what_is_whole_stays() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        lease.defer_syncs();
        let mut keys = Vec::new();
        for content in [&b"torn"[..], b"whole"] {
            let digest = blob(&lease, content).unwrap();
            let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, digest, content.len() as u64);
            let record = StepRecord::of_layer(DiffId(digest), layer, ().into());
            store.steps().put(&lease, &digest, &record).unwrap();
            keys.push(digest);
        }
        drop(lease);
        crash(&store, &keys[..1]);

        let again = Store::open(store.root().path()).unwrap();
        let lease = again.lease().unwrap();
        assert_eq!(again.steps().get(&lease, &keys[0]).unwrap(), None);
        assert!(again.steps().get(&lease, &keys[1]).unwrap().is_some());
        assert_eq!(mode(&again, &keys[1]), SETTLED_MODE);
        assert!(!again.root().unsettled().exists());
        assert_eq!(blob(&lease, b"torn").unwrap(), keys[0], "it is made again");
        assert_eq!(again.blobs().read(&keys[0], 9).unwrap(), b"torn");
    }

    #[test]
    fn in_the_same_run_of_the_kernel_nothing_is_read_again() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        lease.defer_syncs();
        let digest = blob(&lease, b"left by a killed build").unwrap();
        let again = Store::open(store.root().path()).unwrap();
        assert_eq!(mode(&again, &digest), UNSETTLED_MODE);
        assert!(again.root().unsettled().exists());
    }
}
