//! `rrun pause` and `rrun unpause`.

use std::io::{self, Write as _};

use super::{Context, for_each};

/// Hold all processes of running containers still
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, clap::Args)]
pub(super) struct UnpauseArgs {
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn pause(args: &PauseArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        engine.pause(&engine.containers().find(name)?)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

pub(super) fn unpause(args: &UnpauseArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        engine.unpause(&engine.containers().find(name)?)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}
