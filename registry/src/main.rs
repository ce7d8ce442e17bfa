//! The `rregistry` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    registry::cli::main(std::env::args_os())
}
