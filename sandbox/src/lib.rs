//! A process in namespaces, cgroup and limits.
//!
//! A [`Spec`] describes a sandbox; [`spawn`] starts it, [`exec`] adds a
//! process to one that runs, [`shim::start`] leaves one running on its own.
//! All three go through the small helper program `rrun-init`:
//!
//! ```text
//! caller ── clone3(new namespaces) ──► child ── execveat(sealed copy) ──► rrun-init
//!   │  cgroup, limits                                                       │
//!   ├──── plan (Spec + filter + cgroups), one message over a socket ───────►│ mounts, pivot_root,
//!   │◄─── warnings, stubs, terminal, then: started or an error ─────────────┤ user, capabilities,
//!   └ waits on the pidfd                                                    └ filter, execve(command)
//! ```
//!
//! # Invariants
//!
//! - Every mount is made inside the child's mount namespace: whatever is
//!   killed, the kernel takes the mounts away.
//! - What comes from an image — paths, users, links — is resolved beneath the
//!   root by descriptor and never by a path of the host.
//! - The helper inside a sandbox cannot be inspected (it is not dumpable) and
//!   cannot be overwritten (it is a sealed copy).
//! - Devices, addresses and names of a sandbox's network end with it: whoever
//!   stays with it holds them.
//! - Between clone and exec nothing allocates; the caller may have threads.

pub mod bundle;
mod caps;
pub mod cgroup;
pub mod dns;
mod error;
mod init;
pub mod log;
pub mod netlink;
pub mod rootless;
mod seccomp;
pub mod shim;
mod spawn;
mod spec;
pub mod stubs;
mod sys;
mod user;
mod wire;

pub use caps::NAMES as CAPABILITIES;
pub use error::{Error, Result};
pub use init::main as init_main;
pub use spawn::{
    Exit, Killer, Running, Sandboxed, Stdio, Stream, exec, exec_detached, hold, send_signal, spawn,
};
pub use spec::{
    CgroupSpec, Limits, Link, Mount, MountKind, Network, Process, Resource, Rlimit, Root, Seccomp,
    SecretBytes, Security, Spec,
};
