//! A process in a plain directory: `chroot(2)` instead of namespaces.
//!
//! ```text
//! helper ── fork ──► child: chroot, user, capabilities, filter, execve(command)
//!   └ stays outside, is the subreaper of all that the command starts,
//!     and kills what is left of it at the end
//! ```
//!
//! There is no process id namespace whose end would do that, so the helper
//! must not be killed with SIGKILL: SIGTERM makes it kill the others first.

use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use super::run::is_hung_up;
use super::{Helper, open_root};
use crate::error::{Context as _, Result};
use crate::spawn::Plan;
use crate::sys;

impl Helper {
    /// Starts the command in `root` as a child, and ends as it does, after
    /// everything that it started.
    pub(super) fn enter_chroot(&mut self, plan: &Plan, root: &Path) -> Result<ExitCode> {
        let what = || format!("enter the root {}", root.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty()).cannot(what)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .cannot(|| "adopt the processes of the command")?;
        let command = sys::fork().cannot(|| "start the command")?;
        if command == 0 {
            rustix::process::fchdir(&root).cannot(what)?;
            rustix::process::chroot(".").cannot(what)?;
            rustix::process::chdir("/").cannot(what)?;
            return self.run(plan, &open_root()?);
        }
        if plan.die_with_parent {
            // Blocked like all others, so it waits to be taken below.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))
                .cannot(|| "follow the caller's end")?;
        }
        let hung_up = is_hung_up(std::os::fd::AsFd::as_fd(&self.channel));
        // Closed here, so that the child's exec is seen as the end of file.
        self.channel.close();
        if hung_up && plan.die_with_parent {
            kill_all();
            return Ok(ExitCode::from(125));
        }
        supervise(command)
    }
}

/// Waits for the command.
fn supervise(command: u32) -> Result<ExitCode> {
    let command = i32::try_from(command).ok().and_then(Pid::from_raw);
    let command = command.expect("fork returned the id of a process");
    loop {
        // The helper began with every signal blocked, and still has.
        match sys::wait_signal().cannot(|| "wait for signals")? {
            libc::SIGCHLD => {
                if let Some(code) = super::pid1::reap(command) {
                    kill_all();
                    return Ok(code);
                }
            }
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP => {
                kill_all();
                return Ok(ExitCode::from(137));
            }
            _ => {}
        }
    }
}

/// Kills every child, and every child's child once it becomes ours.
fn kill_all() {
    loop {
        for pid in children() {
            // One that ended meanwhile is what we want.
            kill_process(pid, Signal::KILL).ok();
        }
        match wait(WaitOptions::empty()) {
            Err(Errno::INTR) | Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Returns the processes whose parent is this one. The helper sees the outer
/// /proc: only the command is in the root.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let number = |text: &str| text.parse().ok().and_then(Pid::from_raw);
    if let Ok(list) = std::fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        return list.split_ascii_whitespace().filter_map(number).collect();
    }
    // A kernel without CONFIG_PROC_CHILDREN.
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let is_ours = |name: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        rest.split_ascii_whitespace().nth(1) == Some(own.to_string().as_str())
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| is_ours(name)).filter_map(|name| number(&name)).collect()
}
