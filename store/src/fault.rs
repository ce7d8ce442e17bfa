//! Crashes on demand, for the tests of the crash rules.
//!
//! Every write, sync, rename and removal that the crash rules speak about asks [`point`] first. In a
//! program that is a no-op. A test lets the k-th of them, and every one after it on the same
//! thread, fail: for the disk that is the same as a process that was killed there, since a dead
//! process does not clean up either.

use std::io;

#[cfg(test)]
thread_local! {
    static REMAINING: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// Fails if the test wants this process dead by now.
#[cfg(test)]
pub(crate) fn point() -> io::Result<()> {
    REMAINING.with(|remaining| match remaining.get() {
        None => Ok(()),
        Some(0) => Err(io::Error::other("injected fault")),
        Some(n) => {
            remaining.set(Some(n - 1));
            Ok(())
        }
    })
}

/// Fails if the test wants this process dead by now: never, in a program.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
#[inline]
pub(crate) fn point() -> io::Result<()> {
    Ok(())
}

/// Whether syncing means anything: tests end processes, not the power supply.
pub(crate) const IS_SYNCED: bool = !cfg!(test);

/// Runs `body` and lets everything after its first `operations` operations fail.
///
/// Returns what `body` returned, and whether the fault was reached.
#[cfg(test)]
pub(crate) fn after<T>(operations: u64, body: impl FnOnce() -> T) -> (T, bool) {
    REMAINING.with(|remaining| remaining.set(Some(operations)));
    let value = body();
    let left = REMAINING.with(std::cell::Cell::take);
    (value, left == Some(0))
}
