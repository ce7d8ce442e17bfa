//! A container's place in a network, from its start to its end: the contents
//! of its file `endpoint.json`.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::libc;
use sandbox::netlink::{Messages, Socket};
use serde::{Deserialize, Serialize};

use super::rules::Published;
use crate::engine::error::Result;
use crate::engine::name::Name;
use crate::engine::options::ContainerPort;
use crate::engine::state::{read_json, write_json};

/// The file in the container's directory.
const FILE: &str = "endpoint.json";

/// Where a container is reached. It counts as long as the container runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The network.
    pub network: Name,
    /// Its address.
    pub address: Ipv4Addr,
    /// How many leading bits of the address are the network's.
    pub prefix: u8,
    /// The address of the host.
    pub gateway: Ipv4Addr,
    /// Its hardware address.
    pub mac: String,
    /// The published ports.
    pub ports: Vec<PortBinding>,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port of the container.
    pub container: ContainerPort,
    /// The address of the host; all of them if it is 0.0.0.0.
    pub host_ip: Ipv4Addr,
    /// The port of the host.
    pub host_port: u16,
}

impl Endpoint {
    /// Reads that of the container in `dir`; none if it has none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        read_json(&dir.join(FILE))
    }

    /// Puts it into the container's directory.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(FILE), self)
    }

    /// Returns the published ports as the packet filter has them.
    pub(super) fn published(&self) -> impl Iterator<Item = Published> {
        self.ports.iter().map(|port| Published {
            host_ip: port.host_ip,
            host_port: port.host_port,
            address: self.address,
            container: port.container,
        })
    }
}

/// What a running container holds of a network. Whoever stays with the
/// container keeps it; dropping it gives all of it back.
#[derive(Debug, Default)]
pub struct Membership {
    /// Its address and ports: free when they are closed.
    pub(super) held: Vec<OwnedFd>,
    /// What takes its ports out of the packet filter.
    pub(super) withdrawal: Messages,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Membership {
    /// Returns it in parts, for a shim: what is to be kept open, and what is to
    /// be said in the end. It is the shim's when that has them.
    ///
    /// # Errors
    ///
    /// When no more descriptors are to be had.
    pub fn share(&self) -> std::io::Result<(Vec<OwnedFd>, Messages)> {
        let held = self.held.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>()?;
        Ok((held, self.withdrawal.clone()))
    }

    /// Leaves it to the shim.
    pub fn leave(mut self) {
        self.withdrawal = Messages::new();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.withdrawal.is_empty() {
            return;
        }
        let said = Socket::netfilter().and_then(|mut socket| {
            let said = socket.request(&self.withdrawal);
            // The kernel is not waited for, although this program may end now.
            socket.leave();
            said
        });
        match said {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                tracing::warn!(%error, "published ports are left to the next command");
            }
            _ => {}
        }
    }
}
