//! The values that options carry, each parsed once into a type that cannot be
//! wrong. Nothing here touches the system.

mod environment;
mod health;
mod mount;
mod network;
mod publish;
mod restart;
mod security;
mod signal;
mod size;
mod ulimit;
mod volume;

pub use environment::{EnvEntry, Label, merge_environment, parse_env_file};
pub use health::{HealthConfig, HealthRequest, Interval, OnFailure};
pub(crate) use mount::inside;
pub use mount::{AnonymousVolume, Bind, MountRequest, NamedVolume, Tmpfs};
pub use network::{ExtraHost, HostAddress, HostName, NetworkMode};
pub use publish::{ContainerPort, Protocol, Publish, PublishedPort};
pub use restart::RestartPolicy;
pub use security::{Capability, PullPolicy, SeccompChoice, SecurityOption};
pub use signal::Signal;
pub use size::{Bytes, Cpus, PidsLimit, SwapLimit};
pub use ulimit::Ulimit;
pub use volume::VolumeName;
