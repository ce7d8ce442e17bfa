//! The program as its users have it: real containers, so root is needed.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/outcome.rs"]
mod outcome;

mod background;
mod basics;
mod changes;
mod commit;
mod copy;
mod export;
mod faults;
mod harness;
mod health;
mod hostile;
mod lifecycle;
mod limits;
mod mounts;
mod names;
mod network;
mod restart;
mod rootless;
mod terminal;
mod volumes;
