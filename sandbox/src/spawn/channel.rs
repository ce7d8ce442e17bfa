//! The socket between the caller and the helper.
//!
//! ```text
//! frame   = kind (1 byte) · length (4 bytes, little-endian) · payload
//! caller  → DESCRIPTOR? GIVEN* PLAN, later GO for each PAUSED
//! helper  → PAUSED* JOINED? SOCKET* DESCRIPTOR? WARNING* STUBS? then READY or FAILED
//!           after READY: end of file when the command was executed,
//!           FAILED when the kernel refused it
//! ```
//!
//! The helper's end is closed by its exec: the end of file *is* the good news.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::error::Error;
use crate::stubs::Stub;
use crate::wire::{Malformed, Wire, decode, encode, wire_enum};

/// The kind of the frame that says that the helper itself was not executed;
/// written by hand between clone and exec.
pub(crate) const EXEC_FAILED: u8 = 4;

/// More than any plan or report: an environment can be a few megabytes.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// What the two sides say.
#[derive(Debug)]
pub(crate) enum Message {
    /// To the helper: an encoded [`super::Plan`].
    Plan(Vec<u8>),
    /// Something that the user should know.
    Warning(String),
    /// The mount points that had to be made.
    Stubs(Vec<Stub>),
    /// Everything is set up.
    Ready,
    /// The helper could not be executed.
    ExecFailed(i32),
    /// The shim has started the container.
    Started {
        /// The first process of the container.
        pid: u32,
        /// When it started.
        start_time: u64,
    },
    /// The process that the helper forked to join a sandbox.
    Joined {
        /// Its process id.
        pid: u32,
        /// Its pidfd.
        pidfd: OwnedFd,
    },
    /// It ends here.
    Failed(Error),
    /// A descriptor comes with this: to the helper the pidfd of the process to
    /// join, from it the master of the pseudo-terminal.
    Descriptor(OwnedFd),
    /// A socket of the sandbox's network comes with this: first that for
    /// datagrams, then that for connections.
    Socket(OwnedFd),
    /// To the helper: one of the descriptors that a bundle needs.
    Given(OwnedFd),
    /// The helper waits until the caller has done something.
    Paused(Pause),
    /// To the helper: it is done, and this is the container's state.
    Go(String),
}

/// Why the helper waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Its ids are to be mapped.
    Unmapped,
    /// The clocks of its children are to be set: its own file for it is not
    /// its any more once it has other ids.
    Clocks,
    /// The namespaces are there, the root is not changed yet.
    Mounted,
}

wire_enum!(Pause { 0 => Unmapped, 1 => Mounted, 2 => Clocks });

/// An [`Error`] as it travels.
enum Failure {
    NotFound { command: String },
    NotExecutable { command: String, errno: i32 },
    Setup { what: String, errno: i32, text: String },
    Invalid { what: String },
    NotRunning { pid: u32 },
}

wire_enum!(Failure {
    0 => NotFound { command },
    1 => NotExecutable { command, errno },
    2 => Setup { what, errno, text },
    3 => Invalid { what },
    4 => NotRunning { pid },
});

impl Failure {
    fn of(error: &Error) -> Self {
        match error {
            Error::CommandNotFound { command } => Self::NotFound { command: command.clone() },
            Error::CommandNotExecutable { command, source } => Self::NotExecutable {
                command: command.clone(),
                errno: source.raw_os_error().unwrap_or(0),
            },
            Error::Setup { what, source } => Self::Setup {
                what: what.clone(),
                errno: source.raw_os_error().unwrap_or(0),
                text: source.to_string(),
            },
            Error::NotRunning { pid } => Self::NotRunning { pid: *pid },
            Error::Invalid { .. }
            | Error::LimitUnsupported { .. }
            | Error::HelperMissing { .. }
            | Error::HelperDied { .. }
            | Error::Rootless { .. } => Self::Invalid { what: error.to_string() },
        }
    }

    fn into_error(self) -> Error {
        match self {
            Self::NotFound { command } => Error::CommandNotFound { command },
            Self::NotExecutable { command, errno } => {
                Error::CommandNotExecutable { command, source: io::Error::from_raw_os_error(errno) }
            }
            Self::Setup { what, errno: 0, text } => {
                Error::Setup { what, source: io::Error::other(text) }
            }
            Self::Setup { what, errno, text: _ } => {
                Error::Setup { what, source: io::Error::from_raw_os_error(errno) }
            }
            Self::Invalid { what } => Error::Invalid { what },
            Self::NotRunning { pid } => Error::NotRunning { pid },
        }
    }
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    /// Returns two connected ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (left, right) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::new(left), Self::new(right)))
    }

    /// Wraps an end that was inherited.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, received: Vec::new(), descriptors: VecDeque::new() }
    }

    /// Gives this end a descriptor of its own from `first` on.
    pub(crate) fn move_above(&mut self, first: i32) -> io::Result<()> {
        self.socket = rustix::io::fcntl_dupfd_cloexec(&self.socket, first)?;
        Ok(())
    }

    /// Closes this end; the other end sees it when no copy is left.
    pub(crate) fn close(&mut self) {
        // A descriptor that nobody listens to takes its place.
        if let Ok((end, _)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
            self.socket = end;
        }
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &Message) -> io::Result<()> {
        let (kind, payload, descriptor) = match message {
            Message::Plan(bytes) => (1, bytes.clone(), None),
            Message::Warning(text) => (2, encode(text), None),
            Message::Stubs(stubs) => (3, encode(stubs), None),
            Message::ExecFailed(errno) => (EXEC_FAILED, encode(errno), None),
            Message::Ready => (5, Vec::new(), None),
            Message::Failed(error) => (6, encode(&Failure::of(error)), None),
            Message::Descriptor(fd) => (7, Vec::new(), Some(fd.as_fd())),
            Message::Socket(fd) => (10, Vec::new(), Some(fd.as_fd())),
            Message::Given(fd) => (11, Vec::new(), Some(fd.as_fd())),
            Message::Paused(pause) => (12, encode(pause), None),
            Message::Go(state) => (13, encode(state), None),
            Message::Joined { pid, pidfd } => (9, encode(pid), Some(pidfd.as_fd())),
            Message::Started { pid, start_time } => (8, encode(&(*pid, *start_time)), None),
        };
        let mut frame = Vec::with_capacity(payload.len() + 5);
        frame.push(kind);
        u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?.put(&mut frame);
        frame.extend_from_slice(&payload);
        self.send_all(&frame, descriptor)
    }

    fn send_all(&self, mut bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        while !bytes.is_empty() {
            let result = rustix::net::sendmsg(
                &self.socket,
                &[IoSlice::new(bytes)],
                &mut control,
                SendFlags::NOSIGNAL,
            );
            match result {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            control.clear();
        }
        Ok(())
    }

    /// Returns the next message, or none at the end of file.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.parse()? {
                return Ok(Some(message));
            }
            let mut buffer = [0; 16384];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let read = match rustix::net::recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                // The other side ended with bytes of ours unread.
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(error) => return Err(error.into()),
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.descriptors.extend(fds);
                }
            }
            if read == 0 {
                return if self.received.is_empty() { Ok(None) } else { Err(Malformed.into()) };
            }
            self.received.extend_from_slice(&buffer[..read]);
        }
    }

    /// Returns the descriptor that came with the message at hand: they arrive
    /// in the order of their messages.
    fn descriptor(&mut self) -> Result<OwnedFd, Malformed> {
        self.descriptors.pop_front().ok_or(Malformed)
    }

    fn parse(&mut self) -> Result<Option<Message>, Malformed> {
        let received = std::mem::take(&mut self.received);
        let message = self.parse_from(&received);
        self.received = received;
        if let Ok(Some((_, length))) = &message {
            self.received.drain(..*length);
        }
        message.map(|message| message.map(|(message, _)| message))
    }

    /// Returns the first message and its length.
    fn parse_from(&mut self, mut input: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
        if input.len() < 5 {
            return Ok(None);
        }
        let kind = u8::get(&mut input)?;
        let length = u32::get(&mut input)? as usize;
        if length > FRAME_BYTES_MAX {
            return Err(Malformed);
        }
        let Some(payload) = input.get(..length) else { return Ok(None) };
        let message = match kind {
            1 => Message::Plan(payload.to_vec()),
            2 => Message::Warning(decode(payload)?),
            3 => Message::Stubs(decode(payload)?),
            EXEC_FAILED => Message::ExecFailed(decode(payload)?),
            5 => Message::Ready,
            6 => Message::Failed(decode::<Failure>(payload)?.into_error()),
            7 => Message::Descriptor(self.descriptor()?),
            10 => Message::Socket(self.descriptor()?),
            11 => Message::Given(self.descriptor()?),
            12 => Message::Paused(decode(payload)?),
            13 => Message::Go(decode(payload)?),
            9 => Message::Joined { pid: decode(payload)?, pidfd: self.descriptor()? },
            8 => {
                let (pid, start_time) = decode(payload)?;
                Message::Started { pid, start_time }
            }
            _ => return Err(Malformed),
        };
        Ok(Some((message, 5 + length)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A filter travels as the bytes of its instructions.
impl Wire for crate::sys::SeccompInstruction {
    fn put(&self, out: &mut Vec<u8>) {
        self.code.put(out);
        out.extend_from_slice(&[self.jump_true, self.jump_false]);
        self.value.put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self {
            code: Wire::get(input)?,
            jump_true: Wire::get(input)?,
            jump_false: Wire::get(input)?,
            value: Wire::get(input)?,
        })
    }
}

impl Wire for Stub {
    fn put(&self, out: &mut Vec<u8>) {
        self.path.put(out);
        self.directory.put(out);
    }
    fn get(input: &mut &[u8]) -> Result<Self, Malformed> {
        Ok(Self { path: Wire::get(input)?, directory: Wire::get(input)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (left, mut right) = Channel::pair().unwrap();
        let big = vec![7; 40_000];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                left.send(&Message::Plan(big.clone())).unwrap();
                left.send(&Message::Descriptor(rustix::pipe::pipe().unwrap().0)).unwrap();
                let error = Error::Setup {
                    what: "mount /proc".into(),
                    source: io::Error::from_raw_os_error(1),
                };
                left.send(&Message::Failed(error)).unwrap();
                drop(left);
            });
            assert!(matches!(right.receive().unwrap(), Some(Message::Plan(bytes)) if bytes == big));
            assert!(matches!(right.receive().unwrap(), Some(Message::Descriptor(_))));
            let Some(Message::Failed(error)) = right.receive().unwrap() else {
                panic!("no failure")
            };
            assert_eq!(error.to_string(), "cannot mount /proc");
            assert!(right.receive().unwrap().is_none());
        });
    }

    #[test]
    fn a_frame_cut_short_is_an_error() {
        let (left, mut right) = Channel::pair().unwrap();
        rustix::io::write(&left, &[2, 9, 0, 0, 0, 1]).unwrap();
        drop(left);
        assert!(right.receive().is_err());
    }
}
