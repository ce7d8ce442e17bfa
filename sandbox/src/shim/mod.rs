//! The shim: the small process that stays with a detached container.
//!
//! It is `rrun-init` itself, started with `shim`. It owns the container's
//! standard streams, its log, its control group and its end; the program that
//! started it can go. There is no daemon above it.
//!
//! ```text
//! caller ── ShimSpec over a socket ──► shim ── spawn ──► container
//!    ◄── Started, or the error ────────┤
//!                                      ├─ pipes or terminal ──► log
//!                                      └─ the end ──► exit record, exit command,
//!                                                     or a wait and another start
//! ```
//!
//! Records are JSON objects in files of their own, put in place by a rename:
//!
//! ```text
//! running  {"pid":7,"start_time":9,"shim_pid":6,"shim_start_time":8,"boot_id":"…","started":"…Z","restarts":0}
//! exit     {"pid":7,"start_time":9,"code":137,"signal":9,"oom_killed":false,"finished":"…Z","restart_ms":null}
//! ```
//!
//! When the shim is killed the kernel kills the container, too; its control
//! group is then removed by [`crate::cgroup::sweep`].

pub mod checks;
mod record;
mod relay;
pub mod restart;
mod serve;

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use checks::Checks;
use restart::Restart;
pub(crate) use serve::main;

use crate::error::{Context as _, Error, Result};
use crate::netlink::Messages;
use crate::rootless;
use crate::spawn::{Channel, Message, find_helper, find_start_time_of};
use crate::spec::Spec;
use crate::sys;
use crate::wire::{Bytes, wire_struct};

/// A container that is to live on its own.
#[derive(Debug)]
pub struct ShimSpec {
    /// The sandbox.
    pub spec: Spec,
    /// The log file, made when it is missing.
    pub log: PathBuf,
    /// Where the record of the running container is put.
    pub running: PathBuf,
    /// Where the record of its end is put.
    pub exit: PathBuf,
    /// Whether standard input is a pipe that stays open, rather than empty.
    pub open_stdin: bool,
    /// A command to execute after the end is recorded, in the caller's
    /// environment; empty for none.
    pub exit_command: Vec<String>,
    /// How it is started again when it has ended; `None` if never.
    pub restart: Option<Restart>,
    /// How it is checked while it runs; `None` if it is not.
    pub checks: Option<Checks>,
    /// Descriptors that the shim keeps until shortly before the record of the
    /// end is put in place, such as locked files and reserved ports.
    pub keep: Vec<OwnedFd>,
    /// What the packet filters are told when the container has ended; may be
    /// nothing.
    pub farewell: Messages,
}

/// A container that was started, and its shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The first process of the container.
    pub pid: u32,
    /// When it started, see [`crate::Running`].
    pub start_time: u64,
    /// The shim.
    pub shim_pid: u32,
    /// When the shim started.
    pub shim_start_time: u64,
    /// What the user should know about the start.
    pub warnings: Vec<String>,
}

/// What travels to the shim.
pub(crate) struct Order {
    pub(crate) spec: Spec,
    pub(crate) log: PathBuf,
    pub(crate) running: PathBuf,
    pub(crate) exit: PathBuf,
    pub(crate) open_stdin: bool,
    pub(crate) exit_command: Vec<String>,
    pub(crate) restart: Option<Restart>,
    pub(crate) checks: Option<Checks>,
    pub(crate) environment: Vec<(Bytes, Bytes)>,
    pub(crate) farewell: Bytes,
}

wire_struct!(Order {
    spec,
    log,
    running,
    exit,
    open_stdin,
    exit_command,
    restart,
    checks,
    environment,
    farewell
});

/// Starts a container with a shim, and returns when its command has been
/// executed and the `running` record is in place.
///
/// # Errors
///
/// As [`crate::spawn`], and when the log or a record cannot be written. No
/// shim stays behind then.
pub fn start(shim: ShimSpec) -> Result<Started> {
    let ShimSpec {
        spec,
        log,
        running,
        exit,
        open_stdin,
        exit_command,
        restart,
        checks,
        keep,
        farewell,
    } = shim;
    let program = find_helper()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| "open /dev/null")?;
    let (mut ours, theirs) = Channel::pair().cannot(|| "open a socket to the shim")?;
    let (shim_pid, pidfd) = sys::clone_helper(&sys::Clone {
        namespaces: 0,
        stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
        channel: theirs.as_fd(),
        program: program.as_fd(),
        cgroup: None,
        argument: c"shim",
    })
    .cannot(|| "start the shim")?;
    drop(theirs);
    let bytes = |text: OsString| Bytes(text.into_encoded_bytes());
    let environment =
        std::env::vars_os().map(|(name, value)| (bytes(name), bytes(value))).collect();
    let farewell = Bytes(farewell.as_bytes().to_vec());
    let order = Order {
        spec,
        log,
        running,
        exit,
        open_stdin,
        exit_command,
        restart,
        checks,
        environment,
        farewell,
    };
    for descriptor in keep {
        ours.send(&Message::Descriptor(descriptor)).cannot(|| "hand a descriptor to the shim")?;
    }
    ours.send(&Message::Plan(crate::wire::encode(&order))).cannot(|| "instruct the shim")?;
    let mut warnings = Vec::new();
    let result = loop {
        match ours.receive().cannot(|| "hear from the shim")? {
            Some(Message::Warning(text)) => warnings.push(text),
            Some(Message::Started { pid, start_time }) => {
                let shim_start_time = find_start_time_of(shim_pid).unwrap_or(0);
                rootless::register(shim_pid, shim_start_time);
                return Ok(Started { pid, start_time, shim_pid, shim_start_time, warnings });
            }
            Some(Message::Failed(error)) => break error,
            Some(Message::ExecFailed(errno)) => {
                let source = std::io::Error::from_raw_os_error(errno);
                break Error::Setup { what: "execute the shim rrun-init".into(), source };
            }
            Some(_) => break Error::invalid("the shim sent something unexpected"),
            None => break Error::invalid("the shim ended before the container was started"),
        }
    };
    // It has ended or is about to; a failed start leaves no zombie either.
    sys::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    rustix::process::waitid(
        rustix::process::WaitId::PidFd(pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    )
    .ok();
    Err(result)
}
