//! `rrun wait`.

use std::io::{self, Write as _};

use crate::engine::log::wait_ended;
use crate::engine::state::{Status, UNKNOWN_EXIT_CODE};

use super::{Context, for_each};

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn run(args: &WaitArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        let code = match wait_ended(&engine.containers().find(name)?, None)? {
            Status::Exited(_, exit) | Status::Restarting(_, exit) => exit.code,
            // It was removed, or whoever watched it was killed.
            Status::Created | Status::Running(_) | Status::Lost(_) => UNKNOWN_EXIT_CODE,
        };
        Ok(writeln!(io::stdout(), "{code}")?)
    })
}
