//! `rrun start` and `rrun restart`.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::bail;

use crate::engine::Engine;
use crate::engine::Error;
use crate::engine::containers::Container;

use super::stop::Grace;
use super::{Context, for_each, report};

/// Start containers that were created, or have ended
///
/// They keep their files, their log and their settings.
#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    /// Stay with the container: print its output and return its exit code
    #[arg(short, long)]
    attach: bool,
    /// Stay with the container, and pass standard input on if it was made with -i
    #[arg(short, long)]
    interactive: bool,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

/// Stop containers and start them again
#[derive(Debug, clap::Args)]
pub(super) struct RestartArgs {
    #[command(flatten)]
    grace: Grace,
    /// Containers, by name or id
    #[arg(required = true)]
    containers: Vec<String>,
}

pub(super) fn start(args: &StartArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    if args.attach || args.interactive {
        return match args.containers.as_slice() {
            [name] => attached(&engine, name, args.interactive),
            _ => bail!("only one container can be started and attached to at a time"),
        };
    }
    for_each(&args.containers, |name| {
        detached(&engine, engine.containers().find(name)?)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

pub(super) fn restart(args: &RestartArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    for_each(&args.containers, |name| {
        let container = engine.containers().find(name)?;
        if container.config.remove {
            bail!("container {name} goes away when it ends (--rm): it cannot be restarted");
        }
        engine.stop(&container, args.grace.duration())?;
        detached(&engine, container)?;
        Ok(writeln!(io::stdout(), "{name}")?)
    })
}

fn detached(engine: &Engine, container: Container) -> anyhow::Result<()> {
    if let Some(prepared) = engine.prepare(container)? {
        report::warn(&prepared.start_detached()?);
    }
    Ok(())
}

fn attached(engine: &Engine, name: &str, interactive: bool) -> anyhow::Result<u8> {
    let container = engine.containers().find(name)?;
    let interactive = interactive && container.config.open_stdin;
    if container.config.process.terminal && interactive && !io::stdin().is_terminal() {
        bail!("a container with a terminal needs one as standard input, too");
    }
    let Some(prepared) = engine.prepare(container)? else {
        return Err(Error::StillRunning { container: name.to_owned() }.into());
    };
    let started = |warnings: &[String]| {
        report::warn(warnings);
        Ok(())
    };
    let warn = |text: &str| report::warn(&[text.to_owned()]);
    let code = prepared.run_attached(interactive, started, warn)?;
    engine.tidy();
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
