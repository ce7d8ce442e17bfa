//! The `rrun-oci` program: an OCI runtime for engines.

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::oci::run(std::env::args_os())
}
