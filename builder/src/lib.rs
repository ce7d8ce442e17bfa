//! Dockerfile to image.
//!
//! ```text
//! Dockerfile text ─► dockerfile  (tree and diagnostics, pure)
//!                 ─► plan        (graph of steps, pure)
//!                 ─► solve       (per step: key ─► recorded? else execute; in parallel)
//!                 ─► assemble    (config and manifest) ─► store
//! ```
//!
//! Data walks forward. Progress leaves as [`event::Event`]s; only [`cli`] prints.

#![forbid(unsafe_code)]

pub mod cache;
pub mod cli;
pub mod context;
pub mod copy;
pub mod dockerfile;
pub mod error;
pub mod event;
pub mod fetch;
pub mod ignore;
pub mod key;
pub mod output;
pub mod plan;
pub mod solve;
pub mod tree;
pub mod walked;

pub use error::{Error, Result};
