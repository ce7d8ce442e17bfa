//! Starting, signalling and removing containers that were created.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use sandbox::bundle::gate;

use super::create::{run_poststart, run_poststop};
use super::error::{Error, Result};
use super::state::{Container, Status};

/// `SIGKILL`.
const KILL: i32 = 9;

/// How long a container may take to end after it was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Executes the command of a created container.
///
/// # Errors
///
/// When it is not waiting, or the command cannot be executed.
pub fn start(container: &Container) -> Result<()> {
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Error::status("cannot start a container that has stopped")),
        Status::Running | Status::Paused => {
            return Err(Error::status("cannot start an already running container"));
        }
        Status::Creating => return Err(Error::status("the container is still being created")),
    }
    gate::open(container.directory())?;
    run_poststart(container, &container.config()?)
}

/// Sends a signal to the first process, or to all.
///
/// # Errors
///
/// When the container does not run.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let status = container.status();
    let stopped = || Error::status("container not running");
    let groups = &container.record.groups;
    if all {
        if status == Status::Stopped && groups.pids().is_empty() {
            return Err(stopped());
        }
        groups.kill(signal)?;
    } else {
        if status == Status::Stopped {
            return Err(stopped());
        }
        let running = container.record.running().ok_or_else(stopped)?;
        let pidfd = running.open()?;
        sandbox::send_signal(pidfd.as_fd(), signal).map_err(|source| sandbox::Error::Setup {
            what: format!("send signal {signal} to the container"),
            source,
        })?;
    }
    if signal == KILL && status == Status::Paused {
        // What is held still does not end on v1.
        groups.thaw()?;
    }
    Ok(())
}

/// Removes a container. With `force` it is killed if it runs.
///
/// # Errors
///
/// When it runs and is not to be killed, or something cannot be removed.
pub fn delete(container: &Container, force: bool) -> Result<()> {
    let status = container.status();
    match status {
        Status::Stopped => {}
        // It has done nothing yet.
        Status::Created => end(container)?,
        Status::Running | Status::Paused | Status::Creating if force => end(container)?,
        Status::Running | Status::Paused | Status::Creating => {
            return Err(Error::status(format!(
                "cannot delete container {} that is not stopped: {}",
                container.record.id,
                status.word()
            )));
        }
    }
    container.record.groups.remove()?;
    // One that was interrupted while it was created may have no configuration.
    if let Ok(config) = container.config()
        && let Err(error) = run_poststop(container, &config)
    {
        tracing::warn!(%error, "a hook failed");
    }
    container.forget()
}

/// Kills the first process and waits for its end.
fn end(container: &Container) -> Result<()> {
    let Some(running) = container.record.running() else { return Ok(()) };
    let Ok(pidfd) = running.open() else { return Ok(()) };
    // One that ends meanwhile is fine.
    sandbox::send_signal(pidfd.as_fd(), KILL).ok();
    if container.record.groups.is_frozen() {
        container.record.groups.thaw()?;
    }
    let begin = Instant::now();
    let mut pause = Duration::from_micros(100);
    while running.is_alive() {
        if begin.elapsed() > PATIENCE {
            return Err(Error::status("the container does not end although it was killed"));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}
