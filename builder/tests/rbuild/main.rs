//! The `rbuild` program from outside: each test has its own store and its own context.

#![expect(clippy::unwrap_used, reason = "a failed setup is a failed test")]

mod cache;
mod check;
mod chroot;
mod contexts;
mod copy;
mod explain;
mod fetch;
mod images;
mod language;
mod limits;
mod messages;
mod mounts;
mod outputs;
mod platforms;
mod privileged;
mod secrets;
mod server;
mod ssh;
mod world;
