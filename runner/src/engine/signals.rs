//! The caller's signals, turned into something that can be polled.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::error::{Error, IoContext as _, Result};
use super::options::Signal;

/// What is passed on to a container. Not `CHLD`, `PIPE` and the signals of the
/// caller's own job control, which concern the caller, nor those that mean
/// that the caller itself has failed.
const PASSED_ON: [NixSignal; 8] = [
    NixSignal::SIGHUP,
    NixSignal::SIGINT,
    NixSignal::SIGQUIT,
    NixSignal::SIGTERM,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGALRM,
    NixSignal::SIGWINCH,
];

/// The window of the terminal has another size.
pub const WINCH: i32 = NixSignal::SIGWINCH as i32;

/// Signals held back from this process until they are read. From the moment it
/// is made none gets lost or ends the program. Dropping it lets them through.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// Holds back the signals that are passed on to containers.
    ///
    /// It concerns the calling thread and those it starts afterwards.
    ///
    /// # Errors
    ///
    /// When the system has no descriptors left.
    pub fn hold() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in PASSED_ON {
            set.add(signal);
        }
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))
            .trying("hold back signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).trying("read signals")?;
        Ok(Self { fd, before })
    }

    /// Returns the next signal that has come, if any.
    ///
    /// # Errors
    ///
    /// When reading fails.
    pub fn next(&self) -> Result<Option<Signal>> {
        let Some(info) = self.fd.read_signal().trying("read signals")? else { return Ok(None) };
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        Signal::try_from(number).map(Some).map_err(|what| Error::Invalid { what })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Signals that came too late to be passed on are let through only if
        // they would end the program, which has nothing left to clean up.
        if let Err(error) = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            tracing::debug!(%error, "signals stay blocked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn a_held_signal_is_read_not_obeyed() {
        let signals = Signals::hold().unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // Directed at this thread: other tests never see it.
        raise(NixSignal::SIGUSR1).unwrap();
        assert_eq!(signals.next().unwrap(), Some("USR1".parse().unwrap()));
        assert_eq!(signals.next().unwrap(), None);
    }
}
