//! Where everything is: the paths of one store, and its one lock.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use oci::{Algorithm, Digest};

use crate::error::{Error, IoContext as _, Result};
use crate::settle;
use crate::version::{self, Format};

/// The directories that every store has from the moment it is created.
const DIRECTORIES: &[&str] = &[
    "blobs",
    "blobs/sha256",
    "blobs/sha512",
    "ingest",
    "images",
    "layers",
    "layers/sha256",
    "layers/sha512",
    "l",
    "chains",
    "chains/sha256",
    "chains/sha512",
    "steps",
    "steps/sha256",
    "steps/sha512",
    "compressed",
    "containers",
    "volumes",
    "networks",
    "names",
    "leases",
    "trash",
];

/// Names that may be in a store's root besides [`DIRECTORIES`]; `builds` belongs to the
/// builder, `stubs` to the runner, and `origins` is made when it is needed.
const OTHER_NAMES: &[&str] =
    &["version", "version.new", "unsettled", "lock", "builds", "stubs", "origins", "lost+found"];

/// The paths of one store.
///
/// Only this type knows where things are; everything is beneath one directory, so that a rename
/// is always possible.
#[derive(Clone, Debug)]
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Creates the directories where they are missing, and brings them to the present format.
    pub(crate) fn open(path: &Path, format: &Format) -> Result<Self> {
        let path = std::path::absolute(path).doing("resolve", path)?;
        let root = Self { path };
        if version::read(&root)? == Some(format.current) {
            settle::recover(&root)?;
            return Ok(root);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root.path)
            .doing("create", &root.path)?;
        root.refuse_foreign()?;
        let locked = root.lock_exclusive()?;
        version::ensure(&root, format, &locked)?;
        drop(locked);
        settle::recover(&root)?;
        Ok(root)
    }

    /// Creates every directory that is missing.
    pub(crate) fn create_directories(&self) -> Result<()> {
        for name in DIRECTORIES {
            let dir = self.path.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).doing("create", &dir)?;
        }
        Ok(())
    }

    /// Refuses a directory that is used for something else, before anything is written to it.
    fn refuse_foreign(&self) -> Result<()> {
        if version::read(self)?.is_some() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.path).doing("list", &self.path)? {
            let name = entry.doing("list", &self.path)?.file_name();
            let known = |known: &&str| name == **known;
            if !DIRECTORIES.iter().any(known) && !OTHER_NAMES.iter().any(known) {
                let name = name.to_string_lossy().into_owned();
                return Err(Error::NotAStore { path: self.path.clone(), name });
            }
        }
        Ok(())
    }

    /// Returns the directory of the whole store.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file that names the format.
    #[must_use]
    pub fn version(&self) -> PathBuf {
        self.path.join("version")
    }

    /// Returns the file that says that blobs may not be on the disk yet.
    #[must_use]
    pub fn unsettled(&self) -> PathBuf {
        self.path.join("unsettled")
    }

    /// Returns the directory of all blobs named by `algorithm`.
    #[must_use]
    pub fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.path.join("blobs").join(algorithm.to_string())
    }

    /// Returns the place of one blob.
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.by_digest("blobs", digest)
    }

    /// Returns the directory of blobs that are being written.
    #[must_use]
    pub fn ingest(&self) -> PathBuf {
        self.path.join("ingest")
    }

    /// Returns the directory of image references.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Returns the place of one unpacked layer, named by its diff id.
    #[must_use]
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.by_digest("layers", diff_id)
    }

    /// Returns the place of one chain's fix-up.
    #[must_use]
    pub fn chain(&self, chain_id: &Digest) -> PathBuf {
        self.by_digest("chains", chain_id)
    }

    /// Returns the directory of short links to layers and fix-ups.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.path.join("l")
    }

    /// Returns the place of one build record.
    #[must_use]
    pub fn step(&self, key: &Digest) -> PathBuf {
        self.by_digest("steps", key)
    }

    /// Returns the directory that remembers compressed forms of layers.
    #[must_use]
    pub fn compressed(&self) -> PathBuf {
        self.path.join("compressed")
    }

    /// Returns the directory that remembers where missing blobs can be had.
    #[must_use]
    pub fn origins(&self) -> PathBuf {
        self.path.join("origins")
    }

    /// Returns the directory of containers, one directory each.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.path.join("containers")
    }

    /// Returns the directory of volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// Returns the directory of networks.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.path.join("networks")
    }

    /// Returns the directory of container names, which is the runner's.
    #[must_use]
    pub fn names(&self) -> PathBuf {
        self.path.join("names")
    }

    /// Returns the directory of leases, one directory each.
    #[must_use]
    pub fn leases(&self) -> PathBuf {
        self.path.join("leases")
    }

    /// Returns the directory of what is to be deleted.
    #[must_use]
    pub fn trash(&self) -> PathBuf {
        self.path.join("trash")
    }

    fn by_digest(&self, kind: &str, digest: &Digest) -> PathBuf {
        let mut path = self.path.join(kind);
        path.push(digest.algorithm().to_string());
        path.push(digest.hex());
        path
    }

    /// Holds off garbage collection for a moment: many may, at once.
    ///
    /// Hold it for a pin and its check, never for work.
    pub(crate) fn lock_shared(&self) -> Result<StoreLock> {
        let (file, path) = self.open_lock()?;
        file.lock_shared().doing("lock", &path)?;
        Ok(StoreLock { _file: file })
    }

    /// Holds off everybody for a moment.
    pub(crate) fn lock_exclusive(&self) -> Result<StoreLock> {
        let (file, path) = self.open_lock()?;
        file.lock().doing("lock", &path)?;
        Ok(StoreLock { _file: file })
    }

    /// Opens the lock file anew: threads of one process exclude each other like processes do.
    fn open_lock(&self) -> Result<(File, PathBuf)> {
        let path = self.path.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .doing("open", &path)?;
        Ok((file, path))
    }
}

/// The store's lock, held until dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}
