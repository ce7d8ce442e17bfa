//! Joining containers to a network, and who is in it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;

use sandbox::Link;
use sandbox::dns::Resolver;

use super::config::{NetworkConfig, mac_of, mac_text};
use super::device::allow_forwarding;
use super::endpoint::{Endpoint, Membership, PortBinding};
use super::rules::{Obstacle, Published, Rules, withdrawal};
use super::{DEFAULT, NetworkRequest, Networks, ports};
use crate::engine::containers::make_private_dir;
use crate::engine::error::{Error, IoContext as _, Result};
use crate::engine::id::{ContainerId, random_bytes};
use crate::engine::name::Name;
use crate::engine::options::PublishedPort;
use crate::engine::state::Status;
use crate::engine::timestamp::Timestamp;

/// The name of a container's first device.
const DEVICE: &str = "eth0";

/// A container that is to be joined to a network.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its identity.
    pub id: &'a ContainerId,
    /// Its directory.
    pub dir: &'a Path,
    /// The address it is to have; any otherwise.
    pub address: Option<Ipv4Addr>,
    /// Its names for others in the network, its own first.
    pub names: &'a [String],
    /// Whom it is to ask for other names; empty is whoever the host asks.
    pub servers: &'a [IpAddr],
    /// Its ports that are to be published.
    pub ports: &'a [PublishedPort],
}

/// A container's place in a network.
#[derive(Debug)]
pub struct Place {
    /// The device it is to have.
    pub link: Link,
    /// Who answers its questions about names.
    pub resolver: Option<Resolver>,
    /// What is held for it.
    pub membership: Membership,
    /// Where it is reached.
    pub endpoint: Endpoint,
}

/// A running container in a network.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// Its place.
    pub endpoint: Endpoint,
}

impl Networks {
    /// Gives a container that is about to start its place in a network.
    ///
    /// # Errors
    ///
    /// [`Error::NetworkUnknown`], [`Error::PortInUse`], [`Error::AddressInUse`],
    /// and when the kernel refuses. Nothing is held then.
    pub fn join(&self, name: &Name, guest: Guest<'_>, now: Timestamp) -> Result<Place> {
        let _guard = self.lock()?;
        let mut config = match self.load(name)? {
            Some(config) => config,
            None if name.as_str() == DEFAULT => self.make(name, NetworkRequest::default(), now)?,
            None => return Err(Error::NetworkUnknown { name: name.to_string() }),
        };
        // First, for it is what fails most often.
        let (address, lock) = self.take_address(&config, guest)?;
        let (published, sockets) =
            ports::reserve(guest.ports, address).map_err(|error| self.with_holder(error))?;
        let mut membership = Membership::default();
        membership.held.push(OwnedFd::from(lock));
        membership.held.extend(sockets);
        let mut rules = Rules::open()?;
        if rules.is_there()? {
            // What others have left is no reason not to start.
            if let Err(error) = self.sweep_rules(&mut rules) {
                tracing::warn!(%error, "ports of killed programs are still published");
            }
        } else {
            self.make_rules(&mut rules)?;
        }
        let bridge = self.ensure_bridge(&mut config, &mut rules)?;
        if !published.is_empty() {
            rules.publish(&published, guest.id.as_str())?;
            membership.withdrawal = withdrawal(&published);
        }
        membership.warnings.extend(allow_forwarding());
        match rules.obstacles() {
            Ok(obstacles) => membership.warnings.extend(obstacles.iter().map(Obstacle::warning)),
            Err(error) => tracing::warn!(%error, "other tables of the packet filter are not known"),
        }
        let endpoint = Endpoint {
            network: config.name.clone(),
            address,
            prefix: config.subnet.prefix(),
            gateway: config.gateway,
            mac: mac_text(mac_of(address)),
            ports: published.iter().map(binding).collect(),
        };
        endpoint.write(guest.dir)?;
        let resolver = self.resolver(&config, guest, address)?;
        let link = Link {
            name: DEVICE.to_owned(),
            host_name: host_name(guest.id)?,
            bridge,
            mac: mac_of(address),
            address,
            prefix: config.subnet.prefix(),
            gateway: (!config.internal).then_some(config.gateway),
            mtu: config.mtu,
        };
        Ok(Place { link, resolver, membership, endpoint })
    }

    /// Makes a container known to others by its names, and returns who tells it
    /// theirs. In [`DEFAULT`] there are none, as with docker.
    fn resolver(
        &self,
        config: &NetworkConfig,
        guest: Guest<'_>,
        address: Ipv4Addr,
    ) -> Result<Option<Resolver>> {
        if config.name.as_str() == DEFAULT {
            return Ok(None);
        }
        let dir = self.dir(&config.name);
        let members = dir.join("members");
        make_private_dir(&members)?;
        write_names(&members, address, guest.names)?;
        Ok(Some(Resolver {
            domain: config.name.to_string(),
            members,
            addresses: dir.join("addresses"),
            base: config.subnet.base(),
            servers: guest.servers.to_vec(),
            forwards: !config.internal,
        }))
    }

    /// Makes a running container known by another name instead of `old`.
    ///
    /// # Errors
    ///
    /// When the file with its names cannot be written.
    pub fn rename(&self, dir: &Path, old: &Name, new: &Name) -> Result<()> {
        let Some(endpoint) = Endpoint::read(dir)? else { return Ok(()) };
        let members = self.dir(&endpoint.network).join("members");
        let path = members.join(endpoint.address.to_string());
        let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
        let mut names: Vec<String> = text.lines().map(str::to_owned).collect();
        // Somebody else may have the address by now.
        if names.first().map(String::as_str) != Some(old.as_str()) {
            return Ok(());
        }
        names[0] = new.to_string();
        write_names(&members, endpoint.address, &names)
    }

    /// Takes the address that a container is to have: the one asked for, or the
    /// one it had before, or any.
    fn take_address(
        &self,
        config: &NetworkConfig,
        guest: Guest<'_>,
    ) -> Result<(Ipv4Addr, std::fs::File)> {
        let addresses = self.addresses(config);
        if let Some(address) = guest.address {
            if config.subnet.number(address).is_none() || address == config.gateway {
                return Err(Error::Invalid {
                    what: format!(
                        "{address} is not an address for containers of network {}, which has {}",
                        config.name, config.subnet
                    ),
                });
            }
            let lock = addresses.take(address)?;
            return Ok((address, lock.ok_or(Error::AddressInUse { address })?));
        }
        let earlier = Endpoint::read(guest.dir)?.filter(|earlier| earlier.network == config.name);
        if let Some(earlier) = earlier
            && let Some(lock) = addresses.take(earlier.address)?
        {
            return Ok((earlier.address, lock));
        }
        // Ids are random, so that those who start at once do not meet, and an
        // address that was given back is not given out again at once.
        let wish = u32::from_str_radix(&guest.id.short()[..8], 16).unwrap_or_default();
        addresses
            .take_any(wish)?
            .ok_or_else(|| Error::NetworkFull { name: config.name.clone(), subnet: config.subnet })
    }

    /// Makes the packet filter's table, with the ports of those that run: an
    /// administrator may have loaded all rules anew.
    fn make_rules(&self, rules: &mut Rules) -> Result<()> {
        let networks = self.list()?;
        let devices: Vec<String> = networks.iter().map(|network| network.device.clone()).collect();
        let mut ports = Vec::new();
        for network in &networks {
            for member in self.members(network)? {
                let id = member.id.to_string();
                ports.extend(member.endpoint.published().map(|port| (port, id.clone())));
            }
        }
        rules.make(&devices, &ports)
    }

    /// Returns the running containers that are in a network.
    ///
    /// # Errors
    ///
    /// When a container's files cannot be read.
    pub fn members(&self, network: &NetworkConfig) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for container in self.containers.list()? {
            if let Some(endpoint) = Endpoint::read(container.dir())?
                && endpoint.network == network.name
                && matches!(container.status()?, Status::Running(_))
            {
                let (id, name) = (container.config.id.clone(), container.config.name.clone());
                members.push(Member { id, name, endpoint });
            }
        }
        Ok(members)
    }

    /// Adds to the error about a port whether a container of ours has it.
    fn with_holder(&self, error: Error) -> Error {
        let Error::PortInUse { host_ip, ports, protocol, .. } = error else { return error };
        let is_it = |binding: &PortBinding| {
            (ports.0..=ports.1).contains(&binding.host_port)
                && binding.container.protocol == protocol
                && (host_ip == binding.host_ip
                    || host_ip.is_unspecified()
                    || binding.host_ip.is_unspecified())
        };
        let containers = self.containers.list().unwrap_or_default();
        let holder = containers.into_iter().find(|container| {
            let endpoint = Endpoint::read(container.dir()).ok().flatten();
            endpoint.is_some_and(|endpoint| endpoint.ports.iter().any(is_it))
                && matches!(container.status(), Ok(Status::Running(_)))
        });
        let holder = holder.map(|container| container.config.name.to_string());
        Error::PortInUse { host_ip, ports, protocol, holder }
    }
}

/// Returns a name for the host's end of a container's device: another one with
/// each start, for the last one may still be on its way out.
fn host_name(id: &ContainerId) -> Result<String> {
    let [one, two] = random_bytes()?;
    Ok(format!("rr-{}{one:02x}{two:02x}", &id.short()[..8]))
}

/// Writes the names of who has an address, all of them or none.
fn write_names(members: &Path, address: Ipv4Addr, names: &[String]) -> Result<()> {
    let path = members.join(address.to_string());
    let temporary = members.join(format!(".{address}"));
    fs::write(&temporary, names.join("\n") + "\n").doing("write", &temporary)?;
    fs::rename(&temporary, &path).doing("write", &path)
}

fn binding(port: &Published) -> PortBinding {
    PortBinding { container: port.container, host_ip: port.host_ip, host_port: port.host_port }
}
