//! Joining a container to its network when it starts.

use sandbox::{Network, Spec};

use super::config::Config;
use super::containers::Container;
use super::error::{Error, Result};
use super::network::{Guest, Membership, Place, resolv_conf};
use super::options::NetworkMode;
use super::state::Status;
use super::{Engine, files};

impl Engine {
    /// Gives a container that is about to start its place in its network, and
    /// `spec` what it needs for it. The place is the container's as long as the
    /// value is kept.
    ///
    /// # Errors
    ///
    /// When there is no such network, and when an address or a port is in use.
    pub(crate) fn connect(&self, container: &Container, spec: &mut Spec) -> Result<Membership> {
        let config = &container.config;
        match &config.network {
            NetworkMode::Host | NetworkMode::None => Ok(Membership::default()),
            NetworkMode::Container(other) => {
                let none = || Error::NetworkOfNone { container: other.clone() };
                let Status::Running(running) = self.containers().find(other)?.status()? else {
                    return Err(none());
                };
                spec.network = Network::Shared {
                    pid: u32::try_from(running.pid).map_err(|_| none())?,
                    start_time: running.start_time,
                };
                Ok(Membership::default())
            }
            NetworkMode::Named(name) => {
                let guest = Guest {
                    id: &config.id,
                    dir: container.dir(),
                    address: config.place.address,
                    names: &names(config),
                    servers: &config.place.resolver.servers,
                    ports: &config.place.published,
                };
                let Place { link, resolver, mut membership, endpoint } =
                    self.networks().join(name, guest, (self.clock)())?;
                files::write_hosts(container.dir(), config, Some(&endpoint))?;
                let (_, warning) = resolv_conf(&config.network, &config.place.resolver);
                membership.warnings.extend(warning);
                spec.network =
                    Network::Bridged { links: vec![link], resolver: resolver.map(Box::new) };
                Ok(membership)
            }
        }
    }
}

/// Returns the names by which others in its network find a container, its own
/// first.
fn names(config: &Config) -> Vec<String> {
    let mut names = vec![config.name.to_string(), config.id.short().to_owned()];
    for name in config.place.aliases.iter().chain([&config.hostname]) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
