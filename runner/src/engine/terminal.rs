//! The caller's terminal while a container has it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use super::error::{IoContext as _, Result};

/// The caller's terminal in raw mode: every key goes to the container, and
/// nothing is echoed here. Dropping it restores the terminal, on every way out.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Enters raw mode if `fd` is a terminal; otherwise there is nothing to do.
    ///
    /// # Errors
    ///
    /// When the terminal refuses.
    pub fn enter(fd: impl AsFd) -> Result<Option<Self>> {
        if !isatty(&fd) {
            return Ok(None);
        }
        let terminal = fd.as_fd().try_clone_to_owned().trying("duplicate the terminal")?;
        let before = tcgetattr(&terminal).trying("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).trying("set the terminal to raw mode")?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Output that is still on its way was made for raw mode: let it out
        // first. A terminal that is gone needs no restoring.
        if let Err(error) = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before) {
            tracing::debug!(%error, "the terminal was not restored");
        }
    }
}

/// Returns the size of a terminal as rows and columns; `None` if it is none.
pub fn size(of: impl AsFd) -> Option<(u16, u16)> {
    let size = tcgetwinsize(of).ok()?;
    Some((size.ws_row, size.ws_col))
}

/// Gives a container's terminal the size of the caller's, if that is one.
pub fn copy_size(from: impl AsFd, to: impl AsFd) {
    // Sizes are a courtesy: programs live with a wrong one.
    if let Ok(size) = tcgetwinsize(from)
        && let Err(error) = tcsetwinsize(to, size)
    {
        tracing::debug!(%error, "the container's terminal keeps its size");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize};

    fn pty() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, slave)
    }

    fn echoes(fd: &OwnedFd) -> bool {
        tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ECHO)
    }

    #[test]
    fn raw_mode_ends_with_its_guard_even_in_a_panic() {
        let (_master, slave) = pty();
        assert!(echoes(&slave));
        let guard = RawMode::enter(&slave).unwrap().unwrap();
        assert!(!echoes(&slave));
        drop(guard);
        assert!(echoes(&slave));
        let panicked = std::panic::catch_unwind(|| {
            let _guard = RawMode::enter(&slave).unwrap();
            assert!(echoes(&slave), "this panic is part of the test");
        });
        assert!(panicked.is_err());
        assert!(echoes(&slave));
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        assert!(RawMode::enter(tempfile::tempfile().unwrap()).unwrap().is_none());
    }

    #[test]
    fn sizes_are_copied() {
        let ((from, _a), (to, slave)) = (pty(), pty());
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&from, size).unwrap();
        copy_size(&from, &to);
        assert_eq!(super::size(&slave), Some((33, 77)));
    }
}
