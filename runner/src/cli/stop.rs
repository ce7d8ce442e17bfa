//! `rrun stop` and `rrun kill`.

use std::io::{self, Write as _};
use std::time::Duration;

use crate::engine::options::Signal;

use super::{Context, for_each};

/// Stop running containers
///
/// Sends the container's stop signal and, when it has not ended after some
/// time, SIGKILL. A first process that has no handler for the signal would
/// never hear of it; it is killed at once.
#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    #[command(flatten)]
    grace: Grace,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

/// How long a container is waited for that was asked to end.
#[derive(Debug, clap::Args)]
pub(super) struct Grace {
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(
        short = 't',
        long = "time",
        visible_alias = "timeout",
        value_name = "SECONDS",
        default_value = "10",
        allow_hyphen_values = true
    )]
    seconds: i64,
}

impl Grace {
    /// Returns the time; `None` is for ever.
    pub(super) fn duration(&self) -> Option<Duration> {
        u64::try_from(self.seconds).ok().map(Duration::from_secs)
    }
}

/// Send a signal to running containers
#[derive(Debug, clap::Args)]
pub(super) struct KillArgs {
    /// Signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: Signal,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn stop(args: &StopArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        engine.stop(&engine.containers().find(name)?, args.grace.duration())?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

pub(super) fn kill(args: &KillArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        engine.kill(&engine.containers().find(name)?, args.signal)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}
