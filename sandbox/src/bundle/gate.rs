//! The gate between `create` and `start`: a socket in the container's state
//! directory at which its first process waits.
//!
//! ```text
//! create ── listening socket ──► first process: accept
//! start  ── connect, GO ───────►   GO read: the socket is closed, execve
//!        ◄─ end of file, or why the command could not be executed
//! probe  ── connect, nothing ──►   accept again
//! ```
//!
//! Nothing on disk says whether a container was started: the socket does. Who
//! connects finds somebody waiting, or nobody. So nothing has to be cleaned up
//! whoever is killed at whatever moment, and two starts cannot both win.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Context as _, Error, Result};
use crate::spawn::{Channel, Message};

/// The name of the socket in the state directory.
pub const GATE: &str = "gate";

/// What a starter says.
const GO: u8 = b'G';

/// How long a starter has between connecting and saying so.
const GREETING_SECONDS: u64 = 10;

/// Makes the gate in a container's state directory.
///
/// # Errors
///
/// When the socket cannot be made.
pub fn make(directory: &Path) -> Result<OwnedFd> {
    at(directory, |path| UnixListener::bind(path))
        .map(OwnedFd::from)
        .cannot(|| format!("make a socket in {}", directory.display()))
}

/// Returns whether somebody waits at the gate.
#[must_use]
pub fn is_waiting(directory: &Path) -> bool {
    at(directory, |path| UnixStream::connect(path)).is_ok()
}

/// Lets the one who waits go on; returns when the command is executed.
///
/// # Errors
///
/// [`Error::Invalid`] when nobody waits: it was started already, or is gone.
/// Otherwise why the command could not be executed.
pub fn open(directory: &Path) -> Result<()> {
    let mut stream = match at(directory, |path| UnixStream::connect(path)) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            return Err(Error::invalid("the container is not waiting to be started"));
        }
        other => other.cannot(|| "reach the first process of the container")?,
    };
    stream.write_all(&[GO]).cannot(|| "start the container")?;
    let mut channel = Channel::new(stream.into());
    let mut answered = false;
    while let Some(message) = channel.receive().cannot(|| "hear from the container")? {
        match message {
            Message::Failed(error) => return Err(error),
            Message::Ready => answered = true,
            _ => {
                return Err(Error::invalid(
                    "the container's first process sent something unexpected",
                ));
            }
        }
    }
    if answered {
        Ok(())
    } else {
        // Whoever was accepted first has started it.
        Err(Error::invalid("the container was started by somebody else, or was killed"))
    }
}

/// Waits for a starter; returns the way to answer.
pub(crate) fn wait(gate: OwnedFd) -> Result<Channel> {
    let what = || "wait to be started";
    let listener = UnixListener::from(gate);
    loop {
        let (mut stream, _) = match listener.accept() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.cannot(what)?,
        };
        let patience = std::time::Duration::from_secs(GREETING_SECONDS);
        stream.set_read_timeout(Some(patience)).cannot(what)?;
        let mut greeting = [0];
        // A probe says nothing.
        if stream.read_exact(&mut greeting).is_ok() && greeting[0] == GO {
            let channel = Channel::new(stream.into());
            channel.send(&Message::Ready).cannot(what)?;
            return Ok(channel);
        }
    }
}

/// Uses the socket by a short name, however long the directory's is: the
/// kernel takes 108 bytes.
fn at<T>(directory: &Path, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{GATE}", directory.as_fd().as_raw_fd());
    work(Path::new(&path))
}

/// Removes the gate of a container that has ended.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(GATE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_wins_and_probes_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_waiting(directory.path()));
        let gate = make(directory.path()).unwrap();
        let waiter = std::thread::spawn(move || {
            let channel = wait(gate).unwrap();
            // The end of the command's exec: nothing more is said.
            drop(channel);
        });
        for _ in 0..3 {
            assert!(is_waiting(directory.path()));
        }
        open(directory.path()).unwrap();
        waiter.join().unwrap();
        // Processes that other tests start hold a copy of every descriptor
        // until they execute something.
        let begin = std::time::Instant::now();
        while is_waiting(directory.path()) {
            assert!(begin.elapsed().as_secs() < 10, "the gate stays open");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let error = open(directory.path()).unwrap_err();
        insta::assert_snapshot!(error, @"the container is not waiting to be started");
    }

    #[test]
    fn what_goes_wrong_after_the_start_is_told_to_the_starter() {
        let directory = tempfile::tempdir().unwrap();
        let gate = make(directory.path()).unwrap();
        let waiter = std::thread::spawn(move || {
            let channel = wait(gate).unwrap();
            channel.send(&Message::Failed(Error::CommandNotFound { command: "x".into() })).unwrap();
        });
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::CommandNotFound { command } if command == "x"));
        waiter.join().unwrap();
    }

    #[test]
    fn long_names_of_directories_do_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("x".repeat(200));
        fs::create_dir(&long).unwrap();
        let _gate = make(&long).unwrap();
        assert!(is_waiting(&long));
        remove(&long).unwrap();
        assert!(!is_waiting(&long));
    }
}
