//! Whether a container works: its health check.
//!
//! Whoever watches the container executes `rrun check ID` now and then
//! ([`sandbox::shim::checks`]), which runs the command inside, judges, and writes
//! `health`. That file is of the start it names; what it says of another one
//! counts for nothing.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio as ProcessStdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use sandbox::shim::checks::{Checking, Checks};
use sandbox::{Sandboxed, Stdio, Stream};
use serde::{Deserialize, Serialize};

use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::launch::with_cause;
use super::options::{HealthConfig, OnFailure, Signal};
use super::pause::is_paused;
use super::state::{Running, Status, read_json, write_json};
use super::timestamp::Timestamp;
use super::{Engine, spec};

/// How many results are kept, docker's number.
const KEPT: usize = 5;

/// How much output of a check is kept, docker's number.
const MAX_OUTPUT_BYTES: usize = 4096;

/// How long a container may take that is stopped because it does not work.
const GRACE: Duration = Duration::from_secs(10);

/// What the checks have found so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing yet.
    #[default]
    Starting,
    /// The last one succeeded, or not enough have failed since.
    Healthy,
    /// Too many have failed in a row.
    Unhealthy,
}

/// The file `health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The first process of the start it is about.
    pub pid: i32,
    /// Its start time.
    pub start_time: u64,
    /// What the checks have found.
    pub status: HealthStatus,
    /// How many have failed in a row.
    pub streak: u32,
    /// The last checks, the oldest first.
    pub log: Vec<Probe>,
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; -1 if it could not be run, or took too long.
    pub code: i32,
    /// What it has printed.
    pub output: String,
}

impl HealthStatus {
    /// Returns docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Health {
    /// Returns what is known of a container; `None` if it has no check, or has
    /// never run.
    ///
    /// # Errors
    ///
    /// When its file cannot be read or understood.
    pub fn of(container: &Container, status: &Status) -> Result<Option<Self>> {
        let (Some(_), Some(running)) = (&container.config.health, status.last_start()) else {
            return Ok(None);
        };
        Self::read(container, running).map(Some)
    }

    fn read(container: &Container, running: &Running) -> Result<Self> {
        let (pid, start_time) = (running.pid, running.start_time);
        let found: Option<Self> = read_json(&container.dir().join("health"))?;
        let found = found.filter(|it| it.pid == pid && it.start_time == start_time);
        Ok(found.unwrap_or(Self { pid, start_time, ..Self::default() }))
    }

    /// Adds a check to what is known, `uptime` after the start of the container.
    /// Returns whether it has turned out not to work just now.
    fn add(&mut self, probe: Probe, config: &HealthConfig, uptime: Duration) -> bool {
        let before = self.status;
        let begins = before == HealthStatus::Starting
            && uptime < Duration::from_millis(config.start_period_ms);
        if probe.code == 0 {
            self.streak = 0;
            self.status = HealthStatus::Healthy;
        } else if !begins {
            self.streak = self.streak.saturating_add(1);
            if self.streak >= config.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.log.push(probe);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
        self.status == HealthStatus::Unhealthy && before != HealthStatus::Unhealthy
    }
}

impl Engine {
    /// Returns how whoever watches a container has it checked.
    pub(super) fn checks(&self, container: &Container) -> Result<Option<Checks>> {
        let Some(health) = &container.config.health else { return Ok(None) };
        let mut command = self.own_command("check")?;
        command.push(container.config.id.to_string());
        Ok(Some(Checks {
            command,
            interval_ms: health.interval_ms,
            start_interval_ms: health.start_interval_ms,
            start_period_ms: health.start_period_ms,
        }))
    }

    /// Has a container checked that this process watches.
    pub(super) fn begin_checks(&self, container: &Container) -> Result<Option<Checking>> {
        let Some(checks) = self.checks(container)? else { return Ok(None) };
        let Some((program, arguments)) = checks.command.split_first() else { return Ok(None) };
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        command.stdin(ProcessStdio::null()).stdout(ProcessStdio::null());
        command.stderr(ProcessStdio::null());
        Ok(Some(checks.begin(command)))
    }

    /// Runs a container's check once, and does what is to be done if it does not
    /// work. Returns whether the check succeeded; `None` if there was none.
    ///
    /// # Errors
    ///
    /// When the result cannot be written, and when the container cannot be ended.
    pub fn check(&self, container: &Container) -> Result<Option<bool>> {
        let Some(config) = &container.config.health else { return Ok(None) };
        let Status::Running(running) = container.status()? else { return Ok(None) };
        // A paused one would be found not to work.
        if running.process()?.is_none() || is_paused(container, &running) {
            return Ok(None);
        }
        let start = (self.clock)();
        let (code, output) = match self.probe(container, config, &running) {
            Ok(found) => found,
            Err(error) => (-1, with_cause(&error)),
        };
        // The check ends with the container, which says nothing about that.
        if running.process()?.is_none() {
            return Ok(None);
        }
        let probe = Probe { start, end: (self.clock)(), code, output };
        let mut health = Health::read(container, &running)?;
        let has_turned = health.add(probe, config, running.started.elapsed(start));
        write_json(&container.dir().join("health"), &health)?;
        if has_turned {
            self.act(container, config.on_failure, &running)?;
        }
        Ok(Some(code == 0))
    }

    fn act(&self, container: &Container, action: OnFailure, running: &Running) -> Result<()> {
        match action {
            OnFailure::None => Ok(()),
            // Not its user has done it: it may be started again.
            OnFailure::Kill => match running.process()? {
                Some(process) => process.signal(Signal::KILL),
                None => Ok(()),
            },
            OnFailure::Stop => self.stop(container, Some(GRACE)),
            OnFailure::Restart => {
                self.stop(container, Some(GRACE))?;
                match self.prepare(container.clone())? {
                    Some(prepared) => prepared.start_detached().map(drop),
                    None => Ok(()),
                }
            }
        }
    }

    /// Runs the command inside; returns its exit code and what it has printed.
    fn probe(
        &self,
        container: &Container,
        config: &HealthConfig,
        running: &Running,
    ) -> Result<(i32, String)> {
        let mut process = spec::process(&container.config)?;
        process.args.clone_from(&config.args);
        process.terminal = false;
        process.init = false;
        let target =
            sandbox::Running { pid: running.pid.cast_unsigned(), start_time: running.start_time };
        let (ours, stdout) = io::pipe().trying("make a pipe")?;
        let stderr = stdout.try_clone().trying("make a pipe")?;
        let stdio = Stdio {
            stdin: Stream::Null,
            stdout: Stream::Fd(stdout.into()),
            stderr: Stream::Fd(stderr.into()),
        };
        let joined = sandbox::exec(&target, &process, stdio).map_err(Error::Sandbox)?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let (ended, output) = watch(&joined, OwnedFd::from(ours).into(), timeout)?;
        let output = String::from_utf8_lossy(&output).into_owned();
        if ended {
            return Ok((joined.wait().map_err(Error::Sandbox)?.status(), output));
        }
        joined.signal(Signal::KILL.number()).trying("end a health check")?;
        joined.wait().map_err(Error::Sandbox)?;
        Ok((-1, format!("Health check exceeded timeout ({timeout:?})\n{output}")))
    }
}

/// Reads what a process prints until it ends; `false` when `timeout` passes first.
fn watch(joined: &Sandboxed, mut pipe: File, timeout: Duration) -> Result<(bool, Vec<u8>)> {
    let end = Instant::now() + timeout;
    let (mut ended, mut is_open, mut output) = (false, true, Vec::new());
    loop {
        // Once it has ended, only what is written already is read.
        let left =
            if ended { Duration::ZERO } else { end.saturating_duration_since(Instant::now()) };
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut fds = vec![PollFd::from_borrowed_fd(joined.as_fd(), PollFlags::IN)];
        if is_open {
            fds.push(PollFd::new(&pipe, PollFlags::IN));
        }
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Ok((ended, output)),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error).trying("wait for a health check"),
        }
        ended |= !fds[0].revents().is_empty();
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if readable {
            let mut buffer = [0; MAX_OUTPUT_BYTES];
            let read = pipe.read(&mut buffer).trying("read what a health check prints")?;
            is_open = read > 0;
            let room = MAX_OUTPUT_BYTES - output.len();
            output.extend_from_slice(&buffer[..read.min(room)]);
        } else if ended {
            return Ok((ended, output));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(code: i32) -> Probe {
        let now = Timestamp::default();
        Probe { start: now, end: now, code, output: String::new() }
    }

    #[test]
    fn a_container_is_judged_by_what_its_checks_find() {
        let config = HealthConfig {
            test: Vec::new(),
            args: Vec::new(),
            interval_ms: 1,
            timeout_ms: 1,
            retries: 2,
            start_period_ms: 10_000,
            start_interval_ms: 1,
            on_failure: OnFailure::None,
        };
        let mut health = Health::default();
        // Seconds after the start, exit code; then status, streak, and whether it turned.
        for (at, code, status, streak, turned) in [
            (1, 1, "starting", 0, false),
            (9, 1, "starting", 0, false),
            (10, 1, "starting", 1, false),
            (11, -1, "unhealthy", 2, true),
            (12, 1, "unhealthy", 3, false),
            (13, 0, "healthy", 0, false),
            (14, 1, "healthy", 1, false),
            (15, 0, "healthy", 0, false),
            (16, 1, "healthy", 1, false),
            (17, 1, "unhealthy", 2, true),
        ] {
            let has_turned = health.add(probe(code), &config, Duration::from_secs(at));
            let found = (health.status.word(), health.streak, has_turned);
            assert_eq!(found, (status, streak, turned), "at {at}");
        }
        let codes: Vec<_> = health.log.iter().map(|probe| probe.code).collect();
        assert_eq!(codes, [0, 1, 0, 1, 1]);
        // Once it has worked, the time of its beginning is over.
        let mut health = Health::default();
        health.add(probe(0), &config, Duration::ZERO);
        health.add(probe(1), &config, Duration::ZERO);
        assert_eq!((health.status, health.streak), (HealthStatus::Healthy, 1));
    }
}
