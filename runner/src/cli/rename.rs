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
    let (dir, old) = (container.dir().to_owned(), container.config.name.clone());
    engine.containers().rename(container, &args.name)?;
    engine.networks().rename(&dir, &old, &args.name)?;
    Ok(0)
}
