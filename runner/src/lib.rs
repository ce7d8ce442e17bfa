//! Image to running containers, and everything that keeps them running.
//!
//! ```text
//! cli/      what the user types, and what the user reads
//!  └─► engine/   containers with names, logs, volumes and exit statuses
//!        ├─► store     images and layers
//!        └─► sandbox   processes in namespaces
//! oci/      the command line that other engines call, straight to the sandbox
//! ```
//!
//! There is no daemon. In the foreground `rrun` itself watches its container;
//! in the background a small shim does. What is on disk describes a container
//! ([`engine::containers`]); whether it runs is asked of the kernel
//! ([`engine::state`]).

#![forbid(unsafe_code)]

pub mod cli;
pub mod engine;
pub mod oci;
