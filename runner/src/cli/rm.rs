//! `rrun rm` and `rrun prune`.

use std::io::{self, Write as _};

use crate::engine::Error;

use super::{Context, for_each};

/// Remove containers
#[derive(Debug, clap::Args)]
pub(super) struct RmArgs {
    /// Kill running ones first; a container that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Remove anonymous volumes, which is always done; those with a name stay
    #[arg(short, long)]
    volumes: bool,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Remove every container that has ended
///
/// Also what was left by programs that were killed. Images are kept: see
/// `rbuild prune`.
#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Do not ask, which is never done
    #[arg(short, long)]
    force: bool,
}

pub(super) fn run(args: &RmArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let mut publishes = false;
    let code = for_each(&args.containers, |name| {
        let container = match engine.containers().find(name) {
            Err(Error::ContainerUnknown { .. }) if args.force => return Ok(()),
            found => found?,
        };
        engine.remove(&container, args.force)?;
        publishes |= !container.config.place.published.is_empty();
        Ok(writeln!(io::stdout(), "{name}")?)
    });
    // Whoever stayed with it may have been killed.
    if publishes {
        engine.networks().sweep()?;
    }
    code
}

pub(super) fn sweep(context: &Context) -> anyhow::Result<u8> {
    context.engine()?.containers().sweep()?;
    Ok(0)
}

pub(super) fn prune(_args: &PruneArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let swept = engine.containers().sweep()?;
    engine.sweep();
    let mut removed = Vec::new();
    for container in engine.containers().list()? {
        if container.status()?.is_active() {
            continue;
        }
        match engine.remove(&container, false) {
            Ok(()) => removed.push(container.config.id),
            // It is just being made.
            Err(Error::StillRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut out = io::stdout().lock();
    for id in &removed {
        writeln!(out, "{id}")?;
    }
    let total = swept + removed.len();
    writeln!(out, "removed {total} container{}", if total == 1 { "" } else { "s" })?;
    Ok(0)
}
