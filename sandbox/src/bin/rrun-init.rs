//! The helper that enters a sandbox: the whole program is
//! [`sandbox::init_main`], see there.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox::init_main()
}
