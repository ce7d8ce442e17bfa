//! Bundles: processes in namespaces as a runtime configuration asks for them,
//! for engines that bring their own (OCI runtime-spec).
//!
//! A [`crate::Spec`] describes *our* sandbox; a [`Bundle`] says everything
//! itself. Both go through the same helper:
//!
//! ```text
//! caller                                          rrun-init
//!   sources, namespaces: descriptors ───────────►
//!   plan ───────────────────────────────────────► join, unshare, fork (where a user, time or
//!   ◄──────────────────────────── ids, clocks ───       joined process id namespace needs it)
//!   uid_map, gid_map, clocks ── go on ──────────► mounts, devices, masks
//!   ◄──────────────────────────────── mounted ───
//!   hooks ── go on, state ──────────────────────► hooks, pivot_root, user
//!   ◄──────────────────────── terminal, ready ─── waits at the gate, execve
//! ```

mod create;
pub mod gate;
mod hook;
mod idmap;
mod spec;

pub use create::{Start, create, exec, has_apparmor, inherited};
pub use hook::run_hooks;
pub use spec::{
    Bundle, BundleMount, BundleMountKind, CapabilitySets, ClockOffset, Credentials, Device, Hook,
    IdMaps, IdRange, Namespace, NamespaceKind, Propagation,
};
