//! Sources that are fetched: files on web servers and git repositories.
//!
//! Each is resolved first, which is little: is the known file still the current one, which
//! commit is this branch? That gives the step's key. The content comes only when the step
//! is not recorded, and stays in the store beside build records, as a blob:
//!
//! ```text
//! address   words → what and where                        pure
//! http      address → digest; content: the file itself
//! git       address → commit; content: the checkout as a plain tar
//! ```
//!
//! # Invariants
//!
//! - `git` runs without any configuration of this machine or of the repository, without
//!   hooks, and speaks only the network protocols that are allowed.
//! - Nothing of an address reaches a program as an option, and no password a message.

mod address;
mod git;
mod http;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use store::Lease;
use store::remote::Client;

pub use address::{GitRef, Remote, file_name, is_commit, without_password};
pub use git::{Checkout, Environment};
pub use http::Download;

use crate::error::Result;
use crate::event::{Event, Sink, Why};
use crate::solve::Cancel;

/// Returns the number of the next step in events.
pub type Numbers<'a> = &'a (dyn Fn() -> usize + Sync);

/// What is needed to fetch anything.
pub struct Fetcher<'a> {
    /// Keeps what was fetched.
    pub lease: &'a Lease,
    /// Makes the network client, when the first file is fetched.
    pub client: &'a (dyn Fn() -> Client + Sync),
    /// What `git` gets of the surroundings.
    pub git: Environment,
    /// Who is told.
    pub events: Sink<'a>,
    /// The number of the next step in events.
    pub numbers: Numbers<'a>,
    /// How it is stopped.
    pub cancel: &'a Cancel,
    made: OnceLock<Arc<Client>>,
}

impl std::fmt::Debug for Fetcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("git", &self.git).finish_non_exhaustive()
    }
}

impl<'a> Fetcher<'a> {
    /// Starts with nothing fetched.
    #[must_use]
    pub fn new(
        lease: &'a Lease,
        client: &'a (dyn Fn() -> Client + Sync),
        git: Environment,
        events: Sink<'a>,
        numbers: Numbers<'a>,
        cancel: &'a Cancel,
    ) -> Self {
        Self { lease, client, git, events, numbers, cancel, made: OnceLock::new() }
    }

    fn client(&self) -> Arc<Client> {
        Arc::clone(self.made.get_or_init(|| Arc::new((self.client)())))
    }

    /// Shows `work` as a step of its own; it gets the step's number.
    fn shown<T>(&self, name: String, work: impl FnOnce(usize) -> Result<T>) -> Result<T> {
        let step = (self.numbers)();
        (self.events)(Event::Started { step, name });
        (self.events)(Event::Running { step, why: Why::First });
        let start = Instant::now();
        let result = work(step);
        (self.events)(match &result {
            Ok(_) => Event::Done { step, took: start.elapsed() },
            Err(error) if error.is_cancelled() => Event::Cancelled { step },
            Err(error) => Event::Failed { step, message: error.to_string() },
        });
        result
    }
}
