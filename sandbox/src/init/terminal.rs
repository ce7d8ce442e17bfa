//! The pseudo-terminal of a process: made inside the sandbox, held outside.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat, fstatfs, major};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::dev::create_file;
use super::target::STRICT;
use super::target::open_beneath;
use super::{Helper, mount};
use crate::error::{Context as _, Error, Result};
use crate::spawn::{Message, Plan};
use crate::sys;

/// The kernel's number for devpts.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// The lowest and highest major number of pseudo-terminals.
const UNIX98_MAJORS: std::ops::RangeInclusive<u32> = 136..=143;

impl Helper {
    /// Makes the terminal of the first process, shows it as /dev/console and
    /// makes it the standard streams. Everything goes by descriptor: no path
    /// of the image takes part (CVE-2025-52565).
    pub(super) fn open_console(&mut self, dev: &OwnedFd, pts: &OwnedFd, plan: &Plan) -> Result<()> {
        let terminal = self.open_terminal(pts, plan)?;
        let shown = mount::clone_of(&terminal).cannot(|| "bind the terminal")?;
        let place = create_file(dev, "console").cannot(|| "make /dev/console")?;
        mount::attach(&shown, &place).cannot(|| "mount /dev/console")
    }

    /// Makes the terminal of a process that joins.
    pub(super) fn open_joined_terminal(&mut self, root: &OwnedFd, plan: &Plan) -> Result<()> {
        let pts = Self::find_pts(root)?;
        self.open_terminal(&pts, plan).map(drop)
    }

    /// Opens the pseudo-terminals of a root.
    pub(super) fn find_pts(root: &OwnedFd) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let pts =
            open_beneath(root, Path::new("dev/pts"), flags, STRICT).cannot(|| "open /dev/pts")?;
        if fstatfs(&pts).cannot(|| "look at /dev/pts")?.f_type != DEVPTS_SUPER_MAGIC {
            return Err(Error::invalid("the container has no pseudo-terminals at /dev/pts"));
        }
        Ok(pts)
    }

    pub(super) fn open_terminal(&mut self, pts: &OwnedFd, plan: &Plan) -> Result<OwnedFd> {
        let what = || "open a pseudo-terminal";
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = open_beneath(pts, Path::new("ptmx"), flags, STRICT).cannot(what)?;
        unlockpt(&master).cannot(what)?;
        let slave = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )
        .cannot(what)?;
        let stat = fstat(&slave).cannot(what)?;
        let is_terminal = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && UNIX98_MAJORS.contains(&major(stat.st_rdev));
        if !is_terminal {
            return Err(Error::invalid("the pseudo-terminal is not one"));
        }
        if let Some((rows, columns)) = plan.process.terminal_size {
            sys::set_tty_size(slave.as_fd(), rows, columns)
                .cannot(|| "set the size of the terminal")?;
        }
        rustix::stdio::dup2_stdin(&slave).cannot(what)?;
        rustix::stdio::dup2_stdout(&slave).cannot(what)?;
        rustix::stdio::dup2_stderr(&slave).cannot(what)?;
        self.channel.send(&Message::Descriptor(master)).cannot(|| "hand the terminal over")?;
        Ok(slave)
    }
}
