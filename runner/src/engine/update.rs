//! Other limits for a container that was made before.

use super::config::LimitsConfig;
use super::containers::Container;
use super::error::{Error, Result};
use super::options::{Bytes, Cpus, PidsLimit, RestartPolicy, SwapLimit};
use super::restart::check_policy;
use super::state::Status;
use super::{Engine, cgroup, spec};

/// What is to be changed; `None` stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpdateRequest {
    /// Memory in bytes.
    pub memory: Option<Bytes>,
    /// Memory and swap together.
    pub memory_swap: Option<SwapLimit>,
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Processes and threads.
    pub pids: Option<PidsLimit>,
    /// When it is started again.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes a container's limits: at once if it runs, and for its next start.
    ///
    /// # Errors
    ///
    /// When limits contradict each other, when the host cannot enforce them, and
    /// when the container's files cannot be written.
    pub fn update(&self, container: &Container, request: UpdateRequest) -> Result<()> {
        let restart = request.restart.unwrap_or(container.config.restart);
        check_policy(restart, container.config.remove)?;
        let mut limits = container.config.limits.clone();
        limits.memory = request.memory.or(limits.memory);
        limits.memory_swap = request.memory_swap.or(limits.memory_swap);
        limits.cpus = request.cpus.or(limits.cpus);
        limits.pids = request.pids.unwrap_or(limits.pids);
        check_swap(&limits)?;
        let status = container.status()?;
        // One that was stopped stays so.
        if request.restart.is_some() && status.is_active() {
            container.want_restart(restart)?;
        }
        if let Status::Running(running) = status
            && let Some(process) = running.process()?
        {
            // Only what was asked for: the container may lack the rest.
            let changes_memory = request.memory.is_some() || request.memory_swap.is_some();
            let changed = LimitsConfig {
                memory: limits.memory.filter(|_| changes_memory),
                memory_swap: limits.memory_swap.filter(|_| changes_memory),
                cpus: request.cpus,
                pids: PidsLimit(None),
                ulimits: Vec::new(),
            };
            let mut changed = spec::limits(&changed)?;
            changed.pids = request.pids.map(|PidsLimit(limit)| limit.map_or(-1, i64::from));
            cgroup::update(&container.config.id, process.pid(), &changed)?;
        }
        self.containers().change(container, |config| {
            config.limits = limits;
            config.restart = restart;
        })
    }
}

/// Refuses less memory and swap together than memory.
///
/// # Errors
///
/// [`Error::Invalid`].
pub fn check_swap(limits: &LimitsConfig) -> Result<()> {
    let invalid = |what: String| Err(Error::Invalid { what });
    match (limits.memory, limits.memory_swap) {
        (None, Some(_)) => invalid("--memory-swap needs --memory as well".to_owned()),
        (Some(memory), Some(SwapLimit::Total(total))) if total < memory => invalid(format!(
            "--memory-swap ({total}) is memory and swap together: it cannot be less than --memory ({memory})"
        )),
        _ => Ok(()),
    }
}
