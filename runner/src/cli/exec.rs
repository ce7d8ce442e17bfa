//! `rrun exec`.

use std::io::{self, IsTerminal as _};

use anyhow::bail;

use crate::engine::exec::ExecRequest;
use crate::engine::options::EnvEntry;

use super::{Context, caller_env};

/// Run a command in a running container
///
/// The exit status is that of the command; 126 if it could not be executed,
/// 127 if it was not found.
#[derive(Debug, clap::Args)]
#[command(override_usage = "rrun exec [OPTIONS] CONTAINER COMMAND [ARGUMENT]...")]
pub(super) struct ExecArgs {
    /// Do not wait for the command
    #[arg(short, long)]
    detach: bool,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or pass one on (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<EnvEntry>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// User inside, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Container, by name or id, and what to run in it
    #[arg(trailing_var_arg = true, required = true, value_name = "CONTAINER COMMAND")]
    container: Vec<String>,
}

pub(super) fn run(args: ExecArgs, context: &Context) -> anyhow::Result<u8> {
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        bail!("-i and -t together need a terminal as standard input");
    }
    let mut words = args.container.into_iter();
    let name = words.next().unwrap_or_default();
    if words.len() == 0 {
        bail!("no command given to run in container {name}");
    }
    let engine = context.engine()?;
    let container = engine.containers().find(&name)?;
    let env = args
        .env
        .into_iter()
        .filter_map(|entry| {
            let value = entry.value.or_else(|| caller_env(&entry.key))?;
            Some(format!("{}={value}", entry.key))
        })
        .collect();
    let request = ExecRequest {
        args: words.collect(),
        env,
        workdir: args.workdir,
        user: args.user,
        terminal: args.tty,
        interactive: args.interactive,
        detach: args.detach,
    };
    let code = engine.exec(&container, request)?;
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}
