//! The caller's half.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::Files;
use crate::error::{Context as _, Error, Result};
use crate::spawn::{Channel, Message, open_helper};
use crate::spec::Spec;
use crate::sys;
use crate::wire::{encode, wire_struct};

/// A container to be left running.
#[derive(Debug)]
pub struct ShimSpec {
    /// The sandbox.
    pub spec: Spec,
    /// The file that gets its output, as [`crate::log`] has it.
    pub log: PathBuf,
    /// The file that will say which process it is, as JSON: `pid`,
    /// `start_time`, `shim_pid`, `shim_start_time`, `boot_id`, `started`.
    pub running: PathBuf,
    /// The file that will say how it ended, as JSON: `code`, `signal`,
    /// `oom_killed`, `finished`.
    pub exit: PathBuf,
    /// Whether its standard input stays open although nobody writes to it.
    pub open_stdin: bool,
    /// What is run after `exit` was written; empty for nothing.
    pub exit_command: Vec<String>,
    /// A descriptor the shim keeps until shortly before `exit` is written,
    /// such as a locked file.
    pub keep: OwnedFd,
}

/// What the shim is told.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) spec: Spec,
    pub(super) files: Files,
    pub(super) open_stdin: bool,
    pub(super) exit_command: Vec<String>,
}

wire_struct!(Orders { spec, files, open_stdin, exit_command });

/// A container that was left running.
#[derive(Debug)]
pub struct Started {
    /// What the user should know about the start.
    pub warnings: Vec<String>,
}

/// Starts a container with a shim above it, and returns when its command has
/// been executed and `running` is written.
///
/// # Errors
///
/// As [`crate::spawn`]. Neither the container nor the shim runs then.
pub fn start(shim: ShimSpec) -> Result<Started> {
    let ShimSpec { spec, log, running, exit, open_stdin, exit_command, keep } = shim;
    let orders = Orders { spec, files: Files { log, running, exit }, open_stdin, exit_command };
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| "open /dev/null")?;
    let (mut ours, theirs) = Channel::pair().cannot(|| "open a socket to the shim")?;
    // The shim is not waited for: it outlives the caller. Its third standard
    // stream is what it keeps: nothing else needs one.
    let (_pid, _pidfd) = sys::clone_helper(&sys::Clone {
        namespaces: 0,
        stdio: [null.as_fd(), null.as_fd(), keep.as_fd()],
        channel: theirs.as_fd(),
        program: open_helper()?,
        cgroup: None,
        argument: c"shim",
    })
    .cannot(|| "start the shim")?;
    drop(theirs);
    drop(keep);
    match ours.send(&Message::Plan(encode(&orders))) {
        // A shim that is already gone is found out by reading.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(error).cannot(|| "instruct the shim");
        }
        _ => {}
    }
    let mut warnings = Vec::new();
    while let Some(message) = ours.receive().cannot(|| "hear from the shim")? {
        match message {
            Message::Warning(text) => warnings.push(text),
            Message::Ready => return Ok(Started { warnings }),
            Message::Failed(error) => return Err(error),
            Message::ExecFailed(errno) => {
                let source = std::io::Error::from_raw_os_error(errno);
                return Err(source).cannot(|| "execute the helper rrun-init");
            }
            Message::Plan(_) | Message::Stubs(_) | Message::Terminal(_) => {
                return Err(Error::invalid("the shim sent nonsense"));
            }
        }
    }
    Err(Error::invalid("the shim ended before the container was started"))
}
