//! Commands that nobody types: those of whoever watches a container.

use std::time::Duration;

use super::Context;

/// What whoever has watched a container goes on as.
#[derive(Debug, clap::Args)]
pub(super) struct AgainArgs {
    /// How long to wait first
    #[arg(long, default_value = "0")]
    after_ms: u64,
    /// The container
    container: String,
}

pub(super) fn again(args: &AgainArgs, context: &Context) -> anyhow::Result<u8> {
    // The terminal of whoever has started it may end; a shim has left it before.
    let _left = rustix::process::setsid();
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    engine.start_again(&container, Duration::from_millis(args.after_ms))?;
    Ok(0)
}

/// What whoever watches a container has done now and then.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// The container
    container: String,
}

pub(super) fn check(args: &CheckArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    Ok(u8::from(engine.check(&container)? != Some(true)))
}
