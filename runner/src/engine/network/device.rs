//! The host's side: bridges, routes and switches of the kernel.

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use sandbox::netlink::{Attributes, Messages, Socket, flags};

use super::config::NetworkConfig;
use super::subnet::Subnet;
use crate::engine::error::{IoContext as _, Result};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ROUTE: u16 = 26;

const AF_INET: u8 = 2;

/// The bytes of an `ifinfomsg`, which is in front of a device's attributes.
const LINK_HEADER_BYTES: usize = 16;

/// The bytes of an `rtmsg`, which is in front of a route's attributes.
const ROUTE_HEADER_BYTES: usize = 12;

/// The largest packet where no way leads out that could say.
const MTU_DEFAULT: u32 = 1500;

/// A device of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) index: u32,
    pub(super) is_up: bool,
    pub(super) mac: Vec<u8>,
    pub(super) mtu: u32,
}

/// What a new network must know of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The addresses that routes lead to.
    pub(super) taken: Vec<Subnet>,
    /// The size of the largest packet on the way out.
    pub(super) mtu: u32,
}

/// The devices of the network namespace that the program is in.
#[derive(Debug)]
pub(super) struct Devices {
    socket: Socket,
}

impl Devices {
    pub(super) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::route().trying("open a netlink socket")? })
    }

    /// Returns the device with this name.
    pub(super) fn find(&mut self, name: &str) -> Result<Option<Device>> {
        self.get(0, Some(name)).trying("look for a network device")
    }

    fn get(&mut self, index: u32, name: Option<&str>) -> io::Result<Option<Device>> {
        let mut messages = Messages::new();
        messages.message(GET_LINK, 0, &link_header(index, 0), |message| {
            if let Some(name) = name {
                message.text(libc::IFLA_IFNAME, name);
            }
        });
        match self.socket.get(&messages) {
            Ok(reply) => Ok(device(&reply.body)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the index of a network's bridge if it is there and up.
    ///
    /// It is up only when it has its address: one that is down was cut short.
    pub(super) fn find_bridge(&mut self, config: &NetworkConfig) -> Result<Option<u32>> {
        let device = self.find(&config.device)?;
        Ok(device.filter(|device| device.mac == config.mac() && device.is_up).map(|it| it.index))
    }

    /// Makes the bridge of a network; `None` if something else has the name of
    /// its device.
    pub(super) fn make_bridge(&mut self, config: &NetworkConfig) -> Result<Option<u32>> {
        let name = &config.device;
        let device = match self.find(name)? {
            Some(device) if device.mac != config.mac() => return Ok(None),
            Some(device) => device,
            None => {
                match self.socket.request(&new_bridge(config)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                    made => made.trying("create a bridge")?,
                }
                self.find(name)?.unwrap_or_default()
            }
        };
        self.socket.request(&address(config, device.index)).trying("give a bridge its address")?;
        // What is sent from this machine to a port published on 127.0.0.1 goes
        // through the bridge; nothing on the bridge gets there (see `rules`).
        let switches = [("ipv4", "route_localnet", "1"), ("ipv6", "disable_ipv6", "1")];
        for (family, switch, value) in switches {
            let path = format!("/proc/sys/net/{family}/conf/{name}/{switch}");
            if let Err(error) = fs::write(&path, value) {
                tracing::warn!(%path, %error, "a switch of the kernel stays as it is");
            }
        }
        let mut up = Messages::new();
        let header = link_header(device.index, libc::IFF_UP.cast_unsigned());
        up.message(NEW_LINK, flags::ACK, &header, |_| {});
        self.socket.request(&up).trying("switch a bridge on")?;
        Ok(Some(device.index))
    }

    /// Removes the bridge of a network, if it is there.
    pub(super) fn remove_bridge(&mut self, config: &NetworkConfig) -> Result<()> {
        let Some(device) = self.find(&config.device)? else { return Ok(()) };
        if device.mac != config.mac() {
            return Ok(());
        }
        let mut messages = Messages::new();
        messages.message(DELETE_LINK, flags::ACK, &link_header(device.index, 0), |_| {});
        self.socket.request(&messages).trying("remove a bridge")
    }

    /// Looks at the routes of the host.
    pub(super) fn surroundings(&mut self) -> Result<Surroundings> {
        let mut messages = Messages::new();
        let mut header = [0; ROUTE_HEADER_BYTES];
        header[0] = AF_INET;
        messages.message(GET_ROUTE, flags::DUMP, &header, |_| {});
        let replies = self.socket.dump(&messages).trying("list the routes")?;
        let routes: Vec<Route> = replies.iter().filter_map(|reply| route(&reply.body)).collect();
        let taken = routes.iter().filter(|route| route.to.prefix() > 0).map(|route| route.to);
        let way_out = routes
            .iter()
            .filter(|route| route.to.prefix() == 0 && route.is_main)
            .min_by_key(|route| route.metric);
        let mtu = match way_out {
            Some(route) => self.get(route.device, None).trying("look at a network device")?,
            None => None,
        };
        let mtu = mtu.map_or(MTU_DEFAULT, |device| device.mtu);
        Ok(Surroundings { taken: taken.collect(), mtu })
    }
}

/// Lets the kernel pass packets on between devices. Returns what the user
/// should know if it cannot be had.
pub(super) fn allow_forwarding() -> Option<String> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    if fs::read_to_string(path).is_ok_and(|text| text.trim() == "1") {
        return None;
    }
    let error = fs::write(path, "1").err()?;
    Some(format!(
        "the container reaches nothing outside: net.ipv4.ip_forward cannot be switched on ({error})"
    ))
}

fn new_bridge(config: &NetworkConfig) -> Messages {
    let mut messages = Messages::new();
    let flags = flags::CREATE | flags::EXCLUSIVE | flags::ACK;
    messages.message(NEW_LINK, flags, &link_header(0, 0), |message| {
        message.text(libc::IFLA_IFNAME, &config.device);
        // Otherwise it would change with the containers on it.
        message.attribute(libc::IFLA_ADDRESS, &config.mac());
        message.attribute(libc::IFLA_MTU, &config.mtu.to_ne_bytes());
        message.nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
    });
    messages
}

fn address(config: &NetworkConfig, index: u32) -> Messages {
    let subnet = config.subnet;
    let mut header = vec![AF_INET, subnet.prefix(), 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    let mut messages = Messages::new();
    let flags = flags::CREATE | flags::REPLACE | flags::ACK;
    messages.message(NEW_ADDRESS, flags, &header, |message| {
        message.attribute(libc::IFA_LOCAL, &config.gateway.octets());
        message.attribute(libc::IFA_ADDRESS, &config.gateway.octets());
        let broadcast = subnet.address(subnet.last_number() + 1);
        message.attribute(libc::IFA_BROADCAST, &broadcast.octets());
    });
    messages
}

/// Returns an `ifinfomsg` that sets these flags.
fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// Reads a message about a device.
fn device(body: &[u8]) -> Option<Device> {
    let attributes = Attributes::of(body.get(LINK_HEADER_BYTES..)?);
    let flags = number(body, 8)?;
    Some(Device {
        index: number(body, 4)?,
        is_up: flags & libc::IFF_UP.cast_unsigned() != 0,
        mac: attributes.clone().find(libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
        mtu: attributes.u32(libc::IFLA_MTU).unwrap_or(MTU_DEFAULT),
    })
}

/// A route, as far as it matters here.
struct Route {
    to: Subnet,
    is_main: bool,
    device: u32,
    metric: u32,
}

/// Reads a message about a route.
fn route(body: &[u8]) -> Option<Route> {
    let attributes = Attributes::of(body.get(ROUTE_HEADER_BYTES..)?);
    let to = match attributes.clone().find(libc::RTA_DST) {
        Some(bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    Some(Route {
        to: Subnet::around(to, body[1])?,
        is_main: body[4] == libc::RT_TABLE_MAIN,
        device: attributes.clone().u32(libc::RTA_OIF).unwrap_or_default(),
        metric: attributes.u32(libc::RTA_PRIORITY).unwrap_or_default(),
    })
}

fn number(body: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
}
