//! What operators do to a storage: collect, check, account, import.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
#[expect(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/watched.rs"]
mod watched;

mod debian;
mod gc;
mod interleaving;
mod migrate;
mod program;
mod verify;
