//! What was asked of a container: the contents of its `config.json`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use oci::{DiffId, Digest};
use serde::{Deserialize, Serialize};

use super::id::ContainerId;
use super::name::Name;
use super::network::Resolver;
use super::options::{
    Bytes, Capability, ContainerPort, Cpus, ExtraHost, HealthConfig, MountRequest, NetworkMode,
    PidsLimit, PublishedPort, RestartPolicy, SeccompChoice, Signal, SwapLimit, Ulimit,
};
use super::timestamp::Timestamp;

/// The format of `config.json`; raised when an older reader would be misled.
pub const VERSION: u32 = 1;

/// A container as it was asked for, complete: image defaults are filled in,
/// so that nothing of it changes when the image's name moves on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The format, [`VERSION`].
    pub version: u32,
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: Name,
    /// When it was made.
    pub created: Timestamp,
    /// What it was made from.
    pub image: ImageIdentity,
    /// What runs in it.
    pub process: ProcessConfig,
    /// Whether input is kept open although nobody is attached.
    pub open_stdin: bool,
    /// Whether it runs behind the caller's back.
    pub detached: bool,
    /// Whether it goes away when it ends.
    pub remove: bool,
    /// When it is started again. Containers of earlier versions never are.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How it is checked while it runs. Containers of earlier versions are not.
    #[serde(default)]
    pub health: Option<HealthConfig>,
    /// The name it has for itself.
    pub hostname: String,
    /// The network it sees.
    pub network: NetworkMode,
    /// Its place in that network. Containers of earlier versions have none.
    #[serde(default)]
    pub place: PlaceConfig,
    /// What is put into its tree, in order.
    pub mounts: Vec<MountRequest>,
    /// Whether the root cannot be written.
    pub read_only: bool,
    /// What it may use up.
    pub limits: LimitsConfig,
    /// What it may do.
    pub security: SecurityConfig,
    /// What it is labelled with: the image's labels below the user's.
    pub labels: BTreeMap<String, String>,
    /// What `stop` sends.
    pub stop_signal: Signal,
}

/// The image a container was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageIdentity {
    /// What the user typed.
    pub reference: String,
    /// The image id: the digest of its config.
    pub id: Digest,
    /// Its layers from the bottom, so that the container starts again although
    /// the image has gone. Containers of earlier versions have none.
    #[serde(default)]
    pub layers: Vec<DiffId>,
}

/// A container's first process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// The environment, `KEY=value`.
    pub env: Vec<String>,
    /// The working directory inside.
    pub cwd: String,
    /// The user as text, resolved inside the image; empty is root.
    pub user: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether a small init process stands above it.
    pub init: bool,
}

/// A container's place in its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceConfig {
    /// The address it is to have; any otherwise.
    pub address: Option<Ipv4Addr>,
    /// The ports that are published.
    pub published: Vec<PublishedPort>,
    /// The ports that the image or the user names, published or not.
    pub exposed: Vec<ContainerPort>,
    /// Names by which others in the network find it, beside its own.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Whom it asks for names.
    pub resolver: Resolver,
    /// Names it knows without asking.
    pub hosts: Vec<ExtraHost>,
}

/// What a container may use up; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Memory in bytes.
    pub memory: Option<Bytes>,
    /// Memory and swap together.
    pub memory_swap: Option<SwapLimit>,
    /// Processors.
    pub cpus: Option<Cpus>,
    /// Processes and threads.
    pub pids: PidsLimit,
    /// Limits per process.
    pub ulimits: Vec<Ulimit>,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityConfig {
    /// Capabilities beyond the default ones.
    pub cap_add: Vec<Capability>,
    /// Default capabilities it does without.
    pub cap_drop: Vec<Capability>,
    /// Whether set-user-id programs stay without effect.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: SeccompChoice,
}
