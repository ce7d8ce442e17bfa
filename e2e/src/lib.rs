//! The programs as black boxes: what the end-to-end tests stand on.
//!
//! A test makes a [`World`]: a store of its own and the three programs as users have them
//! (`target/release`, or the directory that `RBUILD_BIN_DIR` names). Registries and other
//! servers that it starts listen on loopback and end with it.
//!
//! The base images come from the store that `.ci/test` fills and names in `E2E_ROOT`.
#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a harness for tests: it panics where a test fails, and reads the environment of the test run"
)]

mod clean;
mod dockerd;
mod files;
mod process;
mod registry;
mod world;

pub use dockerd::Dockerd;
pub use files::Files;
pub use process::{Output, run, try_run, try_run_with, wait_until};
pub use registry::{Registry, free_port};
pub use world::World;
