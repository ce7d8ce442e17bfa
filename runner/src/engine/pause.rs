//! Holding containers still, and letting them go on.

use super::Engine;
use super::cgroup;
use super::containers::Container;
use super::error::{Error, Result};
use super::state::{Running, Status};

impl Engine {
    /// Holds every process of a container still.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::Paused`] if it is held already, and
    /// when the host cannot do it.
    pub fn pause(&self, container: &Container) -> Result<()> {
        let running = running(container)?;
        if is_paused(container, &running) {
            return Err(Error::Paused { container: container.config.name.to_string() });
        }
        cgroup::freeze(&container.config.id, running.pid)
    }

    /// Lets a container go on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], [`Error::NotPaused`], and when the kernel refuses.
    pub fn unpause(&self, container: &Container) -> Result<()> {
        let running = running(container)?;
        if !is_paused(container, &running) {
            return Err(Error::NotPaused { container: container.config.name.to_string() });
        }
        thaw(container, &running)
    }
}

/// Tells whether a running container is held still.
pub fn is_paused(container: &Container, running: &Running) -> bool {
    cgroup::is_frozen(&container.config.id, running.pid)
}

/// Lets a container go on if it is held: only then it can end.
pub(crate) fn thaw(container: &Container, running: &Running) -> Result<()> {
    // A process that has ended just now has no group that could be frozen.
    match running.process()? {
        Some(process) => cgroup::thaw(&container.config.id, process.pid()),
        None => Ok(()),
    }
}

fn running(container: &Container) -> Result<Running> {
    match container.status()? {
        Status::Running(running) if running.process()?.is_some() => Ok(running),
        _ => Err(Error::NotRunning { container: container.config.name.to_string() }),
    }
}
