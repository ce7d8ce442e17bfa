//! Sandboxes as their users see them. All tests but those of an ordinary
//! user need root.
#![expect(clippy::unwrap_used, reason = "tests")]

mod cgroups;
mod chroot;
mod exec;
mod rootless;
mod shim;
mod spawn;
mod support;
mod trees;
