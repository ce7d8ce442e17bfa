//! The `rrun` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // An ordinary user's containers live in a user namespace, which must be
    // entered before any thread or descriptor exists.
    runner::cli::enter_rootless();
    runner::cli::run(std::env::args_os())
}
