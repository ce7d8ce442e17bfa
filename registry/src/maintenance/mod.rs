//! What an operator does to a storage: collect what nobody needs, check and
//! repair, account for what is there, bring in what other registries have.
//!
//! Everything here may run while replicas serve the same storage.

mod gc;
mod migrate;
mod round;
mod usage;
mod verify;

pub use gc::{GcOptions, GcReport, Removal, Tally, collect};
pub use migrate::{Error as MigrateError, MigrateReport, migrate};
pub use usage::{RepositoryUsage, Usage, usage};
pub use verify::{Finding, Problem, VerifyOptions, VerifyReport, verify};

/// How many keys are listed at a time: what one request to a bucket returns.
const KEYS_PER_LIST: usize = 1000;
