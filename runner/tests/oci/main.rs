//! The runtime as engines call it: bundles, so root is needed.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/outcome.rs"]
mod outcome;

mod bundle;
mod config;
mod hooks;
mod hostile;
mod lifecycle;
mod rootless;
