//! Ending containers.

use std::time::{Duration, Instant};

use super::Engine;
use super::containers::Container;
use super::error::{Error, Result};
use super::log::wait_ended;
use super::options::Signal;
use super::pause::thaw;
use super::process::Process;
use super::state::{Running, Status};

/// How long the kernel may take to end a killed container. More means that a
/// process hangs in a system call.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How long whoever watches a container may take to notice its end. One whose
/// output goes to a program that does not read it would take for ever.
const WATCHER_PATIENCE: Duration = Duration::from_secs(3);

impl Engine {
    /// Asks a container to end for good, and kills it when it has not within `grace`
    /// (`None` waits for ever). Returns when its end is recorded; one that has
    /// ended already is fine.
    ///
    /// A first process without a handler for the signal would never hear of
    /// it, being the init of its namespace: it is killed at once, instead of
    /// after a wait that can change nothing.
    ///
    /// # Errors
    ///
    /// When it cannot be signalled, or does not end.
    pub fn stop(&self, container: &Container, grace: Option<Duration>) -> Result<()> {
        // First of all: whoever watches it looks for this when it has ended.
        self.end_wait(container)?;
        let Status::Running(running) = container.status()? else { return Ok(()) };
        if let Some(process) = running.process()? {
            let signal = container.config.stop_signal;
            let is_deaf = signal.ends_by_default() && !process.hears(signal);
            let has_ended = if is_deaf || signal == Signal::KILL {
                false
            } else {
                process.signal(signal)?;
                thaw(container, &running)?;
                process.wait_ended(grace)?
            };
            if !has_ended {
                self.kill_and_wait(container, &running)?;
            }
        }
        // Its watcher may be held up by a reader that does not read.
        wait_ended(container, Some(WATCHER_PATIENCE))?;
        // It may have ended by itself, just before this was called.
        self.end_wait(container)
    }

    /// Sends a signal to a container's first process, as it is: one that the
    /// process has no handler for is lost, as with docker, except `KILL`. After
    /// that and the container's stop signal it is not started again.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and when it cannot be signalled.
    pub fn kill(&self, container: &Container, signal: Signal) -> Result<()> {
        let not_running = || Error::NotRunning { container: container.config.name.to_string() };
        let is_to_end = signal == Signal::KILL || signal == container.config.stop_signal;
        if is_to_end {
            // One that waits to be started again has no process to be signalled.
            let waits = matches!(container.status()?, Status::Restarting(..));
            self.end_wait(container)?;
            if waits && !container.status()?.is_active() {
                return Ok(());
            }
        }
        let Status::Running(running) = container.status()? else { return Err(not_running()) };
        let process = running.process()?.ok_or_else(not_running)?;
        process.signal(signal)?;
        // A signal that is to end it would wait for that; others do wait.
        if is_to_end {
            thaw(container, &running)?;
        }
        Ok(())
    }

    /// Removes a container, with `force` also a running one.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] without `force`, and when it cannot be ended or
    /// removed.
    pub fn remove(&self, container: &Container, force: bool) -> Result<()> {
        let begin = Instant::now();
        loop {
            // Asked each time: a start that was under way may have got through.
            if force {
                self.end_wait(container)?;
            }
            if force && let Status::Running(running) = container.status()? {
                self.kill_and_wait(container, &running)?;
                if begin.elapsed() > WATCHER_PATIENCE {
                    kill_watcher(&running)?;
                }
            }
            match container.remove(&self.containers) {
                // Whoever makes or watches it will let go of it in a moment.
                Err(Error::StillRunning { .. }) if force && begin.elapsed() < KILL_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    fn kill_and_wait(&self, container: &Container, running: &Running) -> Result<()> {
        let Some(process) = running.process()? else { return Ok(()) };
        process.signal(Signal::KILL)?;
        thaw(container, running)?;
        if process.wait_ended(Some(KILL_PATIENCE))? {
            return Ok(());
        }
        Err(Error::Unkillable {
            container: container.config.name.to_string(),
            seconds: KILL_PATIENCE.as_secs(),
        })
    }
}

/// Kills the shim or program that watches a container which has ended.
fn kill_watcher(running: &Running) -> Result<()> {
    match Process::find(running.shim_pid, running.shim_start_time) {
        Some(watcher) if running.process()?.is_none() => watcher.signal(Signal::KILL),
        _ => Ok(()),
    }
}
