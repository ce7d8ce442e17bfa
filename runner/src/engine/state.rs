//! What has become of a container.
//!
//! Two small files tell it: `running`, written when the process has started,
//! and `exit`, written when it has ended. An `exit` that is about an earlier
//! start than `running` counts for nothing. Neither is believed alone: whether
//! something runs is asked of the kernel, with pid, start time and boot id, so
//! that after a power cut or a `kill -9` of whoever watched the truth is told.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Error, IoContext as _, Result};
use super::process::{Process, boot_id};
use super::timestamp::Timestamp;

/// The exit code of a container whose end nobody saw, docker's number for it.
pub const UNKNOWN_EXIT_CODE: i32 = 255;

/// The largest state file that is read.
const MAX_STATE_BYTES: u64 = 4 << 20;

/// The file `running`: which process is the container's first, and which one
/// watches it (`rrun` in the foreground, else its shim).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The first process, as seen from the host.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub start_time: u64,
    /// The process that collects it and writes `exit`.
    pub shim_pid: i32,
    /// The watcher's start time.
    pub shim_start_time: u64,
    /// The boot these pids belong to.
    pub boot_id: String,
    /// When it was started.
    pub started: Timestamp,
    /// How often it was started again since its user has started it.
    #[serde(default)]
    pub restarts: u32,
}

/// The file `exit`: how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The process that ended; records of earlier versions do not say.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Its start time in clock ticks since boot.
    #[serde(default)]
    pub start_time: Option<u64>,
    /// The exit code; 128 + n for signal n.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed one of its processes for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// When it ended, as far as it is known.
    pub finished: Timestamp,
    /// How long its watcher waits before it starts the container again, in
    /// milliseconds; `None` if it does not. It counts as long as the watcher lives.
    #[serde(default)]
    pub restart_ms: Option<u64>,
    /// Why the container could not be started again.
    #[serde(default)]
    pub error: Option<String>,
}

/// What a container is doing.
#[derive(Debug)]
pub enum Status {
    /// It has not been started, or not yet.
    Created,
    /// Its first process is alive, or its watcher is still tidying up.
    Running(Running),
    /// It has ended, and its watcher is about to start it again.
    Restarting(Running, ExitRecord),
    /// It has ended and its watcher saw how.
    Exited(Option<Running>, ExitRecord),
    /// It has ended, and whoever watched it was killed or lost power.
    Lost(Running),
}

impl Status {
    /// Derives it from the two files in `dir` and from the kernel.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Self> {
        let running: Option<Running> = read_json(&dir.join("running"))?;
        // `running` is read before the processes are looked up and `exit`
        // after: an end in between is then seen as such.
        let alive = match &running {
            Some(running) => running.is_alive()?,
            None => false,
        };
        let exit: Option<ExitRecord> = read_json(&dir.join("exit"))?;
        let exit = exit.filter(|exit| running.as_ref().is_none_or(|running| exit.is_of(running)));
        let is_watched = match (&running, &exit) {
            (Some(running), Some(exit)) => {
                exit.restart_ms.is_some() && running.watcher()?.is_some()
            }
            _ => false,
        };
        Ok(match (running, exit) {
            (Some(running), Some(exit)) if is_watched => Self::Restarting(running, exit),
            (running, Some(exit)) => Self::Exited(running, exit),
            (Some(running), None) if alive => Self::Running(running),
            (Some(running), None) => Self::Lost(running),
            (None, None) => Self::Created,
        })
    }

    /// Tells whether it runs, or will again by itself: docker's idea of running.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Restarting(..))
    }

    /// Returns the record of its last start.
    pub fn last_start(&self) -> Option<&Running> {
        match self {
            Self::Created => None,
            Self::Running(running) | Self::Restarting(running, _) | Self::Lost(running) => {
                Some(running)
            }
            Self::Exited(running, _) => running.as_ref(),
        }
    }

    /// Returns docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Restarting(..) => "restarting",
            Self::Exited(..) | Self::Lost(_) => "exited",
        }
    }
}

impl ExitRecord {
    /// Tells whether it is the end of this start of the container.
    fn is_of(&self, running: &Running) -> bool {
        self.pid.is_none_or(|pid| pid == running.pid)
            && self.start_time.is_none_or(|start_time| start_time == running.start_time)
    }
}

impl Running {
    /// Tells whether the first process or its watcher is alive.
    ///
    /// # Errors
    ///
    /// When /proc is not there.
    pub fn is_alive(&self) -> Result<bool> {
        Ok(self.process()?.is_some() || self.watcher()?.is_some())
    }

    /// Returns whoever watches it, if that is alive.
    ///
    /// # Errors
    ///
    /// When /proc is not there.
    pub fn watcher(&self) -> Result<Option<Process>> {
        let find = || Process::find(self.shim_pid, self.shim_start_time);
        Ok(if self.is_this_boot()? { find() } else { None })
    }

    /// Returns the first process if it is alive.
    ///
    /// # Errors
    ///
    /// When /proc is not there.
    pub fn process(&self) -> Result<Option<Process>> {
        Ok(if self.is_this_boot()? { Process::find(self.pid, self.start_time) } else { None })
    }

    fn is_this_boot(&self) -> Result<bool> {
        Ok(self.boot_id == boot_id()?)
    }
}

/// Reads a state file; `None` if it is not there, or was emptied by a power cut.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    match fs::File::open(path) {
        Ok(file) => file.take(MAX_STATE_BYTES).read_to_end(&mut bytes).doing("read", path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).doing("read", path),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| Error::State { path: path.to_owned(), source })
}

/// Writes a state file so that readers see all of it or nothing.
///
/// It is not synced: after a power cut the processes it describes are gone,
/// and a file that is empty then is dealt with like one that is missing.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| Error::State { path: path.to_owned(), source })?;
    let temporary = path.with_extension("new");
    fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(&bytes))
        .doing("write", &temporary)?;
    fs::rename(&temporary, path).doing("write", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::process::start_time;

    fn running(pid: i32, start_time: u64) -> Running {
        Running {
            pid,
            start_time,
            shim_pid: 0,
            shim_start_time: 0,
            boot_id: boot_id().unwrap(),
            started: Timestamp::default(),
            restarts: 0,
        }
    }

    fn word(dir: &Path) -> &'static str {
        match Status::read(dir).unwrap() {
            Status::Lost(_) => "lost",
            status => status.word(),
        }
    }

    #[test]
    fn the_kernel_decides_what_runs() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(word(dir), "created");
        let me = i32::try_from(std::process::id()).unwrap();
        let now = start_time(me).unwrap();
        let file = dir.join("running");
        write_json(&file, &running(me, now)).unwrap();
        assert_eq!(word(dir), "running");
        // The pid was given to another process since.
        write_json(&file, &running(me, now + 1)).unwrap();
        assert_eq!(word(dir), "lost");
        // The first process has ended, its watcher has not yet said how.
        let watched = Running { shim_pid: me, shim_start_time: now, ..running(me, now + 1) };
        write_json(&file, &watched).unwrap();
        assert_eq!(word(dir), "running");
        // The machine was started again since.
        write_json(&file, &Running { boot_id: "other".to_owned(), ..running(me, now) }).unwrap();
        assert_eq!(word(dir), "lost");
        let exit = ExitRecord {
            pid: None,
            start_time: None,
            code: 3,
            signal: None,
            oom_killed: false,
            finished: Timestamp::default(),
            restart_ms: None,
            error: None,
        };
        write_json(&dir.join("exit"), &exit).unwrap();
        assert_eq!(word(dir), "exited");
        // The end of an earlier start is not that of this one.
        write_json(&file, &running(me, now)).unwrap();
        let of = |start_time| ExitRecord { pid: Some(me), start_time, ..exit.clone() };
        write_json(&dir.join("exit"), &of(Some(now - 1))).unwrap();
        assert_eq!(word(dir), "running");
        write_json(&dir.join("exit"), &of(Some(now))).unwrap();
        assert_eq!(word(dir), "exited");
        // It is restarting only as long as somebody is there to do it.
        write_json(&file, &watched).unwrap();
        let again = ExitRecord { restart_ms: Some(100), ..of(Some(now + 1)) };
        write_json(&dir.join("exit"), &again).unwrap();
        assert_eq!(word(dir), "restarting");
        write_json(&file, &Running { shim_start_time: now + 1, ..watched }).unwrap();
        assert_eq!(word(dir), "exited");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("running");
        fs::write(&path, "{").unwrap();
        let error = Status::read(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with(path.to_str().unwrap()), "{error}");
    }
}
