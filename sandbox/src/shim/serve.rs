//! The shim at work.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio as ProcessStdio};
use std::time::{Duration, Instant, SystemTime};

use rustix::pipe::{PipeFlags, pipe_with};

use super::relay::{Source, relay};
use super::restart::{self, Restart};
use super::{Order, record};
use crate::error::{Context as _, Error, Result};
use crate::init::inherited_channel;
use crate::log::LogWriter;
use crate::netlink::{Messages, Socket};
use crate::spawn::{Channel, Message, Sandboxed, Stdio, Stream, find_start_time_of, spawn};
use crate::sys;
use crate::wire::Bytes;

/// Returns the time. The shim is a program of its own and nobody above it
/// could hand a clock down.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is a program: it is where the clock is read"
)]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// Runs the shim.
pub(crate) fn main() -> ExitCode {
    let Some(mut channel) = inherited_channel() else { return ExitCode::from(125) };
    match serve(&mut channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            // After the start nobody listens any more.
            channel.send(&Message::Failed(error)).ok();
            ExitCode::from(code)
        }
    }
}

fn serve(channel: &mut Channel) -> Result<()> {
    let (shim, keep) = instructions(channel)?;
    sys::reset_signals().cannot(|| "reset the signals")?;
    sys::ignore_hangup().cannot(|| "ignore the end of the terminal")?;
    rustix::process::setsid().cannot(|| "start a session")?;
    rustix::process::chdir("/").cannot(|| "leave the directory")?;
    let mut log = LogWriter::new(&shim.log);
    let (sandbox, mut sources, _stdin) = start(&shim)?;
    let end = record::ExitRecord::reserve(&shim.exit)
        .cannot(|| format!("write {}", shim.exit.display()))?;
    let own = std::process::id();
    record::write_running(
        &shim.running,
        (sandbox.pid(), sandbox.start_time()),
        (own, find_start_time_of(own).unwrap_or(0)),
        shim.restart.as_ref().map_or(0, |restart| restart.count),
        now(),
    )
    .cannot(|| format!("write {}", shim.running.display()))?;
    for warning in sandbox.warnings() {
        // The caller may have gone already; the container stays.
        channel.send(&Message::Warning(warning.clone())).ok();
    }
    let started = Message::Started { pid: sandbox.pid(), start_time: sandbox.start_time() };
    channel.send(&started).ok();
    channel.close();

    let process = (sandbox.pid(), sandbox.start_time());
    let checking = shim
        .checks
        .as_ref()
        .and_then(|checks| Some(checks.begin(command(&checks.command, shim.environment.clone())?)));
    let begin = Instant::now();
    let exit = relay(&sandbox, &mut sources, &mut log)?;
    drop(checking);
    let uptime = begin.elapsed();
    let oom_killed = sandbox.oom_killed();
    // Removes the control group.
    drop(sandbox);
    drop(log);
    // The kernel takes its time to close this socket: that comes last.
    let _socket = say_farewell(&shim.farewell.0);
    // Whoever reads the record may remove the container at once.
    drop(keep);
    let again = shim
        .restart
        .as_ref()
        .and_then(|restart| Some((restart.clone(), restart.delay(exit.status(), uptime)?)));
    end.write(process, exit, oom_killed, again.as_ref().map(|(_, delay)| *delay), now())
        .cannot(|| format!("write {}", shim.exit.display()))?;
    match again {
        Some((restart, delay)) => start_again(&restart, delay, shim.environment),
        None => run_exit_command(shim),
    }
    Ok(())
}

/// Tells the packet filters that the container has ended.
fn say_farewell(farewell: &[u8]) -> Option<Socket> {
    if farewell.is_empty() {
        return None;
    }
    let mut socket = Socket::netfilter().ok()?;
    // What cannot be said now, the next command says.
    socket.request(&Messages::from_bytes(farewell.to_vec())).ok();
    Some(socket)
}

fn instructions(channel: &mut Channel) -> Result<(Order, Vec<OwnedFd>)> {
    let mut keep = Vec::new();
    loop {
        match channel.receive().cannot(|| "read the instructions")? {
            Some(Message::Descriptor(fd)) => keep.push(fd),
            Some(Message::Plan(bytes)) => {
                return Ok((
                    crate::wire::decode(&bytes).cannot(|| "understand the instructions")?,
                    keep,
                ));
            }
            _ => return Err(Error::invalid("the shim got no instructions")),
        }
    }
}

type Streams = (Sandboxed, Vec<Source>, Option<OwnedFd>);

fn start(shim: &Order) -> Result<Streams> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).cannot(|| "open a pipe");
    if shim.spec.process.terminal {
        let sandbox = spawn(&shim.spec, Stdio::null())?;
        let sources = vec![Source { stdout: true, fd: sandbox.take_terminal() }];
        return Ok((sandbox, sources, None));
    }
    let ((output, stdout), (errors, stderr)) = (pipe()?, pipe()?);
    let (stdin, input) = if shim.open_stdin {
        let (read, write) = pipe()?;
        (Stream::Fd(read), Some(write))
    } else {
        (Stream::Null, None)
    };
    let sandbox =
        spawn(&shim.spec, Stdio { stdin, stdout: Stream::Fd(stdout), stderr: Stream::Fd(stderr) })?;
    let sources =
        vec![Source { stdout: true, fd: Some(output) }, Source { stdout: false, fd: Some(errors) }];
    Ok((sandbox, sources, input))
}

/// Waits, and becomes the command that starts the container again: whoever asks
/// sees one living process until there is another shim.
fn start_again(restart: &Restart, delay: Duration, environment: Environment) {
    // Nobody is left to tell: the next command sees that nobody waits any more.
    if !restart::wait(&restart.file, delay).unwrap_or(false) {
        return;
    }
    if let Some(mut command) = command(&restart.command, environment) {
        // It returns only when the command could not be executed.
        drop(command.exec());
    }
}

fn run_exit_command(order: Order) {
    let Some(mut command) = command(&order.exit_command, order.environment) else { return };
    // Nobody is left to tell: what it would have cleaned up, the next command does.
    if let Ok(mut child) = command.spawn() {
        child.wait().ok();
    }
}

type Environment = Vec<(Bytes, Bytes)>;

/// Returns a command in the caller's environment, with no streams.
fn command(words: &[String], environment: Environment) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let text = |bytes: Bytes| OsString::from_vec(bytes.0);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(environment.into_iter().map(|(name, value)| (text(name), text(value))))
        .stdin(ProcessStdio::null())
        .stdout(ProcessStdio::null())
        .stderr(ProcessStdio::null());
    Some(command)
}
