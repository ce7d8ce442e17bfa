//! What is left when things go wrong: storages that stop in the middle,
//! processes that are killed, clients that all want the same.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "the conformance suite uses the rest")]
#[path = "../support/mod.rs"]
mod support;

#[path = "../support/watched.rs"]
mod watched;

mod concurrency;
mod crash;
mod faults;
mod full;
mod process;
