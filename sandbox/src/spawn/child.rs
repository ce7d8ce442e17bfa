//! A started process: waiting for it, signalling it, cleaning up after it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

use crate::cgroup::Cgroup;
use crate::error::{Context as _, Result};
use crate::stubs::Stub;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status, 0 to 255.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// Returns the status as shells give it: 128 + n for signal n.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Reads what `waitid` returned.
    pub(crate) fn of(status: &WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(libc::SIGKILL)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
        }
    }
}

/// Sends a signal through a pidfd; realtime signals too.
///
/// # Errors
///
/// `ESRCH` when the process is gone, `EINVAL` when there is no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    crate::sys::send_signal(pidfd, signal)
}

/// A process started by [`crate::spawn`] or [`crate::exec`].
///
/// Dropping it kills the process and removes its control group. Its methods
/// may be called from several threads.
#[derive(Debug)]
pub struct Sandboxed {
    pub(super) pid: u32,
    pub(super) start_time: u64,
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) terminal: Mutex<Option<OwnedFd>>,
    pub(super) exit: Mutex<Option<Exit>>,
    pub(super) warnings: Vec<String>,
    pub(super) stubs: Vec<Stub>,
    /// Whether it goes on when this value is dropped.
    pub(super) left: bool,
    /// The signal that ends it and everything in it.
    pub(super) ends_by: i32,
}

impl Sandboxed {
    /// Returns the process id in the caller's namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns when the process started, in clock ticks after boot (field 22
    /// of /proc/PID/stat). With the id it names the process for ever.
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Returns the master of the pseudo-terminal, once, when there is one.
    #[must_use]
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        lock(&self.terminal).take()
    }

    /// Returns what the user should know about the start.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the mount points that had to be made in the root.
    #[must_use]
    pub fn stubs(&self) -> &[Stub] {
        &self.stubs
    }

    /// Waits until the process has ended, and returns how.
    ///
    /// # Errors
    ///
    /// When somebody else has reaped the process.
    pub fn wait(&self) -> Result<Exit> {
        loop {
            // Without NOHANG there is an end whenever it returns.
            if let Some(exit) = self.reap(WaitIdOptions::empty())? {
                return Ok(exit);
            }
        }
    }

    /// Returns how the process ended, or none while it runs.
    ///
    /// # Errors
    ///
    /// When somebody else has reaped the process.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        self.reap(WaitIdOptions::NOHANG)
    }

    /// Waits without holding the lock, so that others can ask meanwhile, then
    /// reaps under it, so that only one does.
    fn reap(&self, options: WaitIdOptions) -> Result<Option<Exit>> {
        if let Some(exit) = *lock(&self.exit) {
            return Ok(Some(exit));
        }
        let id = || WaitId::PidFd(self.pidfd.as_fd());
        let waited = loop {
            match waitid(id(), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | options) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        let mut exit = lock(&self.exit);
        if let Some(exit) = *exit {
            return Ok(Some(exit));
        }
        if waited.cannot(|| format!("wait for process {}", self.pid))?.is_none() {
            return Ok(None);
        }
        let status =
            waitid(id(), WaitIdOptions::EXITED).cannot(|| format!("reap process {}", self.pid))?;
        *exit = status.as_ref().map(Exit::of);
        Ok(*exit)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process is gone, `EINVAL` when there is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send_signal(self.as_fd(), signal)
    }

    /// Kills the process, and with the first process of a sandbox all others
    /// in it; returns at once.
    pub fn kill_all(&self) {
        self.killer().kill();
    }

    /// Lets the process go on without the caller; a control group of its own
    /// is left to [`crate::cgroup::sweep`].
    pub fn leave(mut self) {
        self.left = true;
    }

    /// Returns a handle that kills the process from anywhere.
    #[must_use]
    pub fn killer(&self) -> Killer {
        Killer { pidfd: Arc::clone(&self.pidfd), signal: self.ends_by }
    }

    /// Returns the most memory its control group has used, in bytes, when it
    /// has one with the memory controller.
    #[must_use]
    pub fn memory_peak(&self) -> Option<u64> {
        self.cgroup.as_ref()?.memory_peak()
    }

    /// Returns whether the kernel killed a process of the control group for
    /// want of memory.
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        self.cgroup.as_ref().is_some_and(Cgroup::oom_killed)
    }
}

impl AsFd for Sandboxed {
    /// Returns the pidfd, which is readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if lock(&self.exit).is_none() {
            self.kill_all();
            // Whoever reaped it before us has seen its end.
            self.wait().ok();
        }
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove()
        {
            tracing::warn!(%error, "a control group is left to the next command");
        }
    }
}

/// Kills one sandbox, from any thread, without keeping it alive.
#[derive(Clone, Debug)]
pub struct Killer {
    pidfd: Arc<OwnedFd>,
    signal: i32,
}

impl Killer {
    /// Kills the process. A process that has already ended is fine.
    pub fn kill(&self) {
        // ESRCH is what we want; there is no other reason for our own child.
        send_signal(self.pidfd.as_fd(), self.signal).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding these, and every state is a valid one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
