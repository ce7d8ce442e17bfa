//! The OCI runtime command line: what engines call to run a bundle.
//!
//! ```text
//! rrun-oci ── args ──► cli ──► create, exec, control   what the commands do
//!                               ├─► spec     config.json → sandbox::bundle::Bundle
//!                               ├─► state    what is kept of a container
//!                               └─► sandbox  namespaces, cgroups, the helper
//! ```
//!
//! It knows neither images nor the containers of `rrun`: engines bring both.
//! Of the `engine` it shares what passes signals and terminals on.

mod args;
mod cli;
mod console;
pub mod control;
pub mod create;
mod error;
pub mod exec;
mod features;
mod foreground;
mod report;
mod rootless;
pub mod spec;
pub mod state;
mod stats;

pub use cli::run;
pub use error::{Error, Result};
