//! Volumes: directories of ours that are mounted into containers.
//!
//! ```text
//! <root>/volumes/
//! ├── .lock                   shared while a container that uses volumes is made,
//! │                           alone while one is removed
//! ├── .new-…, .old-…          a volume being made, one being removed
//! └── <name>/
//!     ├── config.json         when it was made, its labels
//!     ├── lock                taken while it is filled
//!     ├── copy.new/, copy/    the image's files on their way in: see `fill`
//!     └── _data/              what containers see
//! ```
//!
//! Anonymous volumes are in their container's directory and go with it.
//!
//! # Invariants
//!
//! - A volume appears whole, by one rename, and goes by another.
//! - What a container refers to, be it stopped, is never removed: whoever makes
//!   a container holds the lock until others can see what it refers to.
//! - Only `_data` is ever seen by containers. Nothing is done by a path that
//!   leads through it.

mod fill;
mod mounts;
mod size;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::containers::{Containers, make_private_dir};
use super::error::{Error, IoContext as _, Result};
use super::id::ContainerId;
use super::name::Name;
use super::options::{MountRequest, VolumeName};
use super::state::{read_json, write_json};
use super::timestamp::Timestamp;
pub use mounts::{Filling, anonymous_dir, hold, make};

/// The format of `config.json`; raised when an older reader would be misled.
pub const VERSION: u32 = 1;

/// Docker's label of volumes that nobody has named.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The directory that containers see.
const DATA: &str = "_data";

/// A volume as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeConfig {
    /// The format, [`VERSION`].
    pub version: u32,
    /// Its name.
    pub name: VolumeName,
    /// When it was made.
    pub created: Timestamp,
    /// What it is labelled with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl VolumeConfig {
    /// Tells whether its name was drawn, since nobody has given one.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// The volumes of one state directory.
#[derive(Clone, Debug)]
pub struct Volumes {
    dir: PathBuf,
    containers: Containers,
}

/// The proof that no volume is removed: kept until the container that is made
/// can be seen.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "the lock lasts as long as the file is open")] File);

impl Volumes {
    /// Returns the volumes below `root`, which exists.
    pub fn new(root: &Path, containers: Containers) -> Self {
        Self { dir: root.join("volumes"), containers }
    }

    /// Finds a volume.
    ///
    /// # Errors
    ///
    /// [`Error::VolumeUnknown`], and when its file cannot be read.
    pub fn find(&self, name: &str) -> Result<VolumeConfig> {
        let found = match name.parse() {
            Ok(name) => self.load(&name)?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::VolumeUnknown { name: name.to_owned() })
    }

    /// Returns every volume, by name.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or understood.
    pub fn list(&self) -> Result<Vec<VolumeConfig>> {
        let mut volumes = Vec::new();
        for name in self.entries()? {
            if let Ok(name) = name.parse()
                && let Some(volume) = self.load(&name)?
            {
                volumes.push(volume);
            }
        }
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }

    /// Makes a volume. One that is there stays as it is, with its labels; without
    /// a name one is drawn.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn create(
        &self,
        name: Option<VolumeName>,
        mut labels: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<VolumeConfig> {
        let name = match name {
            Some(name) => name,
            None => {
                labels.insert(ANONYMOUS.to_owned(), String::new());
                let drawn = ContainerId::random()?;
                drawn.as_str().parse().map_err(|what| Error::Invalid { what })?
            }
        };
        self.ensure(VolumeConfig { version: VERSION, name, created: now, labels }, &self.hold()?)
    }

    /// Keeps all volumes from being removed.
    ///
    /// # Errors
    ///
    /// When the lock cannot be taken.
    pub fn hold(&self) -> Result<Held> {
        self.lock(FlockOperation::LockShared).map(Held)
    }

    /// Makes a volume, unless it is there.
    fn ensure(&self, config: VolumeConfig, _held: &Held) -> Result<VolumeConfig> {
        let dir = self.dir(&config.name);
        if let Some(found) = self.load(&config.name)? {
            return Ok(found);
        }
        // Complete before it has its name: others may look for it now.
        let new = self.dir.join(format!(".new-{}", ContainerId::random()?));
        make_private_dir(&new)?;
        let data = new.join(DATA);
        fs::create_dir(&data).doing("create", &data)?;
        // Set afterwards, so that the caller's umask takes nothing away.
        fs::set_permissions(&data, Permissions::from_mode(0o755)).doing("create", &data)?;
        write_json(&new.join("config.json"), &config)?;
        let made = sync(&new.join("config.json"))
            .and_then(|()| sync(&new))
            .and_then(|()| fs::rename(&new, &dir))
            .and_then(|()| sync(&self.dir));
        match made {
            Ok(()) => Ok(config),
            Err(error) => {
                super::tree::remove(&new)?;
                // Somebody else was faster.
                self.load(&config.name)?.map_or(Err(error).doing("create", &dir), Ok)
            }
        }
    }

    /// Returns the containers that refer to each volume, whether they run or not.
    ///
    /// # Errors
    ///
    /// When a container's state cannot be read.
    pub fn users(&self) -> Result<BTreeMap<VolumeName, Vec<Name>>> {
        let mut users: BTreeMap<VolumeName, Vec<Name>> = BTreeMap::new();
        for container in self.containers.list()? {
            for mount in container.config.mounts {
                if let MountRequest::Named(volume) = mount {
                    users.entry(volume.name).or_default().push(container.config.name.clone());
                }
            }
        }
        Ok(users)
    }

    /// Removes a volume and what is in it.
    ///
    /// # Errors
    ///
    /// [`Error::VolumeInUse`] if a container refers to it, and when something
    /// cannot be removed.
    pub fn remove(&self, volume: &VolumeConfig) -> Result<()> {
        let name = &volume.name;
        let guard = self.lock(FlockOperation::LockExclusive)?;
        if let Some(container) =
            self.users()?.remove(name).and_then(|users| users.into_iter().next())
        {
            return Err(Error::VolumeInUse { name: name.clone(), container });
        }
        let dir = self.dir(name);
        let old = self.dir.join(format!(".old-{}", ContainerId::random()?));
        match fs::rename(&dir, &old) {
            // Somebody else has just removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.doing("remove", &dir)?,
        }
        // It may be large, and nobody should wait for it.
        drop(guard);
        super::tree::remove(&old)
    }

    /// Removes what killed programs have left. Does nothing while somebody makes
    /// a container that uses volumes.
    ///
    /// # Errors
    ///
    /// When something cannot be removed.
    pub fn sweep(&self) -> Result<()> {
        let is_left = |name: &String| name.starts_with(".new-") || name.starts_with(".old-");
        if !self.entries()?.iter().any(is_left) {
            return Ok(());
        }
        let file = self.open_lock()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            locked => locked.doing("lock", &self.dir)?,
        }
        for name in self.entries()?.iter().filter(|name| is_left(name)) {
            super::tree::remove(&self.dir.join(name))?;
        }
        Ok(())
    }

    /// Returns the directory that containers see.
    pub fn data(&self, name: &VolumeName) -> PathBuf {
        self.dir(name).join(DATA)
    }

    /// Returns how many bytes the files of a volume have.
    ///
    /// # Errors
    ///
    /// When a directory cannot be read.
    pub fn size_bytes(&self, name: &VolumeName) -> Result<u64> {
        let data = self.data(name);
        size::of(&data).doing("read", &data)
    }

    fn load(&self, name: &VolumeName) -> Result<Option<VolumeConfig>> {
        let path = self.dir(name).join("config.json");
        let Some(config) = read_json::<VolumeConfig>(&path)? else { return Ok(None) };
        if config.version > VERSION {
            return Err(Error::StateVersion { path, found: config.version, supported: VERSION });
        }
        Ok(Some(config))
    }

    fn dir(&self, name: &VolumeName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Returns the names of what is in the directory, ours or not.
    fn entries(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.doing("list", &self.dir)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name of ours is text.
            names.extend(entry.doing("list", &self.dir)?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn lock(&self, operation: FlockOperation) -> Result<File> {
        let file = self.open_lock()?;
        flock(&file, operation).doing("lock", &self.dir)?;
        Ok(file)
    }

    fn open_lock(&self) -> Result<File> {
        make_private_dir(&self.dir)?;
        let path = self.dir.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        file.doing("open", &path)
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests;
