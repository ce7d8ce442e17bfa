//! Further processes in a running container.

use std::path::PathBuf;

use sandbox::Stdio;

use super::containers::Container;
use super::error::{Error, Result};
use super::options::merge_environment;
use super::pause::is_paused;
use super::session::Session;
use super::state::Status;
use super::{Engine, spec};

/// A command to be run in a container.
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Variables, `KEY=value`, over those of the container.
    pub env: Vec<String>,
    /// The working directory; that of the container otherwise.
    pub workdir: Option<String>,
    /// The user; that of the container otherwise.
    pub user: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether it gets the caller's input.
    pub interactive: bool,
    /// Whether it runs on behind the caller's back.
    pub detach: bool,
}

impl Engine {
    /// Runs a command in a running container, in all of its namespaces and
    /// with no more rights than its first process, and returns the exit code;
    /// 0 at once with `detach`.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`], and when the command cannot be executed.
    pub fn exec(&self, container: &Container, request: ExecRequest) -> Result<i32> {
        let not_running = || Error::NotRunning { container: container.config.name.to_string() };
        let running = match container.status()? {
            Status::Running(running) => running,
            Status::Restarting(..) => {
                return Err(Error::Restarting { container: container.config.name.to_string() });
            }
            Status::Created | Status::Exited(..) | Status::Lost(_) => return Err(not_running()),
        };
        // It would be held still, too, before it has begun.
        if is_paused(container, &running) {
            return Err(Error::Paused { container: container.config.name.to_string() });
        }
        let target = sandbox::Running {
            pid: u32::try_from(running.pid).map_err(|_| not_running())?,
            start_time: running.start_time,
        };
        let mut process = spec::process(&container.config)?;
        process.args = request.args;
        process.terminal = request.terminal;
        process.init = false;
        if let Some(workdir) = request.workdir {
            process.cwd = PathBuf::from(workdir);
        }
        if let Some(user) = request.user {
            process.user = user;
        }
        let terminal = request.terminal.then_some("TERM=xterm");
        process.env = merge_environment(
            terminal
                .into_iter()
                .chain(process.env.iter().map(String::as_str))
                .chain(request.env.iter().map(String::as_str)),
        );
        if request.detach {
            return self.exec_detached(&target, &process);
        }
        let session = Session::begin(request.terminal, request.interactive)?;
        let (ends, stdio) = session.streams()?;
        process.terminal_size = session.terminal_size();
        let joined = sandbox::exec(&target, &process, stdio).map_err(Error::Sandbox)?;
        session.join(&joined, ends, false, |_| Ok(()), |_, _| {})?;
        drop(session);
        Ok(joined.wait().map_err(Error::Sandbox)?.status())
    }

    /// Starts a process that goes on without us: the container's end is its
    /// end.
    fn exec_detached(&self, target: &sandbox::Running, process: &sandbox::Process) -> Result<i32> {
        let joined =
            sandbox::exec_detached(target, process, Stdio::null()).map_err(Error::Sandbox)?;
        joined.leave();
        Ok(0)
    }
}
