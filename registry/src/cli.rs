//! The command line: which command, and what its end means.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::commands::{self, ConfigArgs, Maintenance, ServeArgs, UserArgs, say};

/// How many threads may wait for the disk or hash at once. Uploads queue for
/// them in pieces of at most half a mebibyte, so more would only cost memory.
const MAX_BLOCKING_THREADS: usize = 32;

/// The exit code of wrong arguments, as clap has it.
const EXIT_USAGE: u8 = 2;

/// Store and serve container images.
#[derive(Debug, Parser)]
#[command(name = "rregistry", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    #[command(flatten)]
    Maintain(Box<Maintenance>),
    Config(ConfigArgs),
    User(UserArgs),
}

impl Command {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve(arguments) => {
                let runtime = runtime()?;
                runtime.block_on(arguments.run(now))?;
                // Requests that did not end in time are cut off: the storage expects that.
                runtime.shutdown_background();
                Ok(ExitCode::SUCCESS)
            }
            Self::Maintain(command) => runtime()?.block_on(command.run(now)),
            Self::Config(arguments) => arguments.run().map(|()| ExitCode::SUCCESS),
            Self::User(arguments) => arguments.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Runs the program and returns its exit code: 0 after a stop that was asked
/// for, 1 after a failure, 2 for wrong arguments.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Where neither output exists there is nobody to tell.
            error.print().unwrap_or_default();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command.run() {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            if let Some(hint) = hint(&error) {
                say(format_args!("hint: {hint}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// Returns what the user can do about an error.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    if let Some(hint) = commands::hint(error) {
        return Some(hint);
    }
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>())?;
    match io.kind() {
        std::io::ErrorKind::AddrInUse => Some("choose another address with --listen"),
        std::io::ErrorKind::PermissionDenied => Some("choose another directory with --root"),
        _ => None,
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("cannot start the threads")
}

#[expect(clippy::disallowed_methods, reason = "the program's one clock")]
fn now() -> SystemTime {
    SystemTime::now()
}
