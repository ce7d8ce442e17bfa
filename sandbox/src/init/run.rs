//! The last steps: streams, directory, user, privileges, exec.

use std::ffi::CString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, FileType, Mode, OFlags, fchown, fstat, fstatfs};
use rustix::process::{
    DumpableBehavior, Signal, Uid, set_dumpable_behavior, set_parent_process_death_signal,
};

use super::target::open_in_root;
use super::{Helper, credentials, pid1};
use crate::bundle::{gate, run_hooks};
use crate::error::{Context as _, Error, Result};
use crate::spawn::{Enter, Plan};
use crate::sys;
use crate::user::Identity;

/// Where commands are searched when the environment has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The number of the first descriptor that a command gets beside its streams.
const FIRST_PRESERVED: i32 = 3;

/// The kernel's number for the file system of anonymous pipes.
const PIPEFS_MAGIC: i64 = 0x5049_5045;

impl Helper {
    /// Becomes the command. Returns only as process 1 that stays (`init`).
    pub(super) fn run(&mut self, plan: &Plan, root: &OwnedFd) -> Result<ExitCode> {
        let identity = match &plan.own {
            Some(own) => credentials::identify_own(root, plan, &own.credentials),
            None => credentials::identify(root, plan)?,
        };
        let is_first = !matches!(plan.enter, Enter::Join { .. });
        if plan.process.terminal && !is_first {
            self.open_joined_terminal(root, plan)?;
        }
        // The caller's keys are not for the container.
        sys::join_new_keyring();
        // A session of its own, so that the caller's terminal is out of reach.
        rustix::process::setsid().cannot(|| "start a session")?;
        if plan.process.terminal {
            sys::take_terminal(0).cannot(|| "take the terminal")?;
        }
        own_streams(&identity);
        self.enter_directory(root, &plan.process.cwd, is_first)?;
        self.set_rlimits(&plan.process.rlimits)?;
        let command = Command::new(plan, &identity)?;
        let profile = plan.own.as_ref().and_then(|own| own.credentials.apparmor.as_deref());
        // While it may still mount a procfs of its own.
        let profile = match profile {
            Some(profile) => Some((super::bundle::open_apparmor(root)?, profile)),
            None => None,
        };
        sys::close_on_exec_from(3).cannot(|| "close descriptors")?;
        if plan.own.is_some() {
            // Engines want to know before they start it.
            command.check()?;
        }
        credentials::change_user(&identity, plan.capabilities)?;
        let umask = plan.own.as_ref().and_then(|own| own.credentials.umask);
        rustix::process::umask(Mode::from_raw_mode(umask.unwrap_or(0o022)));
        self.report_ready()?;
        if let Some(gate) = self.gate.take() {
            // From here on it is the starter who listens.
            self.channel.close();
            self.channel = gate::wait(gate)?;
        }
        run_hooks("startContainer", &self.start_hooks, &self.state)?;
        if let Some((mut file, profile)) = profile {
            file.write_all(format!("exec {profile}").as_bytes())
                .cannot(|| format!("apply the AppArmor profile {profile:?} (is it loaded?)"))?;
        }
        self.place_preserved()?;
        if plan.die_with_parent {
            // Changing the user has cleared it, so it comes after that.
            set_parent_process_death_signal(Some(Signal::KILL))
                .cannot(|| "follow the caller's end")?;
            if is_hung_up(self.channel.as_fd()) {
                // The caller ended before it was in force.
                return Ok(ExitCode::from(125));
            }
        }
        credentials::drop_privileges(plan, &identity)?;
        if plan.process.init && is_first {
            return self.stay(plan, &command);
        }
        sys::reset_signals().cannot(|| "reset the signals")?;
        Err(command.exec())
    }

    /// Gives the command its descriptors: 3, 4, and so on.
    fn place_preserved(&mut self) -> Result<()> {
        let what = || "hand descriptors to the command";
        let count = i32::try_from(self.preserved.len())
            .map_err(|_| Error::invalid("too many descriptors"))?;
        if count == 0 {
            return Ok(());
        }
        let free = FIRST_PRESERVED + count;
        self.channel.move_above(free).cannot(what)?;
        let above = self
            .preserved
            .drain(..)
            .map(|fd| rustix::io::fcntl_dupfd_cloexec(&fd, free))
            .collect::<rustix::io::Result<Vec<OwnedFd>>>()
            .cannot(what)?;
        for (number, descriptor) in (FIRST_PRESERVED..).zip(&above) {
            sys::place_at(descriptor.as_fd(), number).cannot(what)?;
        }
        Ok(())
    }

    /// Stays as process 1 and starts the command as its child.
    fn stay(&mut self, plan: &Plan, command: &Command) -> Result<ExitCode> {
        set_dumpable_behavior(DumpableBehavior::NotDumpable).cannot(|| "hide process 1")?;
        if sys::fork().cannot(|| "start the command")? == 0 {
            // A process group of its own: what the terminal sends to the group
            // must not arrive a second time through process 1.
            rustix::process::setpgid(None, None).ok();
            if plan.process.terminal {
                rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid()).ok();
            }
            sys::reset_signals().cannot(|| "reset the signals")?;
            return Err(command.exec());
        }
        // Closed here, so that the child's exec is seen as the end of file.
        self.channel.close();
        pid1::serve()
    }

    fn enter_directory(&mut self, root: &OwnedFd, cwd: &Path, create: bool) -> Result<()> {
        let what = || format!("enter the working directory {}", cwd.display());
        if !cwd.is_absolute() {
            return Err(Error::invalid(format!(
                "the working directory {} is not an absolute path",
                cwd.display()
            )));
        }
        let directory = match open_in_root(root, cwd, OFlags::PATH | OFlags::DIRECTORY) {
            Err(rustix::io::Errno::NOENT) if create => {
                let before = self.stubs.len();
                let made = self.make(root, cwd, true)?;
                // It is wanted, unlike a mount point.
                self.stubs.truncate(before);
                made
            }
            other => other.cannot(what)?,
        };
        rustix::process::fchdir(&directory).cannot(what)?;
        // Outside of the root the kernel has no name for it (CVE-2024-21626).
        std::env::current_dir().cannot(what).map(drop)
    }
}

/// Gives anonymous pipes to the user, who may want to open them again as
/// /dev/stdout. Files of the host and its terminal stay as they are.
fn own_streams(identity: &Identity) {
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = fstat(stream) else { continue };
        let Ok(filesystem) = fstatfs(stream) else { continue };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_pipe = kind == FileType::Fifo && filesystem.f_type == PIPEFS_MAGIC;
        let is_terminal = kind == FileType::CharacterDevice && filesystem.f_type == 0x1cd1;
        let from_us = is_terminal
            && rustix::termios::isatty(stream)
            && stat.st_uid == 0
            && is_own_terminal(stream);
        if (is_pipe || from_us) && stat.st_uid != identity.uid {
            // Only a convenience: without it the streams still work.
            fchown(stream, Some(Uid::from_raw(identity.uid)), None).ok();
        }
    }
}

/// Returns whether a terminal is the one this session controls, which is the
/// one the helper made.
fn is_own_terminal(stream: BorrowedFd<'_>) -> bool {
    rustix::termios::tcgetsid(stream).is_ok_and(|session| session == rustix::process::getpid())
}

pub(super) fn is_hung_up(channel: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(&channel, PollFlags::IN)];
    let nothing = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&nothing)).is_ok()
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// The command with everything an exec takes.
struct Command {
    name: String,
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Command {
    fn new(plan: &Plan, identity: &Identity) -> Result<Self> {
        let text = |text: &str| {
            CString::new(text)
                .map_err(|_| Error::invalid("an argument or a variable contains a NUL byte"))
        };
        let process = &plan.process;
        let name = process.args.first().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::invalid("no command was given"))?;
        let variable = |key: &str| {
            process.env.iter().rev().find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='))
        };
        let candidates: Vec<CString> = if name.contains('/') {
            vec![text(name)?]
        } else {
            let path = variable("PATH").filter(|path| !path.is_empty()).unwrap_or(PATH);
            // An empty entry would be the working directory; it is left out.
            let places = path.split(':').filter(|place| !place.is_empty());
            places.map(|place| text(&format!("{place}/{name}"))).collect::<Result<_>>()?
        };
        let mut environment =
            process.env.iter().map(|entry| text(entry)).collect::<Result<Vec<_>>>()?;
        if variable("HOME").is_none() {
            environment.push(text(&format!("HOME={}", identity.home))?);
        }
        let arguments =
            process.args.iter().map(|argument| text(argument)).collect::<Result<_>>()?;
        Ok(Self { name: name.clone(), candidates, arguments, environment })
    }

    /// Fails if there is no file that could be executed.
    fn check(&self) -> Result<()> {
        let what = || self.name.clone();
        let mut refused = false;
        for path in &self.candidates {
            match rustix::fs::access(path.as_c_str(), Access::EXEC_OK) {
                Ok(()) if !is_directory(path) => return Ok(()),
                Ok(()) | Err(rustix::io::Errno::ACCESS) => refused = true,
                Err(_) => {}
            }
        }
        if refused {
            let source = io::Error::from_raw_os_error(libc::EACCES);
            return Err(Error::CommandNotExecutable { command: what(), source });
        }
        Err(Error::CommandNotFound { command: what() })
    }

    /// Executes the first candidate that can be; returns why none could.
    fn exec(&self) -> Error {
        let command = self.name.clone();
        let mut refused = None;
        for path in &self.candidates {
            let error = sys::exec(path, &self.arguments, &self.environment);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if !exists(path) => {}
                Some(libc::ENOENT) => {
                    let command = format!("the interpreter or loader of {command}");
                    return Error::CommandNotFound { command };
                }
                // Perhaps a later entry of PATH has one that may be executed.
                Some(libc::EACCES) => refused = Some(error),
                _ => return Error::CommandNotExecutable { command, source: error },
            }
        }
        match refused {
            Some(source) => Error::CommandNotExecutable { command, source },
            None => Error::CommandNotFound { command },
        }
    }
}

fn is_directory(path: &CString) -> bool {
    rustix::fs::stat(path.as_c_str())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
}

fn exists(path: &CString) -> bool {
    let stat: io::Result<_> = rustix::fs::stat(path.as_c_str()).map_err(Into::into);
    stat.is_ok()
}
