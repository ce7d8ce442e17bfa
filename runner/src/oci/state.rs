//! What is kept of a container, and what it does.
//!
//! ```text
//! <root>/<id>/                locked while it is being created
//! ├── state.json              what is known of it; renamed into place
//! ├── config.json             the configuration it was created with
//! └── gate                    where its first process waits, see sandbox::bundle::gate
//! ```
//!
//! Only what cannot be asked of the kernel is written down: whether it runs,
//! waits or is paused is asked each time, so that nothing has to be put right
//! after a crash.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sandbox::Running;
use sandbox::bundle::gate;
use sandbox::cgroup::Placed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{Error, IoContext as _, Result};
use super::spec::{self, Config};

/// The longest name of a container: a file name.
const ID_BYTES_MAX: usize = 255;

/// The name of a container: letters, digits, `_`, `+`, `-`, `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// When it is empty, too long, or has other characters.
    pub fn parse(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let is_dots = matches!(text, "." | "..");
        if text.is_empty() || text.len() > ID_BYTES_MAX || is_dots || !text.bytes().all(plain) {
            return Err(Error::invalid(format!("invalid container ID format: {text:?}")));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// Its first process waits to be started.
    Created,
    /// Its command runs.
    Running,
    /// All its processes are held still.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// Returns the word of the specification (`runtime.md`, "State").
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What is written down of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root's directory.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The user id of who created it.
    pub owner: u32,
    /// What the engine notes.
    pub annotations: BTreeMap<String, String>,
    /// Its first process and when that started, once there is one.
    pub process: Option<(u32, u64)>,
    /// Its control groups.
    pub groups: Placed,
}

impl Record {
    /// Returns the first process.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.process.map(|(pid, start_time)| Running { pid, start_time })
    }

    /// Returns the state as hooks and `state` have it (`runtime.md`, "State").
    #[must_use]
    pub fn state(&self, status: Status, pid: Option<u32>) -> Value {
        json!({
            "ociVersion": spec::VERSION,
            "id": self.id,
            "pid": pid.unwrap_or(0),
            "status": status.word(),
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }
}

/// The directory of all containers.
#[derive(Clone, Debug)]
pub struct States {
    root: PathBuf,
}

/// A container on disk.
#[derive(Debug)]
pub struct Container {
    directory: PathBuf,
    /// What is written down of it.
    pub record: Record,
}

/// A container that is being created: nobody else takes it for dead.
#[derive(Debug)]
pub struct Creating {
    /// The container.
    pub container: Container,
    _lock: File,
}

impl States {
    /// Returns the states in a directory, which need not exist.
    #[must_use]
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Begins a container.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] when there is one of this name.
    pub fn begin(&self, id: &Id, record: Record, config: &[u8]) -> Result<Creating> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.root)
            .doing("create", &self.root)?;
        let directory = self.root.join(id.as_str());
        match DirBuilder::new().mode(0o711).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: id.to_string() });
            }
            other => other.doing("create", &directory)?,
        }
        let container = Container { directory, record };
        let begin = || {
            let lock = File::open(&container.directory).doing("open", &container.directory)?;
            flock(&lock, FlockOperation::NonBlockingLockExclusive)
                .doing("lock", &container.directory)?;
            container.save()?;
            write_whole(&container.directory.join("config.json"), config)?;
            Ok(lock)
        };
        match begin() {
            Ok(lock) => Ok(Creating { container, _lock: lock }),
            Err(error) => {
                // The reason is more interesting than what is left.
                container.forget().ok();
                Err(error)
            }
        }
    }

    /// Finds a container.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] when there is none of this name.
    pub fn find(&self, id: &Id) -> Result<Container> {
        let directory = self.root.join(id.as_str());
        if !directory.is_dir() {
            return Err(Error::Unknown { id: id.to_string() });
        }
        Ok(Container { record: read_record(&directory, id)?, directory })
    }

    /// Returns all containers, by name.
    ///
    /// # Errors
    ///
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing("read", &self.root)?,
        };
        let mut ids: Vec<Id> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter_map(|entry| Id::parse(entry.file_name().to_str()?).ok())
            .collect();
        ids.sort();
        // One that is deleted meanwhile is not there any more.
        Ok(ids.iter().filter_map(|id| self.find(id).ok()).collect())
    }
}

impl Container {
    /// Returns what it does.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.record.running() {
            Some(process) if process.is_alive() => {
                if gate::is_waiting(&self.directory) {
                    Status::Created
                } else if self.record.groups.is_frozen() {
                    Status::Paused
                } else {
                    Status::Running
                }
            }
            None if self.is_locked() => Status::Creating,
            None | Some(_) => Status::Stopped,
        }
    }

    fn is_locked(&self) -> bool {
        let Ok(directory) = File::open(&self.directory) else { return false };
        flock(&directory, FlockOperation::NonBlockingLockShared).is_err()
    }

    /// Returns its state directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads the configuration it was created with.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn config(&self) -> Result<Config> {
        spec::read(&self.directory).map(|(config, _)| config)
    }

    /// Writes down what is known.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record)
            .map_err(|error| Error::invalid(format!("the state cannot be written: {error}")))?;
        write_whole(&self.directory.join("state.json"), &text)
    }

    /// Removes everything that is written down.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.doing("remove", &self.directory),
        }
    }
}

/// Reads the record; a directory without one is a container whose creation was
/// interrupted.
fn read_record(directory: &Path, id: &Id) -> Result<Record> {
    let path = directory.join("state.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record {
            id: id.to_string(),
            bundle: PathBuf::new(),
            rootfs: PathBuf::new(),
            created: String::new(),
            owner: 0,
            annotations: BTreeMap::new(),
            process: None,
            groups: Placed::default(),
        }),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

/// Writes a file under another name and renames it.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&temporary, path))
        .doing("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &Id) -> Record {
        Record {
            id: id.to_string(),
            bundle: "/bundle".into(),
            rootfs: "/bundle/rootfs".into(),
            created: "2026-01-02T03:04:05Z".into(),
            owner: 0,
            annotations: BTreeMap::from([("a".into(), "b".into())]),
            process: None,
            groups: Placed::default(),
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(256);
        for id in ["", ".", "..", "a/b", "../x", "a b", "ä", "a\0", long.as_str()] {
            assert!(Id::parse(id).is_err(), "accepted {id:?}");
        }
        assert!(Id::parse("a-B_0.+").is_ok());
    }

    #[test]
    fn one_that_is_interrupted_is_stopped_and_can_be_removed() {
        let root = tempfile::tempdir().unwrap();
        let states = States::at(root.path().join("states"));
        let id = Id::parse("one").unwrap();
        assert!(matches!(states.find(&id), Err(Error::Unknown { .. })));
        let creating = states.begin(&id, record(&id), b"{}").unwrap();
        assert_eq!(states.find(&id).unwrap().status(), Status::Creating);
        assert!(matches!(states.begin(&id, record(&id), b"{}"), Err(Error::Exists { .. })));
        drop(creating);
        let found = states.find(&id).unwrap();
        assert_eq!(found.status(), Status::Stopped);
        // Killed between making the directory and writing to it.
        fs::create_dir(root.path().join("states/two")).unwrap();
        let all = states.list().unwrap();
        let names: Vec<&str> = all.iter().map(|found| found.record.id.as_str()).collect();
        assert_eq!(names, ["one", "two"]);
        assert!(all.iter().all(|found| found.status() == Status::Stopped));
        for container in all {
            container.forget().unwrap();
        }
        assert!(states.list().unwrap().is_empty());
    }
}
