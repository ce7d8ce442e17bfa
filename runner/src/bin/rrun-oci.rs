//! The `rrun-oci` program: an OCI runtime for engines.

use std::process::ExitCode;

fn main() -> ExitCode {
    // An ordinary user's containers live in a user namespace, which must be
    // entered before any thread or descriptor exists.
    runner::oci::enter_rootless();
    runner::oci::run(std::env::args_os())
}
