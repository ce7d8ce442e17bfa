//! The values that options carry, each parsed once into a type that cannot be
//! wrong. Nothing here touches the system.

mod environment;
mod mount;
mod security;
mod signal;
mod size;
mod ulimit;

pub use environment::{EnvEntry, Label, merge_environment, parse_env_file};
pub(crate) use mount::inside;
pub use mount::{Bind, MountRequest, Tmpfs};
pub use security::{Capability, NetworkMode, PullPolicy, SeccompChoice, SecurityOption};
pub use signal::Signal;
pub use size::{Bytes, Cpus, PidsLimit, SwapLimit};
pub use ulimit::Ulimit;
