//! Who may do what, over real HTTP: users, tokens, policies, TLS, and what a
//! registry does when its configuration changes.
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod policies;
mod tls;
mod tokens;
mod world;
