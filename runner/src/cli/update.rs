//! `rrun update`.

use std::io::{self, Write as _};

use anyhow::bail;

use crate::engine::options::{Bytes, Cpus, PidsLimit, RestartPolicy, SwapLimit};
use crate::engine::update::UpdateRequest;

use super::{Context, for_each};

/// Change the limits of containers, and when they are started again
///
/// At once where they run, and for their next start. A limit of a kind that a
/// running container was started without may have to wait for that.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateArgs {
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "BYTES", value_parser = Bytes::memory_limit)]
    memory: Option<Bytes>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<PidsLimit>,
    /// When to start it again: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn run(args: &UpdateArgs, context: &Context) -> anyhow::Result<u8> {
    let request = UpdateRequest {
        memory: args.memory,
        memory_swap: args.memory_swap,
        cpus: args.cpus,
        pids: args.pids_limit,
        restart: args.restart,
    };
    let is_nothing = request.memory.is_none()
        && request.memory_swap.is_none()
        && request.cpus.is_none()
        && request.pids.is_none()
        && request.restart.is_none();
    if is_nothing {
        bail!("nothing to change was given");
    }
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        engine.update(&engine.containers().find(name)?, request)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}
