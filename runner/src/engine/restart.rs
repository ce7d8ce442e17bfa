//! Starting a container again that has ended by itself.
//!
//! ```text
//! shim: the container ends ─► exit record ─► waits ─► becomes `rrun again ID`
//!   `rrun again`: takes the container, starts it with another shim, ends
//! ```
//!
//! Whoever watches a container decides, waits and becomes, or starts, the
//! command; no other process is there. The file `restart` says what is wanted. It
//! is put there when the user starts the container, and taken away when the
//! user ends it; [`sandbox::shim::restart`] reads it.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sandbox::shim::restart::{Restart, wait};

use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::launch::Prepared;
use super::options::RestartPolicy;
use super::ownership::Ownership;
use super::process::start_time;
use super::state::{ExitRecord, Running, Status, write_json};
use super::{Engine, cgroup};

/// How long a container's lock is waited for: others only have it while they
/// change or look at something.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Which of a container's starts one is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Round {
    /// How often it was started again before; 0 when its user starts it.
    pub(super) count: u32,
    /// How long was waited for this start, in milliseconds.
    pub(super) waited_ms: u64,
}

impl Container {
    /// Returns the file that says when it is started again.
    pub(super) fn restart_file(&self) -> PathBuf {
        self.dir().join("restart")
    }

    /// Says when it is to be started again, as long as it is not stopped.
    pub(super) fn want_restart(&self, policy: RestartPolicy) -> Result<()> {
        if policy == RestartPolicy::No {
            return self.end_for_good();
        }
        let (file, new) = (self.restart_file(), self.dir().join("restart.new"));
        fs::write(&new, format!("{policy}\n")).doing("write", &new)?;
        fs::rename(&new, &file).doing("write", &file)
    }

    /// Says that it is not to be started again, until its user does.
    ///
    /// # Errors
    ///
    /// When its file cannot be removed.
    pub(super) fn end_for_good(&self) -> Result<()> {
        let file = self.restart_file();
        match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.doing("remove", &file),
        }
    }
}

impl Engine {
    /// Starts a container again that has ended, after `delay`, in place of whoever
    /// has watched it. One that was stopped meanwhile is left alone.
    ///
    /// # Errors
    ///
    /// When it cannot be started; its record of the end then says why.
    pub fn start_again(&self, container: &Container, delay: Duration) -> Result<()> {
        if !wait(&container.restart_file(), delay).trying("wait")? {
            return Ok(());
        }
        let Some(ownership) = own_patiently(container)? else { return Ok(()) };
        let myself = std::process::id().cast_signed();
        let (running, exit) = match container.status()? {
            Status::Restarting(running, exit) if running.shim_pid == myself => (running, exit),
            // It was started by somebody else, or removed.
            _ => return Ok(()),
        };
        // Whoever stops it takes the file away and then waits for the lock.
        if !container.restart_file().exists() {
            return Ok(());
        }
        let round =
            Round { count: running.restarts + 1, waited_ms: exit.restart_ms.unwrap_or_default() };
        let started = cgroup::destroy(&container.config.id)
            .and_then(|()| self.prepare_owned(container.clone(), ownership, round))
            .and_then(Prepared::start_detached);
        started.map(drop).inspect_err(|error| {
            let error = Some(super::launch::with_cause(error));
            let exit = ExitRecord { restart_ms: None, error, ..exit };
            // There is nobody to tell.
            drop(write_json(&container.dir().join("exit"), &exit));
        })
    }

    /// Returns how the watcher of a container starts it again.
    pub(super) fn restart(&self, container: &Container, round: Round) -> Result<Restart> {
        let mut command = self.own_command("again")?;
        command.push(container.config.id.to_string());
        let Round { count, waited_ms } = round;
        Ok(Restart { file: container.restart_file(), command, count, waited_ms })
    }

    /// Leaves a container that has ended to a process that will start it again,
    /// and records that.
    pub(super) fn leave_to_restart(
        &self,
        container: &Container,
        restart: &Restart,
        running: Running,
        exit: &ExitRecord,
    ) -> Result<()> {
        let delay = exit.restart_ms.unwrap_or_default().to_string();
        let (program, arguments) =
            restart.command.split_first().expect("the command was made of several words");
        let child = Command::new(program)
            .args(arguments)
            .args(["--after-ms", &delay])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .trying("start the program that starts the container again")?;
        let shim_pid = child.id().cast_signed();
        let shim_start_time = start_time(shim_pid)?;
        sandbox::rootless::register(child.id(), shim_start_time);
        let dir = container.dir();
        write_json(&dir.join("running"), &Running { shim_pid, shim_start_time, ..running })?;
        write_json(&dir.join("exit"), exit)
    }

    /// Ends a container that waits to be started again. Returns when nobody will,
    /// or when it runs.
    pub(super) fn end_wait(&self, container: &Container) -> Result<()> {
        container.end_for_good()?;
        let begin = Instant::now();
        while let Status::Restarting(running, _) = container.status()? {
            if begin.elapsed() > LOCK_PATIENCE
                && let Some(watcher) = running.watcher()?
            {
                watcher.signal(super::options::Signal::KILL)?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Takes a container whose lock others have for a moment; `None` if it is gone,
/// or somebody keeps it.
fn own_patiently(container: &Container) -> Result<Option<Ownership>> {
    let begin = Instant::now();
    loop {
        if let Some(ownership) = container.own()? {
            return Ok(Some(ownership));
        }
        if !container.dir().exists() || begin.elapsed() > LOCK_PATIENCE {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Refuses a policy for a container that goes away when it ends.
///
/// # Errors
///
/// [`Error::Invalid`], in docker's words.
pub fn check_policy(policy: RestartPolicy, remove: bool) -> Result<()> {
    if remove && policy != RestartPolicy::No {
        let what = "conflicting options: cannot specify both --restart and --rm".to_owned();
        return Err(Error::Invalid { what });
    }
    Ok(())
}
