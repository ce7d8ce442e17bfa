//! The helper's half: what `rrun-init` does between its start and the exec of
//! the command.
//!
//! ```text
//! not dumpable → plan → cgroups → new sandbox:  root, mounts, masks, pivot_root
//!                               → running one:  setns(pidfd)
//!                               → no namespaces: fork, chroot
//!                               → a bundle: see `bundle`
//!              → terminal → user → limits → capabilities → filter → execve
//! ```
//!
//! It has one thread. Until `execve`, no code and no file of the image is
//! executed or trusted: what is read from the image is parsed by us (there is
//! no NSS), what is opened is opened beneath the root.

mod bundle;
mod chroot;
mod credentials;
mod dev;
mod enter;
mod join;
mod masks;
mod mount;
mod mounts;
mod pid1;
mod root;
mod run;
mod target;
mod terminal;

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{
    DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal,
};

use crate::bundle::Hook;
use crate::error::{Context as _, Error, Result};
use crate::spawn::{Channel, Enter, Message, Own, Plan};
use crate::stubs::Stub;

/// How long a descriptor is held: several times what the kernel takes to let go
/// of what is behind it.
const LINGER: Duration = Duration::from_millis(100);

/// Runs the helper: the body of the program `rrun-init`.
///
/// It is started by [`crate::spawn`], [`crate::exec`] and
/// [`crate::shim::start`], with instructions on descriptor 3, and is of no
/// use otherwise.
#[must_use]
pub fn main() -> ExitCode {
    let argument = std::env::args_os().nth(1);
    match argument.as_ref().and_then(|argument| argument.to_str()) {
        Some("enter") => enter_main(),
        Some("shim") => crate::shim::main(),
        Some("linger") => {
            // It was given a descriptor to be closed when it ends.
            std::thread::sleep(LINGER);
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(125),
    }
}

fn enter_main() -> ExitCode {
    // Before anything else: a process of the sandbox must not look into this
    // one, or hold on to its program (CVE-2016-9962, CVE-2019-5736).
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let Some(channel) = inherited_channel() else { return ExitCode::from(125) };
    let mut helper = Helper::new(channel);
    let error = match hidden.cannot(|| "hide the helper from other processes") {
        Ok(()) => match helper.enter() {
            Ok(code) => return code,
            Err(error) => error,
        },
        Err(error) => error,
    };
    // When even this fails, the exit status says what it can.
    let code = error.exit_code();
    helper.channel.send(&Message::Failed(error)).ok();
    ExitCode::from(code)
}

/// Takes over descriptor 3.
pub(crate) fn inherited_channel() -> Option<Channel> {
    let socket = crate::sys::inherited(3).ok()?;
    Some(Channel::new(socket))
}

/// The helper at work.
struct Helper {
    channel: Channel,
    warnings: Vec<String>,
    stubs: Vec<Stub>,
    /// The gate at which it waits before it executes the command.
    gate: Option<OwnedFd>,
    /// Descriptors that the command gets from 3 on.
    preserved: Vec<OwnedFd>,
    /// What hooks are told.
    state: String,
    /// Hooks that come right before the command.
    start_hooks: Vec<Hook>,
}

impl Helper {
    fn new(channel: Channel) -> Self {
        Self {
            channel,
            warnings: Vec::new(),
            stubs: Vec::new(),
            gate: None,
            preserved: Vec::new(),
            state: String::new(),
            start_hooks: Vec::new(),
        }
    }

    fn enter(&mut self) -> Result<ExitCode> {
        let (plan, target, mut given) = self.instructions()?;
        if let Some(own) = &plan.own {
            self.take_own(own, &mut given)?;
        }
        rustix::process::umask(Mode::empty());
        crate::sys::reset_scheduler().cannot(|| "return to the normal scheduling policy")?;
        credentials::adjust_oom_score(plan.process.oom_score_adj)?;
        enter::attach(&plan.attach)?;
        let root = match &plan.enter {
            Enter::New { .. } => self.build(&plan, target.as_ref())?,
            Enter::Bundle { bundle, cgroups } => {
                match self.build_bundle(&plan, bundle, cgroups, given)? {
                    Some(root) => root,
                    None => return Ok(ExitCode::SUCCESS),
                }
            }
            Enter::Chroot { root } => return self.enter_chroot(&plan, root),
            Enter::Join { pid } => {
                let target =
                    target.ok_or_else(|| Error::invalid("no process to join was given"))?;
                join::join(target.as_fd(), *pid)?;
                if !self.fork()? {
                    return Ok(ExitCode::SUCCESS);
                }
                open_root()?
            }
        };
        if plan.holds { self.hold() } else { self.run(&plan, &root) }
    }

    /// Takes what belongs to the process from the descriptors that were given:
    /// the gate is the first, what it keeps the last.
    fn take_own(&mut self, own: &Own, given: &mut Vec<OwnedFd>) -> Result<()> {
        let missing = || Error::invalid("descriptors are missing");
        let preserved = usize::try_from(own.preserved).map_err(|_| missing())?;
        let first = given.len().checked_sub(preserved).ok_or_else(missing)?;
        self.preserved = given.split_off(first);
        if own.gated {
            if given.is_empty() {
                return Err(missing());
            }
            self.gate = Some(given.remove(0));
        }
        Ok(())
    }

    fn instructions(&mut self) -> Result<(Plan, Option<OwnedFd>, Vec<OwnedFd>)> {
        let (mut target, mut given) = (None, Vec::new());
        loop {
            match self.channel.receive().cannot(|| "read the instructions")? {
                Some(Message::Descriptor(fd)) => target = Some(fd),
                Some(Message::Given(fd)) => given.push(fd),
                Some(Message::Plan(bytes)) => {
                    let plan =
                        crate::wire::decode(&bytes).cannot(|| "understand the instructions")?;
                    return Ok((plan, target, given));
                }
                Some(_) | None => return Err(Error::invalid("the helper got no instructions")),
            }
        }
    }

    /// Stays until it is killed, so that others can look at the root.
    fn hold(&mut self) -> Result<ExitCode> {
        // Nothing of the image runs here that could look into this process.
        set_dumpable_behavior(DumpableBehavior::Dumpable).cannot(|| "be looked at")?;
        set_parent_process_death_signal(Some(Signal::KILL)).cannot(|| "follow the caller's end")?;
        self.report_ready()?;
        if run::is_hung_up(self.channel.as_fd()) {
            // The caller ended before it was in force.
            return Ok(ExitCode::from(125));
        }
        self.channel.close();
        loop {
            // Every signal is blocked but the one that kills.
            crate::sys::wait_signal().cannot(|| "wait for the end")?;
        }
    }

    /// Says everything there is to say, and that the command comes next.
    fn report_ready(&mut self) -> Result<()> {
        for warning in std::mem::take(&mut self.warnings) {
            self.channel.send(&Message::Warning(warning)).cannot(|| "report a warning")?;
        }
        let stubs = std::mem::take(&mut self.stubs);
        if !stubs.is_empty() {
            self.channel.send(&Message::Stubs(stubs)).cannot(|| "report the mount points")?;
        }
        self.channel.send(&Message::Ready).cannot(|| "report the start")
    }
}

/// Opens the root directory of the calling process.
fn open_root() -> Result<OwnedFd> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| "open the root directory")
}
