//! `rrun port`.

use std::io::{self, Write as _};

use anyhow::bail;

use crate::engine::Error;
use crate::engine::network::Endpoint;
use crate::engine::options::ContainerPort;
use crate::engine::state::Status;

use super::Context;

/// Print where the ports of a running container are published
#[derive(Debug, clap::Args)]
pub(super) struct PortArgs {
    /// Container, by name or id
    container: String,
    /// Port of the container; all otherwise
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<ContainerPort>,
}

pub(super) fn run(args: &PortArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    let Status::Running(_) = container.status()? else {
        return Err(Error::NotRunning { container: args.container.clone() }.into());
    };
    let bindings =
        Endpoint::read(container.dir())?.map(|endpoint| endpoint.ports).unwrap_or_default();
    let mut out = io::stdout().lock();
    let Some(port) = args.port else {
        for binding in &bindings {
            let (ip, port) = (binding.host_ip, binding.host_port);
            writeln!(out, "{} -> {ip}:{port}", binding.container)?;
        }
        return Ok(0);
    };
    let mut found = bindings.iter().filter(|binding| binding.container == port).peekable();
    if found.peek().is_none() {
        bail!("port {port} of container {} is not published", args.container);
    }
    for binding in found {
        writeln!(out, "{}:{}", binding.host_ip, binding.host_port)?;
    }
    Ok(0)
}
