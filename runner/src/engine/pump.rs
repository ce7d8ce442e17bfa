//! Bytes between the caller and a container, without ever waiting for one
//! side while the other has something to say.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::PollFlags;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};

/// How much is read at once: what a pipe holds.
const BLOCK: usize = 64 << 10;

/// How much may be written to a descriptor that others share and that must
/// therefore stay blocking: a pipe that polls as writable takes as much.
const SHARED_BLOCK: usize = 4096;

/// One direction of a connection: what is read from one descriptor is written
/// to the other.
#[derive(Debug)]
pub struct Pump {
    from: Option<File>,
    to: Option<File>,
    /// What is read and not yet written.
    buffer: Vec<u8>,
    written: usize,
    /// How much is written at once.
    chunk: usize,
}

/// What a pump wants to be told about.
#[derive(Debug)]
pub enum Interest<'a> {
    /// When the descriptor can be read or written, as the flags say.
    When(BorrowedFd<'a>, PollFlags),
    /// Nothing more: all is done.
    Done,
}

impl Pump {
    /// Connects two descriptors. `to_shared` says that others write to `to`
    /// as well, such as the caller's shell.
    ///
    /// # Errors
    ///
    /// When the descriptors cannot be examined.
    pub fn new(from: File, to: File, to_shared: bool) -> io::Result<Self> {
        let is_file = FileType::from_raw_mode(fstat(&to)?.st_mode) == FileType::RegularFile;
        let chunk = if to_shared && !is_file { SHARED_BLOCK } else { BLOCK };
        if !to_shared {
            fcntl_setfl(&to, fcntl_getfl(&to)? | OFlags::NONBLOCK)?;
        }
        let buffer = Vec::new();
        Ok(Self { from: Some(from), to: Some(to), buffer, written: 0, chunk })
    }

    /// Returns what to poll for.
    pub fn interest(&self) -> Interest<'_> {
        match (&self.from, &self.to) {
            (_, Some(to)) if !self.buffer.is_empty() => Interest::When(to.as_fd(), PollFlags::OUT),
            (Some(from), Some(_)) => Interest::When(from.as_fd(), PollFlags::IN),
            _ => Interest::Done,
        }
    }

    /// Tells whether it has something that is still to be written.
    pub fn is_full(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Does what was polled for. `seen` gets what has been read.
    ///
    /// When either side has gone, both are closed: the other one then notices
    /// as if they were one pipe.
    pub fn advance(&mut self, mut seen: impl FnMut(&[u8])) {
        if self.buffer.is_empty() {
            self.fill();
            if !self.buffer.is_empty() {
                seen(&self.buffer);
            }
        } else {
            self.drain();
        }
    }

    fn fill(&mut self) {
        let Some(from) = &mut self.from else { return };
        self.buffer.resize(BLOCK, 0);
        let read = from.read(&mut self.buffer);
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        self.written = 0;
        match read {
            Ok(1..) => {}
            Err(error) if is_not_now(&error) => {}
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(_) => self.close(),
        }
    }

    fn drain(&mut self) {
        let Some(to) = &mut self.to else { return };
        let rest = &self.buffer[self.written..];
        match to.write(&rest[..rest.len().min(self.chunk)]) {
            Ok(written) => self.written += written,
            Err(error) if is_not_now(&error) => return,
            // Nobody reads any more.
            Err(_) => return self.close(),
        }
        if self.written == self.buffer.len() {
            self.buffer.clear();
            self.written = 0;
        }
    }

    /// Closes both sides.
    pub fn close(&mut self) {
        self.from = None;
        self.to = None;
        self.buffer.clear();
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn pipe() -> (File, File) {
        let (read, write) = std::io::pipe().unwrap();
        (OwnedFd::from(read).into(), OwnedFd::from(write).into())
    }

    #[test]
    fn bytes_go_through_and_the_end_as_well() {
        let ((source, mut source_in), (mut sink, sink_in)) = (pipe(), pipe());
        let mut pump = Pump::new(source, sink_in, false).unwrap();
        let mut seen = Vec::new();
        let mut step = |pump: &mut Pump| {
            pump.advance(|bytes| seen.extend_from_slice(bytes));
        };
        source_in.write_all(b"hello").unwrap();
        step(&mut pump);
        assert!(matches!(pump.interest(), Interest::When(_, PollFlags::OUT)));
        step(&mut pump);
        assert!(matches!(pump.interest(), Interest::When(_, PollFlags::IN)));
        drop(source_in);
        step(&mut pump);
        assert!(matches!(pump.interest(), Interest::Done));
        let mut text = String::new();
        sink.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), seen.as_slice()), ("hello", &b"hello"[..]));
    }

    #[test]
    fn a_reader_that_has_gone_closes_the_writer() {
        let ((source, mut source_in), (sink, sink_in)) = (pipe(), pipe());
        let mut pump = Pump::new(source, sink_in, true).unwrap();
        drop(sink);
        source_in.write_all(b"x").unwrap();
        pump.advance(|_| {});
        pump.advance(|_| {});
        assert!(matches!(pump.interest(), Interest::Done));
        assert_eq!(source_in.write(b"y").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_full_pipe_holds_nothing_up() {
        let ((source, mut source_in), (_sink, sink_in)) = (pipe(), pipe());
        let mut pump = Pump::new(source, sink_in, false).unwrap();
        // 64 KiB fit into the pipe; of the next 64 KiB nothing does.
        for _ in 0..2 {
            source_in.write_all(&[b'x'; BLOCK]).unwrap();
            pump.advance(|_| {});
            pump.advance(|_| {});
        }
        assert!(matches!(pump.interest(), Interest::When(_, PollFlags::OUT)));
    }
}
