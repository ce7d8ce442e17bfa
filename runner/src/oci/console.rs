//! Handing a terminal to an engine through its socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::error::{Error, IoContext as _, Result};

/// Connects to an engine's socket, before anything is started.
///
/// # Errors
///
/// When nobody listens there.
pub(super) fn connect(path: &Path) -> Result<UnixStream> {
    UnixStream::connect(path).doing("reach the console socket", path)
}

/// Sends the master of a pseudo-terminal, with the name that runc sends.
///
/// # Errors
///
/// When the engine has gone.
pub(super) fn send(socket: &UnixStream, master: &OwnedFd) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(|errno| Error::Io {
            action: "send the terminal through",
            path: "the console socket".into(),
            source: errno.into(),
        })
}
