//! The runtime configuration: read once, turned into a [`sandbox::bundle::Bundle`]
//! or refused.
//!
//! ```text
//! config.json ── config (serde) ──► translate (checks) ──► Bundle
//! ```

mod config;
mod example;
mod linux;
mod options;
mod process;
mod translate;

use std::fs;
use std::path::Path;

pub use config::{Config, Hook, Hooks, Linux, Process, User};
pub use example::example;
pub use linux::NAMESPACES;
pub use process::{credentials, process};
pub use translate::{bundle, hooks};

use super::error::{Error, IoContext as _, Result};

/// The version of runtime-spec that is followed.
pub const VERSION: &str = "1.2.1";

/// More than any engine writes, a seccomp profile included.
const BYTES_MAX: u64 = 16 << 20;

/// Reads and checks the form of `config.json` in a bundle.
///
/// # Errors
///
/// When there is none, or it is not of version 1 of the specification.
pub fn read(bundle: &Path) -> Result<(Config, Vec<u8>)> {
    let path = bundle.join("config.json");
    let size = fs::metadata(&path).doing("read", &path)?.len();
    if size > BYTES_MAX {
        return Err(Error::invalid(format!("{} is larger than {BYTES_MAX} bytes", path.display())));
    }
    let bytes = fs::read(&path).doing("read", &path)?;
    Ok((parse(&bytes)?, bytes))
}

/// Reads a runtime configuration.
///
/// # Errors
///
/// When it is not one, or of another version than 1.x.
pub fn parse(bytes: &[u8]) -> Result<Config> {
    let config: Config = serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("config.json cannot be read: {error}")))?;
    if !config.oci_version.starts_with("1.") {
        return Err(Error::invalid(format!(
            "config.json is of version {:?} of the runtime specification, 1.x is supported",
            config.oci_version
        )));
    }
    Ok(config)
}

/// Reads the process that `exec` is given.
///
/// # Errors
///
/// When the text is not one.
pub fn parse_process(bytes: &[u8]) -> Result<Process> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("the process cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_refused_and_unknown_fields_are_not() {
        assert!(parse(br#"{"ociVersion":"1.0.2-dev","windows":{},"new":1}"#).is_ok());
        assert!(parse(br#"{"ociVersion":"1.99.0"}"#).is_ok());
        let error = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        insta::assert_snapshot!(error(r#"{"ociVersion":"2.0.0"}"#), @r#"config.json is of version "2.0.0" of the runtime specification, 1.x is supported"#);
        insta::assert_snapshot!(error("{}"), @"config.json cannot be read: missing field `ociVersion` at line 1 column 2");
        insta::assert_snapshot!(error(r#"{"ociVersion":"1.0.0","process":{"user":{"uid":-1}}}"#), @"config.json cannot be read: invalid value: integer `-1`, expected u32 at line 1 column 49");
        insta::assert_snapshot!(error(r#"{"ociVersion":"1.0.0","mounts":[{"type":"proc"}]}"#), @"config.json cannot be read: missing field `destination` at line 1 column 47");
    }

    /// The seeds of the fuzz target, cut and changed at every place.
    #[test]
    fn damaged_configurations_are_read_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/runtime_config");
        let mut accepted = 0;
        for entry in fs::read_dir(seeds).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            let config = parse(&bytes).unwrap();
            bundle(&config, Path::new("/bundle")).unwrap();
            for at in 0..bytes.len() {
                assert!(parse(&bytes[..at]).is_err(), "accepted {at} bytes");
                for other in [b'0', b'"', b'-', b'/', b'.', b'}'] {
                    let mut damaged = bytes.clone();
                    damaged[at] = other;
                    if let Ok(config) = parse(&damaged) {
                        accepted += usize::from(bundle(&config, Path::new("/bundle")).is_ok());
                    }
                }
            }
        }
        assert!(accepted > 100, "{accepted}");
    }
}
