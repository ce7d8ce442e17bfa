//! Who we are to a registry.
//!
//! - [`file`]: docker's `config.json` and podman's `auth.json`
//! - [`helper`]: the programs these files delegate to, `docker-credential-…`
//! - [`challenge`]: what a registry wants to see (`WWW-Authenticate`)
//! - [`token`]: Bearer tokens, fetched, kept and renewed

mod challenge;
mod file;
mod helper;
mod secret;
mod token;

pub use file::AuthFile;
pub use secret::{Credential, Secret};

pub(super) use token::{HostAuth, Scope, TokenClient};
