//! Names of containers, answered inside a sandbox's network.
//!
//! ```text
//! container ── 127.0.0.11:53 ──► whoever stays with it ─┬─ a name of the network: its address
//!                                (shim, or `rrun`)      └─ any other: what the host's resolver says
//! ```
//!
//! The helper opens the sockets in the sandbox's namespace and hands them out;
//! the thread that answers is on the host's side, so that a resolver on the host's
//! loopback device is reached, too. Nothing else is resident.
//!
//! Who is in the network is a directory with a file for each address, one name
//! a line. A file counts as long as its address is taken: a lock on the byte
//! with the address's number says so, and ends with whoever stays with that
//! container.

mod message;
mod names;
mod serve;

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::error::{Context as _, Error, Result};

/// Where a sandbox asks.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where it asks for names.
const PORT: u16 = 53;

/// Whose names are answered, and who knows the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// The domain that the names may end with: that of the network.
    pub domain: String,
    /// The directory with a file of names for each address.
    pub members: PathBuf,
    /// The file whose locks say which addresses are taken.
    pub addresses: PathBuf,
    /// The address whose lock is that of byte 0.
    pub base: Ipv4Addr,
    /// Who is asked for other names; empty is whoever the host asks.
    pub servers: Vec<IpAddr>,
    /// Whether others are asked at all.
    pub forwards: bool,
}

/// The sockets that questions arrive at.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens them in the calling process' network namespace.
    pub(crate) fn open() -> Result<Self> {
        let what = || "listen for questions about names";
        Ok(Self {
            udp: UdpSocket::bind((ADDRESS, PORT)).cannot(what)?,
            tcp: TcpListener::bind((ADDRESS, PORT)).cannot(what)?,
        })
    }
}

/// Answers from now on, in threads that end with the program. `sockets` are those
/// that [`Sockets::open`] has opened, in their order.
pub(crate) fn start(resolver: Resolver, sockets: Vec<OwnedFd>) -> Result<()> {
    let [udp, tcp] = <[OwnedFd; 2]>::try_from(sockets)
        .map_err(|_| Error::invalid("the helper opened no sockets for questions about names"))?;
    let sockets = Sockets { udp: udp.into(), tcp: tcp.into() };
    serve::start(resolver, sockets).cannot(|| "start answering questions about names")
}
