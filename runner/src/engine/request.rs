//! From what the user asks for, and what the image says by itself, to what a
//! container is. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use oci::{Digest, ImageConfig};

use super::config::{
    Config, ImageIdentity, LimitsConfig, PlaceConfig, ProcessConfig, SecurityConfig, VERSION,
};
use super::error::{Error, Result};
use super::id::ContainerId;
use super::name::Name;
use super::options::{
    ContainerPort, EnvEntry, HealthRequest, MountRequest, NetworkMode, PublishedPort,
    RestartPolicy, Signal, inside, merge_environment,
};
use super::timestamp::Timestamp;

/// Where programs are looked for if the image does not say.
pub(crate) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container as its user asks for it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The image, as typed.
    pub image: String,
    /// The command and its arguments; empty takes the image's.
    pub args: Vec<String>,
    /// What runs instead of the image's entrypoint; empty text is none at all.
    pub entrypoint: Option<String>,
    /// Variables over the image's; those without a value are taken from
    /// `caller_env`.
    pub env: Vec<EnvEntry>,
    /// The working directory.
    pub workdir: Option<String>,
    /// The user.
    pub user: Option<String>,
    /// The host name; the short id otherwise.
    pub hostname: Option<String>,
    /// Whether it gets a terminal.
    pub terminal: bool,
    /// Whether its input is kept open.
    pub interactive: bool,
    /// Whether it runs behind the caller's back.
    pub detach: bool,
    /// Whether it goes away when it ends.
    pub remove: bool,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How it is checked.
    pub health: HealthRequest,
    /// Whether a small init process stands above it.
    pub init: bool,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// The network it sees.
    pub network: NetworkMode,
    /// Its place there.
    pub place: PlaceConfig,
    /// Whether every port that is exposed is published somewhere.
    pub publish_all: bool,
    /// What is put into its tree.
    pub mounts: Vec<MountRequest>,
    /// What it may use up.
    pub limits: LimitsConfig,
    /// What it may do.
    pub security: SecurityConfig,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What `stop` sends it.
    pub stop_signal: Option<Signal>,
}

/// What is decided outside of the request.
#[derive(Debug)]
pub struct Identity {
    /// The container's id.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// The image id.
    pub image: Digest,
    /// The moment.
    pub now: Timestamp,
}

impl Request {
    /// Fills in what the image says, and gives the container as it will be.
    ///
    /// `caller_env` looks up a variable of the caller.
    ///
    /// # Errors
    ///
    /// [`Error::NoCommand`], and [`Error::Invalid`] for values that the
    /// request or the image carry and that cannot be used.
    pub fn settle(
        self,
        image: &ImageConfig,
        identity: Identity,
        caller_env: impl Fn(&str) -> Option<String>,
    ) -> Result<Config> {
        let args = self.command(image)?;
        let hostname = match &self.hostname {
            Some(hostname) => check_hostname(hostname)?,
            None => identity.id.short().to_owned(),
        };
        let env = self.environment(image, &hostname, caller_env);
        let cwd = absolute_workdir(self.workdir.as_deref(), image.config.working_dir.as_deref())?;
        let stop_signal = match (self.stop_signal, image.config.stop_signal.as_deref()) {
            (Some(signal), _) => signal,
            (None, None) => Signal::TERM,
            (None, Some(text)) => text.parse().map_err(|reason| Error::Invalid {
                what: format!("the image's stop signal cannot be used: {reason}"),
            })?,
        };
        let health = self.health.settle(image).map_err(|what| Error::Invalid { what })?;
        let mounts = all_mounts(self.mounts, image)?;
        let place = settle_place(self.place, self.publish_all, &self.network, image)?;
        let mut labels: BTreeMap<String, String> = image.config.labels.clone();
        labels.extend(self.labels);
        Ok(Config {
            version: VERSION,
            id: identity.id,
            name: identity.name,
            created: identity.now,
            image: ImageIdentity {
                reference: self.image,
                id: identity.image,
                layers: image.rootfs_diff_ids.clone(),
            },
            process: ProcessConfig {
                args,
                env,
                cwd,
                user: self.user.or_else(|| image.config.user.clone()).unwrap_or_default(),
                terminal: self.terminal,
                init: self.init,
            },
            open_stdin: self.interactive,
            detached: self.detach,
            remove: self.remove,
            restart: self.restart,
            health,
            hostname,
            network: self.network,
            place,
            mounts,
            read_only: self.read_only,
            limits: self.limits,
            security: self.security,
            labels,
            stop_signal,
        })
    }

    /// Returns what is run: docker's rules for entrypoint and command.
    fn command(&self, image: &ImageConfig) -> Result<Vec<String>> {
        let mut command: Vec<String> = Vec::new();
        match self.entrypoint.as_deref() {
            // Another entrypoint leaves the image's command without meaning.
            Some("") => command.extend(self.args.iter().cloned()),
            Some(entrypoint) => {
                command.push(entrypoint.to_owned());
                command.extend(self.args.iter().cloned());
            }
            None => {
                command.extend(image.config.entrypoint.iter().flatten().cloned());
                if self.args.is_empty() {
                    command.extend(image.config.cmd.iter().flatten().cloned());
                } else {
                    command.extend(self.args.iter().cloned());
                }
            }
        }
        match command.first() {
            Some(program) if !program.is_empty() => Ok(command),
            _ => Err(Error::NoCommand { reference: self.image.clone() }),
        }
    }

    fn environment(
        &self,
        image: &ImageConfig,
        hostname: &str,
        caller_env: impl Fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let mut given = Vec::new();
        for entry in &self.env {
            let value = entry.value.clone().or_else(|| caller_env(&entry.key));
            // A variable the caller does not have is left out, as in docker.
            if let Some(value) = value {
                given.push(format!("{}={value}", entry.key));
            }
        }
        let hostname = format!("HOSTNAME={hostname}");
        let mut base = vec![DEFAULT_PATH, &hostname];
        if self.terminal {
            base.push("TERM=xterm");
        }
        let image_env = image.config.env.iter().map(String::as_str);
        merge_environment(base.into_iter().chain(image_env).chain(given.iter().map(String::as_str)))
    }
}

/// Adds what the image exposes, and leaves out what means nothing in this
/// network.
fn settle_place(
    mut place: PlaceConfig,
    publish_all: bool,
    network: &NetworkMode,
    image: &ImageConfig,
) -> Result<PlaceConfig> {
    let invalid = |what: &str| Err(Error::Invalid { what: what.to_owned() });
    let publishes = publish_all || !place.published.is_empty();
    let is_bridged = matches!(network, NetworkMode::Named(_));
    if matches!(network, NetworkMode::Container(_)) && publishes {
        return invalid(
            "ports cannot be published for a container in another one's network: publish them for that one",
        );
    }
    if place.address.is_some() && !is_bridged {
        return invalid("an address can only be given in a network with a bridge");
    }
    let mut exposed: BTreeSet<ContainerPort> = place.exposed.into_iter().collect();
    // What cannot be published, such as a port of sctp, is only a remark.
    exposed.extend(
        image.config.exposed_ports.iter().filter_map(|port| port.parse::<ContainerPort>().ok()),
    );
    exposed.extend(place.published.iter().map(|port| port.container));
    place.exposed = exposed.into_iter().collect();
    if publish_all {
        let is_published =
            |port: &ContainerPort| place.published.iter().any(|it| it.container == *port);
        let others: Vec<_> =
            place.exposed.iter().copied().filter(|port| !is_published(port)).collect();
        place.published.extend(others.into_iter().map(|container| PublishedPort {
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_ports: (0, 0),
            container,
        }));
    }
    if !is_bridged {
        // As with docker: there is nothing to lead them to.
        place.published.clear();
    }
    Ok(place)
}

fn absolute_workdir(asked: Option<&str>, image: Option<&str>) -> Result<String> {
    match (asked, image) {
        (Some(path), _) if path.starts_with('/') => Ok(path.to_owned()),
        (Some(path), _) => Err(Error::Invalid {
            what: format!("the working directory \"{path}\" is not an absolute path"),
        }),
        (None, None) => Ok("/".to_owned()),
        (None, Some(path)) if path.starts_with('/') => Ok(path.to_owned()),
        (None, Some(path)) => Ok(format!("/{path}")),
    }
}

fn check_hostname(name: &str) -> Result<String> {
    // What sethostname(2) takes, and what does no harm in /etc/hosts.
    let is_fine = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if is_fine {
        Ok(name.to_owned())
    } else {
        Err(Error::Invalid { what: format!("\"{name}\" is not a host name of 1 to 64 characters") })
    }
}

/// Returns what the user asks for and the image's volumes at other places,
/// parents before children, so that none covers another.
fn all_mounts(asked: Vec<MountRequest>, image: &ImageConfig) -> Result<Vec<MountRequest>> {
    let mut by_target: BTreeMap<PathBuf, MountRequest> = BTreeMap::new();
    for volume in &image.config.volumes {
        let target = inside(volume).map_err(|reason| Error::Invalid {
            what: format!("the image's volume cannot be used: {reason}"),
        })?;
        by_target.insert(target.clone(), MountRequest::anonymous(target));
    }
    let mut targets = BTreeSet::new();
    for mount in asked {
        let target = mount.target().to_owned();
        if !targets.insert(target.clone()) {
            return Err(Error::Invalid {
                what: format!("two mounts are asked for at {}", target.display()),
            });
        }
        by_target.insert(target, mount);
    }
    // Paths order by components: a parent comes before what is in it.
    Ok(by_target.into_values().collect())
}

#[cfg(test)]
mod tests;
