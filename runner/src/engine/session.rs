//! A caller's side of a process: signals held, terminal prepared, streams
//! connected. The same for a container's first process and for one that joins.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use sandbox::{Sandboxed, Stdio, Stream as SandboxStream};

use super::attach::Attachment;
use super::error::{Error, IoContext as _, Result};
use super::log::Stream;
use super::options::Signal;
use super::pump::Pump;
use super::signals::Signals;
use super::terminal::{RawMode, size};

/// A caller that is ready to be joined to a process. From its beginning no
/// signal is lost; dropping it gives the terminal and the signals back.
#[derive(Debug)]
pub struct Session {
    /// Restored first: whoever gets the signals may end at once.
    _raw: Option<RawMode>,
    signals: Signals,
    terminal: bool,
    interactive: bool,
}

/// Our ends of the pipes to a process without a terminal.
#[derive(Debug, Default)]
pub struct Ends {
    input: Option<OwnedFd>,
    outputs: Vec<(Stream, OwnedFd)>,
}

impl Session {
    /// Prepares the caller: `terminal` if the process has one, `interactive`
    /// if it gets the caller's input.
    ///
    /// # Errors
    ///
    /// When the caller's terminal refuses.
    pub fn begin(terminal: bool, interactive: bool) -> Result<Self> {
        let signals = Signals::hold()?;
        let raw = if terminal && interactive { RawMode::enter(io::stdin())? } else { None };
        Ok(Self { _raw: raw, signals, terminal, interactive })
    }

    /// Returns the size that the terminal of the process begins with, as rows
    /// and columns: that of the caller's, if that is one.
    pub fn terminal_size(&self) -> Option<(u16, u16)> {
        if self.terminal { size(io::stdin()).or_else(|| size(io::stdout())) } else { None }
    }

    /// Makes the streams of the process, and our ends of them.
    ///
    /// The caller's own descriptors are never given away: through /proc a
    /// process could open a file again for writing, or push keys into a
    /// terminal.
    ///
    /// # Errors
    ///
    /// When no more descriptors are to be had.
    pub fn streams(&self) -> Result<(Ends, Stdio)> {
        let mut ends = Ends::default();
        let mut stdio = Stdio::null();
        if self.terminal {
            return Ok((ends, stdio));
        }
        if self.interactive {
            let (theirs, ours) = io::pipe().trying("make a pipe")?;
            stdio.stdin = SandboxStream::Fd(theirs.into());
            ends.input = Some(ours.into());
        }
        for (stream, place) in
            [(Stream::Stdout, &mut stdio.stdout), (Stream::Stderr, &mut stdio.stderr)]
        {
            let (ours, theirs) = io::pipe().trying("make a pipe")?;
            *place = SandboxStream::Fd(theirs.into());
            ends.outputs.push((stream, ours.into()));
        }
        Ok((ends, stdio))
    }

    /// Joins the caller and the process until that has ended. `is_init` says
    /// that it is the init of its namespace, `passed` is called before a signal is
    /// passed on, `log` gets its output.
    ///
    /// Returns the signal that the process was killed in place of, see
    /// [`Attachment::run`].
    ///
    /// # Errors
    ///
    /// When watching fails.
    pub fn join(
        &self,
        sandboxed: &Sandboxed,
        ends: Ends,
        is_init: bool,
        passed: impl Fn(Signal) -> Result<()>,
        log: impl FnMut(Stream, &[u8]),
    ) -> Result<Option<Signal>> {
        let connect = "connect the container's streams";
        let (mut terminal, mut input, mut outputs) = (None, None, Vec::new());
        if let Some(master) = sandboxed.take_terminal() {
            let master = File::from(master);
            let reader = master.try_clone().trying(connect)?;
            outputs.push((
                Stream::Stdout,
                Pump::new(reader, ours(io::stdout())?, true).trying(connect)?,
            ));
            if self.interactive {
                let writer = master.try_clone().trying(connect)?;
                input = Some(Pump::new(ours(io::stdin())?, writer, false).trying(connect)?);
            }
            terminal = Some(master);
        }
        for (stream, end) in ends.outputs {
            let to = match stream {
                Stream::Stdout => ours(io::stdout())?,
                Stream::Stderr => ours(io::stderr())?,
            };
            outputs.push((stream, Pump::new(end.into(), to, true).trying(connect)?));
        }
        if let Some(end) = ends.input {
            input = Some(Pump::new(ours(io::stdin())?, end.into(), false).trying(connect)?);
        }
        let attachment = Attachment {
            pidfd: sandboxed.as_fd(),
            pid: sandboxed.pid().cast_signed(),
            is_init,
            signals: &self.signals,
            terminal,
            input,
            outputs,
        };
        let send = |signal: Signal| {
            passed(signal)?;
            match sandboxed.signal(signal.number()) {
                // It has just ended.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
                sent => {
                    sent.map_err(|source| Error::System { action: "signal the container", source })
                }
            }
        };
        attachment.run(send, log)
    }
}

/// Returns a copy of one of the caller's streams.
fn ours(stream: impl std::os::fd::AsFd) -> Result<File> {
    let copy = stream.as_fd().try_clone_to_owned();
    Ok(File::from(copy.trying("use the caller's streams")?))
}
