//! `rrun rename`.

use crate::engine::name::Name;

use super::Context;

/// Give a container another name
#[derive(Debug, clap::Args)]
pub(super) struct RenameArgs {
    /// Container, by name or id
    container: String,
    /// The name it gets
    name: Name,
}

pub(super) fn run(args: &RenameArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    engine.containers().rename(container, &args.name)?;
    Ok(0)
}
