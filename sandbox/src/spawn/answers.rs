//! What the helper says between its start and the command's.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{Channel, Exit, Message, Pause};
use crate::error::{Context as _, Error, Result};
use crate::stubs::Stub;
use crate::sys;

/// Everything the helper said.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) warnings: Vec<String>,
    pub(super) stubs: Vec<Stub>,
    pub(super) terminal: Option<OwnedFd>,
    /// The sockets at which questions about names arrive.
    pub(super) sockets: Vec<OwnedFd>,
    /// The process that the helper forked to join a sandbox.
    pub(super) joined: Option<(u32, Unreaped)>,
    /// Whether the command was about to be executed.
    pub(super) ready: bool,
    pub(super) failure: Option<Error>,
}

impl Answers {
    /// Listens until the command is executed or the helper has ended. After a
    /// failure, too: two processes talk when one joins.
    ///
    /// `paused` is called with the process whenever the helper waits.
    pub(super) fn collect(
        channel: &mut Channel,
        helper: u32,
        paused: &mut dyn FnMut(Pause, u32) -> Result<String>,
    ) -> Result<Self> {
        let mut answers = Self::default();
        while let Some(message) = channel.receive().cannot(|| "hear from the helper")? {
            match message {
                Message::Socket(socket) => answers.sockets.push(socket),
                Message::Warning(text) => answers.warnings.push(text),
                Message::Stubs(made) => answers.stubs = made,
                Message::Descriptor(fd) => answers.terminal = Some(fd),
                Message::Joined { pid, pidfd } => {
                    answers.joined = Some((pid, Unreaped::new(pidfd)));
                }
                Message::Ready => answers.ready = true,
                Message::Failed(error) => answers.failure = Some(error),
                Message::ExecFailed(errno) => {
                    let source = std::io::Error::from_raw_os_error(errno);
                    let what = "execute the helper rrun-init".into();
                    answers.failure = Some(Error::Setup { what, source });
                }
                Message::Paused(pause) => {
                    let pid = answers.joined.as_ref().map_or(helper, |(pid, _)| *pid);
                    let state = paused(pause, pid)?;
                    // A helper that is gone is found out by reading.
                    channel.send(&Message::Go(state)).ok();
                }
                Message::Plan(_) | Message::Started { .. } | Message::Given(_) | Message::Go(_) => {
                    return Err(Error::invalid("the helper sent something unexpected"));
                }
            }
        }
        Ok(answers)
    }
}

/// A child that is killed and reaped unless it is kept.
pub(super) struct Unreaped(Option<OwnedFd>);

impl Unreaped {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self(Some(pidfd))
    }

    /// Returns the pidfd; the child goes on.
    pub(super) fn keep(mut self) -> OwnedFd {
        self.0.take().expect("taken only here and in end")
    }

    /// Waits for the end, which is near.
    pub(super) fn end(mut self) -> Exit {
        let pidfd = self.0.take().expect("taken only here and in keep");
        reap(&pidfd)
    }
}

impl Drop for Unreaped {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            sys::send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
            reap(pidfd);
        }
    }
}

fn reap(pidfd: &OwnedFd) -> Exit {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Exit::of(&status),
            Err(rustix::io::Errno::INTR) => {}
            // Not our child any more: the caller ignores SIGCHLD.
            Ok(None) | Err(_) => return Exit::Signal(libc::SIGKILL),
        }
    }
}
