//! Solving: every step of the plan is looked up by its key, or executed; then the image is put together.
//!
//! ```text
//! images    base images: from the store, or looked up; layers where something reads their files
//! schedule  tasks (scan a context, begin a stage, do a step), as parallel as they can be
//! step      key → record? else execute → layer → record
//! run copy  the executors
//! isolation where namespaces are denied: plain directories instead of mounts
//! assemble  layers, history and config → image
//! last      what the previous build did, to say why a step runs; report: all of it, for people
//! ```
//!
//! # Invariants
//!
//! - Whatever is in use is pinned by the build's lease before it is looked at.
//! - A record is written only after its layer is in the store.
//! - A build that has nothing to do writes nothing.

mod assemble;
mod build;
pub mod caches;
mod cancel;
mod copy;
mod emulate;
mod images;
mod isolation;
mod last;
mod report;
mod run;
mod schedule;
mod step;
mod view;

pub use build::{Built, Request, build};
pub use caches::{CacheInfo, Caches};
pub use cancel::{Cancel, Guard};
pub(crate) use images::known_config;
pub use images::{Place, Pull, PullResult, Registries, Sources};
pub use isolation::Isolation;
pub use last::Builds;
pub use report::{Change, From, Known, Last, Outcome};
pub use run::{AgentSource, Agents, RunOptions, SecretSource, Secrets};
