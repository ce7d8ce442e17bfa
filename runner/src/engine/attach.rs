//! A caller and a container's process, joined until the process ends.
//!
//! One loop waits for everything at once: the process' end, the caller's
//! signals, input and output. Nothing in it blocks, so that a signal is passed
//! on although the output goes nowhere, and the end is seen although a signal
//! was lost.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr, tcgetpgrp};

use super::error::{IoContext as _, Result};
use super::log::Stream;
use super::options::Signal;
use super::process;
use super::pump::{Interest, Pump};
use super::signals::{Signals, WINCH};
use super::terminal::copy_size;

/// How long output may stay silent after the process has ended. All its
/// descendants ended with it; what they wrote is in the pipes.
const LAST_WORDS: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Ctrl-C, unless a terminal is set to something else.
const INTERRUPT_KEY: u8 = 3;

/// How many interrupts in all mean that the caller has had enough of waiting.
const PATIENCE: u32 = 3;

/// What joins a caller to a process.
#[derive(Debug)]
pub struct Attachment<'a> {
    /// Readable when the process has ended.
    pub pidfd: BorrowedFd<'a>,
    /// Its pid.
    pub pid: i32,
    /// Whether it is the init of a pid namespace, which the kernel protects
    /// from signals it has no handler for.
    pub is_init: bool,
    /// The caller's signals.
    pub signals: &'a Signals,
    /// Our side of the process' terminal, for its size.
    pub terminal: Option<File>,
    /// Its input.
    pub input: Option<Pump>,
    /// Its output, one or two streams.
    pub outputs: Vec<(Stream, Pump)>,
}

impl Attachment<'_> {
    /// Passes bytes and signals on until the process has ended and its output
    /// is written.
    ///
    /// `send` signals the process, `log` gets its output. Returns the signal
    /// that the process was killed in place of: one that would have ended it,
    /// were it not the init of its namespace without a handler.
    ///
    /// # Errors
    ///
    /// When waiting or signalling fails.
    pub fn run(
        mut self,
        mut send: impl FnMut(Signal) -> Result<()>,
        mut log: impl FnMut(Stream, &[u8]),
    ) -> Result<Option<Signal>> {
        let mut ended = false;
        let mut interrupts = 0;
        let mut in_place_of = None;
        loop {
            if ended && self.outputs.is_empty() {
                return Ok(in_place_of);
            }
            let ready = self.wait(ended)?;
            if ready.signal {
                while let Some(signal) = self.signals.next()? {
                    if ended && signal.asks_to_end() {
                        // Only a reader that does not read is waited for.
                        return Ok(in_place_of);
                    }
                    let killed = self.pass_on(signal, &mut interrupts, &mut send)?;
                    in_place_of = in_place_of.or(killed);
                }
            }
            if ready.input && self.advance_input() {
                send(Signal::KILL)?;
                in_place_of = Some(Signal::INT);
            }
            for index in ready.outputs {
                let (stream, pump) = &mut self.outputs[index];
                pump.advance(|bytes| log(*stream, bytes));
            }
            if ready.ended {
                ended = true;
                self.input = None;
            }
            if ready.silent && !self.outputs.iter().any(|(_, pump)| pump.is_full()) {
                return Ok(in_place_of);
            }
            self.outputs.retain(|(_, pump)| !matches!(pump.interest(), Interest::Done));
        }
    }

    fn wait(&self, ended: bool) -> Result<Ready> {
        let mut fds = vec![PollFd::new(self.signals, PollFlags::IN)];
        if !ended {
            fds.push(PollFd::from_borrowed_fd(self.pidfd, PollFlags::IN));
        }
        let first_output = fds.len();
        for (_, pump) in &self.outputs {
            if let Interest::When(fd, flags) = pump.interest() {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
        let first_input = fds.len();
        if let Some(Interest::When(fd, flags)) = self.input.as_ref().map(Pump::interest) {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let count = loop {
            match poll(&mut fds, ended.then_some(&LAST_WORDS)) {
                Ok(count) => break count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).trying("wait for the container"),
            }
        };
        let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready {
            signal: is_ready(0),
            ended: !ended && is_ready(1),
            // Every output that is not done has its place.
            outputs: (first_output..first_input)
                .filter(|&index| is_ready(index))
                .map(|index| index - first_output)
                .collect(),
            input: is_ready(first_input),
            silent: count == 0,
        })
    }

    /// Passes input on. Returns whether it holds the key that interrupts, and
    /// the one to be interrupted is the first process and would not hear of it.
    fn advance_input(&mut self) -> bool {
        let mut typed = false;
        if let Some(input) = &mut self.input {
            input.advance(|bytes| typed = bytes.contains(&INTERRUPT_KEY));
        }
        let (true, true, Some(terminal)) = (typed, self.is_init, &self.terminal) else {
            return false;
        };
        // A program that reads each key itself turns this off.
        let interrupts = tcgetattr(terminal).is_ok_and(|settings| {
            settings.local_modes.contains(LocalModes::ISIG)
                && settings.special_codes[SpecialCodeIndex::VINTR] == INTERRUPT_KEY
        });
        let foreground = tcgetpgrp(terminal).map(|group| group.as_raw_nonzero().get());
        interrupts && foreground == Ok(self.pid) && !process::hears(self.pid, Signal::INT)
    }

    /// Passes one signal on. Returns it if the process was killed in its place.
    fn pass_on(
        &self,
        signal: Signal,
        interrupts: &mut u32,
        send: &mut impl FnMut(Signal) -> Result<()>,
    ) -> Result<Option<Signal>> {
        if signal.number() == WINCH
            && let Some(terminal) = &self.terminal
        {
            // The kernel tells the container when the size has changed.
            copy_size(io::stdin(), terminal.as_fd());
            return Ok(None);
        }
        if matches!(signal.number(), 2 | 15) {
            *interrupts += 1;
        }
        let unheard = self.is_init && signal.asks_to_end() && !process::hears(self.pid, signal);
        if unheard || *interrupts >= PATIENCE {
            send(Signal::KILL)?;
            return Ok(Some(signal));
        }
        send(signal)?;
        Ok(None)
    }
}

/// What has happened.
#[derive(Debug)]
struct Ready {
    signal: bool,
    ended: bool,
    outputs: Vec<usize>,
    input: bool,
    silent: bool,
}
