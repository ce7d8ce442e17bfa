//! The records that a shim leaves for others.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::log::rfc3339_nanos;
use crate::spawn::Exit;

/// Writes the record of a running container.
pub(super) fn write_running(
    path: &Path,
    (pid, start_time): (u32, u64),
    (shim_pid, shim_start_time): (u32, u64),
    restarts: u32,
    now: SystemTime,
) -> io::Result<()> {
    // Process ids and start times mean nothing after the next boot.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let record = json!({
        "pid": pid,
        "start_time": start_time,
        "shim_pid": shim_pid,
        "shim_start_time": shim_start_time,
        "boot_id": boot_id.trim(),
        "started": rfc3339_nanos(now),
        "restarts": restarts,
    });
    put(path, &record.to_string())
}

/// The place for the record of a container's end, taken while there is room:
/// a full disk must not lose the exit status.
pub(super) struct ExitRecord {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

/// More than the record ever needs; the rest is blanks.
const EXIT_BYTES: usize = 512;

impl ExitRecord {
    /// Takes the place.
    pub(super) fn reserve(path: &Path) -> io::Result<Self> {
        let temporary = temporary(path);
        let mut file = File::create(&temporary)?;
        file.write_all(&[b' '; EXIT_BYTES])?;
        Ok(Self { file, temporary, path: path.to_owned() })
    }

    /// Writes the record and puts it in place, without needing any room.
    /// `process` is the one that ended: its id and when it started. `restart` is
    /// how long its shim waits before it is started again.
    pub(super) fn write(
        self,
        process: (u32, u64),
        exit: Exit,
        oom_killed: bool,
        restart: Option<Duration>,
        now: SystemTime,
    ) -> io::Result<()> {
        let signal = match exit {
            Exit::Code(_) => None,
            Exit::Signal(signal) => Some(signal),
        };
        let record = json!({
            "pid": process.0,
            "start_time": process.1,
            "code": exit.status(),
            "signal": signal,
            "oom_killed": oom_killed,
            "finished": rfc3339_nanos(now),
            "restart_ms": restart.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        });
        self.file.write_all_at(record.to_string().as_bytes(), 0)?;
        fs::rename(&self.temporary, &self.path)
    }
}

/// Puts a file in place in one step. It is not synced: after a crash of the
/// machine nothing runs that it could speak of.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let name = temporary(path);
    fs::write(&name, text)?;
    fs::rename(&name, path)
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn records_are_json_objects() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("exit");
        let reserved = ExitRecord::reserve(&path).unwrap();
        assert!(!path.exists());
        reserved
            .write((7, 8), Exit::Signal(9), true, Some(Duration::from_millis(200)), UNIX_EPOCH)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), EXIT_BYTES as u64);
        insta::assert_snapshot!(
            fs::read_to_string(&path).unwrap().trim_end(),
            @r#"{"pid":7,"start_time":8,"code":137,"signal":9,"oom_killed":true,"finished":"1970-01-01T00:00:00.000000000Z","restart_ms":200}"#
        );
        write_running(&path, (7, 8), (5, 6), 3, UNIX_EPOCH).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(
                r#"{"pid":7,"start_time":8,"shim_pid":5,"shim_start_time":6,"boot_id":""#
            ),
            "{text}"
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
