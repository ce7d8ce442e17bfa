//! Where blobs that are not in the store can be had: repositories that have them.
//!
//! A base image that no step reads from need not be pulled: its manifest and config are here, its
//! layers stay where they are. What is built on it can still be pushed, saved and run, because
//! `origins/<algorithm>-<hex>` says where each missing blob is:
//!
//! ```text
//! docker.io/library/busybox
//! localhost:5000/mirror/busybox
//! ```
//!
//! A note stays as long as its blob is wanted, whether the blob is here or not.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use oci::{Digest, Reference};

use crate::durable::{self, Durability, if_present};
use crate::error::{IoContext as _, Result};
use crate::gc;
use crate::lease::Lease;
use crate::mark::Marks;
use crate::store::Store;

/// How many repositories are remembered for one blob. A blob of a base image has one, or a second
/// where it is mirrored; the limit keeps a thousand projects on one base from making a long list.
const MAX_ORIGINS: usize = 8;

impl Lease {
    /// Notes that blobs can be had from a repository; the tag and digest of the name do not count.
    ///
    /// The blobs are pinned, whether they are in the store or not.
    ///
    /// # Errors
    ///
    /// If the store cannot be written.
    pub fn note_origin(&self, blobs: &[Digest], from: &Reference) -> Result<()> {
        self.pin_all(blobs)?;
        let root = self.store().root();
        let directory = root.origins();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .doing("create", &directory)?;
        let line = format!("{}/{}", from.registry(), from.repository());
        // Garbage collection must not look between reading and writing.
        let _shared = root.lock_shared()?;
        for blob in blobs {
            let path = path(self.store(), blob);
            let mut lines = read(&path)?;
            if lines.first() == Some(&line) {
                continue;
            }
            lines.retain(|known| *known != line);
            lines.insert(0, line.clone());
            lines.truncate(MAX_ORIGINS);
            let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            durable::replace(&self.temporary(), &path, text.as_bytes(), Durability::Synced)?;
        }
        Ok(())
    }
}

impl Store {
    /// Returns names in the repositories that a blob can be had from, the latest noted first.
    ///
    /// Their tag means nothing.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn origins(&self, blob: &Digest) -> Result<Vec<Reference>> {
        let lines = read(&path(self, blob))?;
        // A line that is no name any more helps nobody.
        Ok(lines.iter().filter_map(|line| line.parse().ok()).collect())
    }

    /// Forgets the origins of blobs that nobody wants.
    pub(crate) fn sweep_origins(&self, marks: &Marks) -> Result<()> {
        let directory = self.root().origins();
        if if_present(fs::metadata(&directory)).doing("read", &directory)?.is_none() {
            return Ok(());
        }
        for path in gc::list(&directory)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().replacen('-', ":", 1);
            if !name.parse().is_ok_and(|digest| marks.contains(&digest)) {
                durable::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn path(store: &Store, blob: &Digest) -> PathBuf {
    store.root().origins().join(format!("{}-{}", blob.algorithm(), blob.hex()))
}

fn read(path: &PathBuf) -> Result<Vec<String>> {
    let text = if_present(fs::read_to_string(path)).doing("read", path)?.unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use crate::testing::{blob, image, name, store};
    use oci::Digest;

    #[test]
    fn the_latest_origin_comes_first_and_nine_are_too_many() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let digest = Digest::sha256(b"elsewhere");
        assert!(store.origins(&digest).unwrap().is_empty());
        for host in ["a.example", "b.example", "a.example"] {
            lease.note_origin(&[digest], &name(&format!("{host}/app:1"))).unwrap();
        }
        let origins = || -> Vec<String> {
            let names = store.origins(&digest).unwrap();
            names.iter().map(|name| format!("{}/{}", name.registry(), name.repository())).collect()
        };
        assert_eq!(origins(), ["a.example/app", "b.example/app"]);
        for n in 0..9 {
            lease.note_origin(&[digest], &name(&format!("c.example/app{n}"))).unwrap();
        }
        assert_eq!(origins().len(), 8);
        assert_eq!(origins()[0], "c.example/app8");
    }

    #[test]
    fn origins_stay_as_long_as_their_blob_is_wanted() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let to = image(&lease, &[b"one"]).unwrap();
        store.images().set(&lease, &name("app"), &to).unwrap();
        let (wanted, other) = (Digest::sha256(b"one"), blob(&lease, b"other").unwrap());
        lease.note_origin(&[wanted, other], &name("a.example/app")).unwrap();
        std::fs::remove_file(store.root().blob(&wanted)).unwrap();
        store.gc().unwrap();
        assert_eq!(store.origins(&other).unwrap().len(), 1, "the lease has it pinned");
        drop(lease);
        store.gc().unwrap();
        assert_eq!(store.origins(&wanted).unwrap().len(), 1);
        assert!(store.origins(&other).unwrap().is_empty());
    }
}
