//! The devices of a sandbox that is joined to bridges of the host.
//!
//! A pair of virtual devices is made in one message: one end is born in the
//! sandbox's namespace, the other one on the bridge. Nobody ever removes them: they end with the namespace, which the kernel takes down
//! behind everybody's back. To remove a device by name takes it 20 ms.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::{Messages, Socket, flags};
use crate::error::{Context as _, Result};
use crate::spec::Link;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const AF_INET: u8 = 2;

/// Makes the devices of the sandbox whose first process is `pid`, which may
/// not have executed anything yet.
pub(crate) fn connect(links: &[Link], pid: u32) -> Result<()> {
    let mut socket = Socket::route().cannot(|| "open a netlink socket")?;
    for link in links {
        socket
            .request(&pair(link, pid))
            .cannot(|| format!("make the network device {}", link.name))?;
    }
    Ok(())
}

/// Returns the message that makes a pair of devices.
fn pair(link: &Link, pid: u32) -> Messages {
    let mut messages = Messages::new();
    let flags = flags::CREATE | flags::EXCLUSIVE | flags::ACK;
    messages.message(NEW_LINK, flags, &header(0, libc::IFF_UP), |message| {
        message.text(libc::IFLA_IFNAME, &link.host_name);
        message.attribute(libc::IFLA_MTU, &link.mtu.to_ne_bytes());
        message.attribute(libc::IFLA_MASTER, &link.bridge.to_ne_bytes());
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                // VETH_INFO_PEER
                data.nested(1, |peer| {
                    // A device without the other one cannot be up.
                    peer.raw(&header(0, 0));
                    peer.text(libc::IFLA_IFNAME, &link.name);
                    peer.attribute(libc::IFLA_ADDRESS, &link.mac);
                    peer.attribute(libc::IFLA_MTU, &link.mtu.to_ne_bytes());
                    peer.attribute(libc::IFLA_NET_NS_PID, &pid.to_ne_bytes());
                });
            });
        });
    });
    messages
}

/// Gives the devices of the calling process' namespace their addresses and
/// routes.
pub(crate) fn configure(links: &[Link]) -> Result<()> {
    if links.is_empty() {
        return Ok(());
    }
    let any = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .cannot(|| "open a socket")?;
    let mut socket = Socket::route().cannot(|| "open a netlink socket")?;
    for link in links {
        let index = rustix::net::netdevice::name_to_index(&any, &link.name)
            .cannot(|| format!("find the network device {}", link.name))?;
        let what = || format!("give the network device {} its address", link.name);
        socket.request(&address(link, index)).cannot(what)?;
        let mut up = Messages::new();
        up.message(NEW_LINK, flags::ACK, &header(index, libc::IFF_UP), |_| {});
        let what = || format!("switch the network device {} on", link.name);
        socket.request(&up).cannot(what)?;
        if let Some(gateway) = link.gateway {
            match socket.request(&default_route(gateway, index)) {
                // The first network leads out.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.cannot(|| format!("route through {gateway}"))?,
            }
        }
    }
    Ok(())
}

fn address(link: &Link, index: u32) -> Messages {
    let mut messages = Messages::new();
    let mut header = vec![AF_INET, link.prefix, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    messages.message(NEW_ADDRESS, flags::CREATE | flags::ACK, &header, |message| {
        message.attribute(libc::IFA_LOCAL, &link.address.octets());
        message.attribute(libc::IFA_ADDRESS, &link.address.octets());
    });
    messages
}

fn default_route(gateway: Ipv4Addr, index: u32) -> Messages {
    let mut messages = Messages::new();
    // Family, lengths of destination and source, type of service, table,
    // protocol `boot`, scope `universe`, type `unicast`, flags.
    let header = [AF_INET, 0, 0, 0, libc::RT_TABLE_MAIN, 3, 0, 1, 0, 0, 0, 0];
    let flags = flags::CREATE | flags::EXCLUSIVE | flags::ACK;
    messages.message(NEW_ROUTE, flags, &header, |message| {
        message.attribute(libc::RTA_GATEWAY, &gateway.octets());
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
    });
    messages
}

/// Returns an `ifinfomsg` that sets these flags.
fn header(index: u32, flags: i32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}
