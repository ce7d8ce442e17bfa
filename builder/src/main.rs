//! The `rbuild` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    builder::cli::run(std::env::args_os())
}
