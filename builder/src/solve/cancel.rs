//! Stops a build at once: the first failure or Ctrl-C ends everything that runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// What to do when the build is stopped.
type Hook = Box<dyn Fn() + Send>;

/// Shared by everything that takes part in a build.
#[derive(Default)]
pub struct Cancel {
    is_stopped: AtomicBool,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    hooks: BTreeMap<u64, Hook>,
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cancel").field("is_stopped", &self.is_stopped).finish_non_exhaustive()
    }
}

impl Cancel {
    /// Returns a token for one build.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the build: nothing new starts, and what runs is killed.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        for hook in hooks.hooks.values() {
            hook();
        }
    }

    /// Returns whether the build is to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Fails once the build is to stop.
    ///
    /// # Errors
    /// Returns [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_stopped() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Calls `hook` if the build is stopped before the guard is dropped (or was already).
    #[must_use]
    pub fn on_stop(&self, hook: impl Fn() + Send + 'static) -> Guard<'_> {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let id = hooks.next;
        hooks.next += 1;
        // Under the lock, so that a stop happens either before or after, never between.
        if self.is_stopped() {
            hook();
        }
        hooks.hooks.insert(id, Box::new(hook));
        Guard { cancel: self, id }
    }
}

/// Takes a hook back when it is dropped.
#[derive(Debug)]
pub struct Guard<'a> {
    cancel: &'a Cancel,
    id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut hooks = self.cancel.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.hooks.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn hooks_run_while_they_are_held_and_not_after() {
        let cancel = Cancel::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = || {
            let calls = Arc::clone(&calls);
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        drop(cancel.on_stop(count()));
        let held = cancel.on_stop(count());
        cancel.stop();
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(held);
        let late = cancel.on_stop(count());
        assert_eq!(calls.load(Ordering::SeqCst), 2, "a late hook runs at once");
        drop(late);
        assert!(cancel.check().is_err());
    }
}
