//! Ending containers.

use std::time::Duration;

use super::Engine;
use super::containers::Container;
use super::error::{Error, Result};
use super::log::wait_ended;
use super::options::Signal;
use super::state::{Running, Status};

/// How long the kernel may take to end a killed container. More means that a
/// process hangs in a system call.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// Asks a container to end, and kills it when it has not within `grace`
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
        let Status::Running(running) = container.status()? else { return Ok(()) };
        if let Some(process) = running.process()? {
            let signal = container.config.stop_signal;
            let is_deaf = signal.ends_by_default() && !process.hears(signal);
            let has_ended = if is_deaf || signal == Signal::KILL {
                false
            } else {
                process.signal(signal)?;
                process.wait_ended(grace)?
            };
            if !has_ended {
                self.kill_and_wait(container, &running)?;
            }
        }
        wait_ended(container).map(drop)
    }

    /// Sends a signal to a container's first process, as it is: one that the
    /// process has no handler for is lost, as with docker, except `KILL`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and when it cannot be signalled.
    pub fn kill(&self, container: &Container, signal: Signal) -> Result<()> {
        let not_running = || Error::NotRunning { container: container.config.name.to_string() };
        let Status::Running(running) = container.status()? else { return Err(not_running()) };
        let process = running.process()?.ok_or_else(not_running)?;
        process.signal(signal)
    }

    /// Removes a container, with `force` also a running one.
    ///
    /// # Errors
    ///
    /// [`Error::StillRunning`] without `force`, and when it cannot be ended or
    /// removed.
    pub fn remove(&self, container: &Container, force: bool) -> Result<()> {
        if force && let Status::Running(running) = container.status()? {
            self.kill_and_wait(container, &running)?;
            wait_ended(container)?;
        }
        match container.remove(&self.containers) {
            // Whoever watched it in the foreground removes it just now, or
            // lets go of it.
            Err(Error::StillRunning { .. }) if force => {
                let deadline = std::time::Instant::now() + KILL_PATIENCE;
                loop {
                    std::thread::sleep(Duration::from_millis(5));
                    match container.remove(&self.containers) {
                        Err(Error::StillRunning { .. }) if std::time::Instant::now() < deadline => {
                        }
                        result => return result,
                    }
                }
            }
            result => result,
        }
    }

    fn kill_and_wait(&self, container: &Container, running: &Running) -> Result<()> {
        let Some(process) = running.process()? else { return Ok(()) };
        process.signal(Signal::KILL)?;
        if process.wait_ended(Some(KILL_PATIENCE))? {
            return Ok(());
        }
        Err(Error::Unkillable {
            container: container.config.name.to_string(),
            seconds: KILL_PATIENCE.as_secs(),
        })
    }
}
