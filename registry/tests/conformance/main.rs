//! The project's own conformance suite: what the distribution specification
//! asks, and what implementations are known to get wrong, over real HTTP.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod artifacts;
mod blobs;
mod hostile;
mod manifests;
mod proxy;
mod ranges;
mod referrers;
mod service;
mod tags;
mod traps;
mod uploads;
