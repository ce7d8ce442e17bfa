//! Ctrl-C: the first one stops the build, the second one the program.
//!
//! The signals are blocked before any thread exists, and one thread waits for them: no
//! code runs in a signal handler.

use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};

use crate::solve::Cancel;

/// Stops `cancel` when the user or the system asks the program to end.
///
/// # Errors
/// Fails when the signals cannot be blocked.
pub(super) fn stop_on_signal(cancel: &Arc<Cancel>) -> anyhow::Result<()> {
    let ignored = ignored();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // `nohup`, and `&` in a script, ask for a signal to be ignored.
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            signals.add(signal);
        }
    }
    signals.thread_block()?;
    let cancel = Arc::clone(cancel);
    std::thread::spawn(move || {
        let mut is_first = true;
        while signals.wait().is_ok() {
            if !is_first {
                // Whoever asks twice wants out, whatever is left behind: the next command
                // cleans up.
                #[expect(clippy::exit, reason = "the user insists")]
                std::process::exit(i32::from(super::STOPPED));
            }
            is_first = false;
            cancel.stop();
        }
    });
    Ok(())
}

/// Returns the signals this program was started with orders to ignore, one bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
