//! The socket, and what comes out of it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::messages::{HEADER_BYTES, Messages, read_u16, read_u32};

/// As much as the kernel puts into one part of a dump.
const BUFFER_BYTES: usize = 64 << 10;

/// An acknowledgement or an error.
const ERROR: u16 = 2;

/// The end of a dump.
const DONE: u16 = 3;

/// A connection to one of the kernel's families.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its kind.
    pub kind: u16,
    /// The family's header and the attributes.
    pub body: Vec<u8>,
}

impl Socket {
    /// Connects to devices, addresses and routes, rtnetlink(7), in the network
    /// namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// Connects to packet filters.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(rustix::net::netlink::NETFILTER))
    }

    /// Without a family it is rtnetlink, whose number is 0.
    fn open(family: Option<Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            family,
        )?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Has messages carried out, of which the last one alone asks for an
    /// acknowledgement; the others are heard of when they fail.
    ///
    /// # Errors
    ///
    /// The kernel's first objection.
    pub fn request(&mut self, messages: &Messages) -> io::Result<()> {
        self.send(messages)?;
        loop {
            for (kind, body) in self.receive()? {
                if kind == ERROR {
                    return outcome(&body);
                }
            }
        }
    }

    /// Returns the answer to one message that asks about one thing.
    ///
    /// # Errors
    ///
    /// The kernel's objection.
    pub fn get(&mut self, messages: &Messages) -> io::Result<Reply> {
        self.send(messages)?;
        loop {
            for (kind, body) in self.receive()? {
                if kind != ERROR {
                    return Ok(Reply { kind, body });
                }
                outcome(&body)?;
            }
        }
    }

    /// Returns the answers to one message that asks for all of a kind.
    ///
    /// # Errors
    ///
    /// The kernel's objection.
    pub fn dump(&mut self, messages: &Messages) -> io::Result<Vec<Reply>> {
        self.send(messages)?;
        let mut replies = Vec::new();
        loop {
            for (kind, body) in self.receive()? {
                match kind {
                    DONE => return Ok(replies),
                    ERROR => outcome(&body)?,
                    _ => replies.push(Reply { kind, body }),
                }
            }
        }
    }

    /// Lets go of the socket without waiting for the kernel.
    ///
    /// To close one after something was taken out of the packet filter takes
    /// the kernel 10 ms and more, also when a program ends. So a small process
    /// holds it until there is nothing left to wait for.
    pub fn leave(self) {
        if let Err(error) = crate::spawn::linger(self.fd.as_fd()) {
            tracing::debug!(%error, "a socket is closed at once");
        }
    }

    fn send(&mut self, messages: &Messages) -> io::Result<()> {
        self.sequence += 1;
        let bytes = messages.with_sequence(self.sequence);
        loop {
            match rustix::net::send(&self.fd, &bytes, SendFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                // A datagram is sent as a whole.
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Receives messages that answer the last request; may be none.
    fn receive(&mut self) -> io::Result<Vec<(u16, Vec<u8>)>> {
        let (length, _) = loop {
            match rustix::net::recv(&self.fd, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let mut rest = &self.buffer[..length];
        let mut messages = Vec::new();
        while let (Some(length), Some(kind), Some(sequence)) =
            (read_u32(rest, 0), read_u16(rest, 4), read_u32(rest, 8))
        {
            let length = length as usize;
            let Some(body) = rest.get(HEADER_BYTES..length) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            // What a request that failed half-way still had to say is not meant.
            if sequence == self.sequence {
                messages.push((kind, body.to_vec()));
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// Reads the body of an acknowledgement, which is an error number below zero.
fn outcome(body: &[u8]) -> io::Result<()> {
    match read_u32(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}
