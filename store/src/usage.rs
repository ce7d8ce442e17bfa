//! What takes the space of a store, each file counted once.
//!
//! Sizes are those of `du --apparent-size`: the length of files, what directories take for
//! themselves, and a file with several names once. So the total is what `du -sb` says of the root.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oci::{Algorithm, Digest};

use crate::durable::if_present;
use crate::error::{IoContext as _, Result};
use crate::store::Store;
use crate::{gc, steps};

/// What something in a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageKind {
    /// Manifests, configs and layers as they travel.
    Blobs,
    /// Unpacked layers, and what stands between them.
    Layers,
    /// Image names.
    Images,
    /// Build records, and what is remembered of contexts and builds.
    Records,
    /// Directories of `RUN --mount=type=cache`.
    CacheMounts,
    /// Output of steps.
    Logs,
    /// Containers, their volumes and networks.
    Containers,
    /// What programs work on now, or have left behind.
    InProgress,
    /// The rest: directories, locks, the version.
    Other,
}

impl UsageKind {
    /// Returns the name that people know it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Blobs => "blobs",
            Self::Layers => "layers",
            Self::Images => "images",
            Self::Records => "records",
            Self::CacheMounts => "cache-mounts",
            Self::Logs => "logs",
            Self::Containers => "containers",
            Self::InProgress => "in-progress",
            Self::Other => "other",
        }
    }

    /// Tells what a path is, relative to the root.
    fn of(path: &Path) -> Self {
        let mut names = path.iter().map(|name| name.to_str().unwrap_or_default());
        match (names.next().unwrap_or_default(), names.next().unwrap_or_default()) {
            ("blobs", _) => Self::Blobs,
            ("layers" | "chains" | "l", _) => Self::Layers,
            ("images", _) => Self::Images,
            ("builds", "caches") => Self::CacheMounts,
            ("builds", "logs") => Self::Logs,
            ("steps" | "compressed" | "origins" | "builds", _) => Self::Records,
            ("containers" | "volumes" | "networks" | "names" | "stubs", _) => Self::Containers,
            ("ingest" | "leases" | "trash", _) => Self::InProgress,
            _ => Self::Other,
        }
    }
}

/// How much there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many files.
    pub files: usize,
    /// Their bytes, and those of the directories they are in.
    pub bytes: u64,
}

/// One build record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordUsage {
    /// Its key.
    pub key: Digest,
    /// When a build used it last.
    pub used: SystemTime,
    /// What goes with it, if nothing else keeps its layer.
    pub bytes: u64,
}

impl Store {
    /// Measures everything that is in the store.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read. What vanishes meanwhile is not counted.
    pub fn usage(&self) -> Result<BTreeMap<UsageKind, Sum>> {
        let root = self.root().path();
        let mut sums: BTreeMap<UsageKind, Sum> = BTreeMap::new();
        measure(root, &mut BTreeSet::new(), &mut |path, is_file, bytes| {
            let kind = UsageKind::of(path.strip_prefix(root).unwrap_or(path));
            let sum = sums.entry(kind).or_default();
            sum.files += usize::from(is_file);
            sum.bytes += bytes;
        })?;
        Ok(sums)
    }

    /// Lists the build records, those that were not used for longest first.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn record_usage(&self) -> Result<Vec<RecordUsage>> {
        let mut records = Vec::new();
        for path in self.record_paths()? {
            let Some(metadata) = if_present(fs::metadata(&path)).doing("read", &path)? else {
                continue;
            };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Keys are SHA-256; what has another name is gc's.
            let Ok(key) = format!("{}:{name}", Algorithm::Sha256).parse() else { continue };
            let mut bytes = metadata.len();
            let record = steps::read(&path)?;
            if let Some((diff_id, blob)) = record.and_then(|record| record.layer) {
                bytes += self.blobs().size(&blob.digest)?.unwrap_or(0);
                let layer = self.root().layer(&diff_id.0);
                measure(&layer, &mut BTreeSet::new(), &mut |_, _, more| bytes += more)?;
            }
            let used = metadata.modified().doing("read", &path)?;
            records.push(RecordUsage { key, used, bytes });
        }
        records.sort_by_key(|record| (record.used, record.key));
        Ok(records)
    }
}

/// Visits a tree, following no links; a file with several names only under one.
fn measure(
    root: &Path,
    seen: &mut BTreeSet<(u64, u64)>,
    visit: &mut dyn FnMut(&Path, bool, u64),
) -> Result<()> {
    let mut queue: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = queue.pop() {
        let Some(metadata) = if_present(fs::symlink_metadata(&path)).doing("read", &path)? else {
            continue;
        };
        if metadata.is_dir() {
            if let Some(children) = gc::list_if_present(&path)? {
                queue.extend(children);
            }
        } else if metadata.nlink() > 1 && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        visit(&path, !metadata.is_dir(), metadata.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::UsageKind;
    use crate::testing::{image, name, store};
    use std::fs;
    use std::process::Command;

    #[test]
    fn the_total_is_what_du_says() {
        let (_dir, store) = store();
        let lease = store.lease().unwrap();
        let to = image(&lease, &[b"one", b"two"]).unwrap();
        store.images().set(&lease, &name("app"), &to).unwrap();
        drop(lease);
        let logs = store.root().path().join("builds/logs");
        let cache = store.root().path().join("builds/caches/abc/0");
        for directory in [&logs, &cache] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(logs.join("log"), vec![b'x'; 5000]).unwrap();
        fs::hard_link(logs.join("log"), cache.join("same")).unwrap();
        std::os::unix::fs::symlink("/", cache.join("link")).unwrap();
        fs::File::create(cache.join("sparse")).unwrap().set_len(1 << 20).unwrap();
        let usage = store.usage().unwrap();
        let total: u64 = usage.values().map(|sum| sum.bytes).sum();
        let du = Command::new("du").arg("-sb").arg(store.root().path()).output().unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        assert_eq!(total.to_string(), du.split_whitespace().next().unwrap());
        let blobs: u64 = fs::read_dir(store.root().blobs(oci::Algorithm::Sha256))
            .unwrap()
            .map(|blob| blob.unwrap().metadata().unwrap().len())
            .sum();
        assert!(usage[&UsageKind::Blobs].bytes > blobs);
        assert_eq!(usage[&UsageKind::Blobs].files, 4);
        let both = usage[&UsageKind::Logs].files + usage[&UsageKind::CacheMounts].files;
        assert_eq!(both, 3, "a file with two names counts once");
    }
}
