//! The `rbuild` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    // An ordinary user's images belong to ids of a user namespace, which must be entered
    // before any thread or descriptor exists.
    if let Some(failure) = builder::cli::enter_rootless() {
        return failure;
    }
    builder::cli::run(std::env::args_os())
}
