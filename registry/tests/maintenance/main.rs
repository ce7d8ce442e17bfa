//! What operators do to a storage: collect, check, account.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/watched.rs"]
mod watched;

mod gc;
mod interleaving;
mod program;
mod verify;
