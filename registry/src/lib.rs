//! Images over HTTP: the OCI distribution API on a storage that any number of
//! replicas can share.
//!
//! ```text
//! cli ─► server ─► api ─► content ─► storage ─► directory, bucket
//!  │       │        └────► access
//!  config  socket ◄── bytes of large blobs go from the page cache to the network
//! ```
//!
//! - [`config`]: one file of settings, checked, read again when it changes.
//! - [`server`]: connections, TLS, limits, graceful shutdown; [`metrics`] counts.
//! - `api`: requests to calls, results to responses; the only place that knows
//!   HTTP's headers, status codes and error bodies.
//! - [`access`]: users, tokens, policies: who may do what.
//! - [`content`]: blobs, uploads, manifests, tags, referrers, and who may see what.
//! - [`maintenance`]: what an operator does to a storage, while it is served or not.
//! - [`storage`]: the seam to what keeps the bytes, and its layout.
//!
//! Each calls only those to its right.

pub mod access;
mod api;
#[doc(hidden)]
pub mod border;
pub mod cli;
mod commands;
pub mod config;
pub mod content;
mod hashing;
pub mod maintenance;
pub mod metrics;
pub mod pattern;
pub mod server;
mod socket;
pub mod storage;
mod storage_args;
mod sys;
pub mod tls;
