//! What becomes of a finished build.
//!
//! - `sharing`: what the builds of one command share
//! - `finished`: the builds of several platforms as one image

mod finished;
mod sharing;

pub use finished::Finished;
pub use sharing::{Executed, FinishedLayer, Sharing};
