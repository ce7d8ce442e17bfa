//! Process 1 of a sandbox that asked for one: forwards signals, reaps orphans,
//! and ends as its first child does.

use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions, wait};

use crate::error::{Context as _, Result};
use crate::sys;

/// Serves until the command, which is process 2, has ended.
pub(super) fn serve() -> Result<ExitCode> {
    let command = Pid::from_raw(2).expect("is not zero");
    loop {
        // The helper began with every signal blocked, and still has.
        let signal = sys::wait_signal().cannot(|| "wait for signals")?;
        if signal == libc::SIGCHLD {
            if let Some(code) = reap(command) {
                return Ok(code);
            }
        } else if !is_for_us(signal)
            && let Some(signal) = Signal::from_named_raw(signal)
        {
            // The command may have ended: then SIGCHLD is on its way.
            rustix::process::kill_process(command, signal).ok();
        }
    }
}

/// Signals that the kernel sends to process 1 for reasons of its own.
fn is_for_us(signal: i32) -> bool {
    matches!(
        signal,
        libc::SIGTTIN | libc::SIGTTOU | libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL
    )
}

/// Reaps whoever has ended; returns how to end when the command is among them.
pub(super) fn reap(command: Pid) -> Option<ExitCode> {
    let mut end = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == command {
            let status = status
                .exit_status()
                .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            end = Some(ExitCode::from(u8::try_from(status.unwrap_or(1)).unwrap_or(1)));
        }
    }
    end
}
