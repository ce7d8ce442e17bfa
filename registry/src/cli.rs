//! The command line: arguments, logging, signals.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::commands::{self, Maintenance, PeriodicGcArgs};
use crate::content::{Options, Registry};
use crate::server;
use crate::storage::{Local, Storage};
use crate::storage_args::{self, Place, StorageArgs};

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
    Serve(ServeArgs),
    #[command(flatten)]
    Maintain(Maintenance),
}

/// Serve images over HTTP
///
/// Speaks the OCI distribution API 1.1 with docker, podman, skopeo, buildah, containerd and all
/// that push and pull images. There is no access control yet: listen on loopback, or behind a
/// proxy that has it.
#[derive(Debug, Args)]
struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one and prints it
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "RREGISTRY_LISTEN",
        default_value = "127.0.0.1:5000"
    )]
    listen: String,

    #[command(flatten)]
    storage: StorageArgs,

    #[command(flatten)]
    gc: PeriodicGcArgs,

    /// How the log on standard error is written
    #[arg(long, value_enum, value_name = "FORMAT", env = "RREGISTRY_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Which messages are logged, for example `debug` or `registry=debug,access=off`
    #[arg(long, value_name = "FILTER", env = "RREGISTRY_LOG", default_value = "info")]
    log: String,

    /// Log each request (the default)
    #[arg(long, overrides_with = "no_access_log")]
    access_log: bool,

    /// Do not log each request
    #[arg(long)]
    no_access_log: bool,

    /// Accept manifests whose layers or children are not there
    #[arg(long, env = "RREGISTRY_ALLOW_MISSING")]
    allow_missing: bool,

    /// Refuse to delete tags, manifests and blobs
    #[arg(long, action = ArgAction::SetTrue, env = "RREGISTRY_NO_DELETE")]
    no_delete: bool,

    /// How long requests may take to end when the registry is stopped, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    drain: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// One line of text per message
    Text,
    /// One JSON object per message
    Json,
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
    let result = match cli.command {
        Command::Serve(arguments) => serve(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Maintain(command) => {
            runtime().and_then(|runtime| runtime.block_on(command.run(now)))
        }
    };
    match result {
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

#[expect(clippy::print_stderr, reason = "the command line talks here")]
fn say(message: impl Display) {
    eprintln!("{message}");
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

fn serve(arguments: &ServeArgs) -> anyhow::Result<()> {
    start_log(arguments)?;
    let place = arguments.storage.place(std::env::vars())?;
    let runtime = runtime()?;
    runtime.block_on(async {
        match place {
            Place::Directory(root) => {
                let storage = Local::open(&root)
                    .with_context(|| format!("cannot use {} as storage", root.display()))?;
                serve_images(arguments, storage, &root.display()).await
            }
            Place::Bucket(url, options) => {
                let storage = storage_args::open_bucket(&url, options).await?;
                serve_images(arguments, storage, &url).await
            }
        }
    })?;
    // Requests that did not end in time are cut off: the storage expects that.
    runtime.shutdown_background();
    Ok(())
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

/// Serves what `storage`, which is at `place`, holds.
async fn serve_images(
    arguments: &ServeArgs,
    storage: impl Storage + Clone,
    place: &impl Display,
) -> anyhow::Result<()> {
    storage.sweep().await.context("cannot clear what a crash left")?;
    let options =
        Options { allow_missing: arguments.allow_missing, allow_delete: !arguments.no_delete };
    arguments.gc.start(|| Ok(Registry::new(storage.clone(), options, now)?))?;
    let registry = Registry::new(storage, options, now)?;
    let listener = TcpListener::bind(&arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    announce(&listener.local_addr()?, place);
    let options = server::Options {
        drain: Duration::from_secs(arguments.drain),
        access_log: arguments.access_log || !arguments.no_access_log,
    };
    let mut signals = Signals::new()?;
    let mut second = Signals::new()?;
    let stop = async move { signals.next().await };
    tokio::select! {
        served = server::run(listener, registry, options, stop) => served.context("cannot serve"),
        // The first signal reaches both; the second ends the wait.
        () = async { second.next().await; second.next().await } => {
            tracing::warn!("stopped at once");
            Ok(())
        }
    }
}

/// Tells scripts, on standard output, which address was taken.
#[expect(clippy::print_stdout, reason = "the command line talks here")]
fn announce(address: &SocketAddr, place: &impl Display) {
    println!("listening on {address}, images in {place}");
}

#[expect(clippy::disallowed_methods, reason = "the program's one clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn start_log(arguments: &ServeArgs) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("cannot understand --log {}", arguments.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // A log that somebody else has set up (in tests) is as good.
    match arguments.log_format {
        LogFormat::Text => log.try_init().unwrap_or_default(),
        LogFormat::Json => log.json().flatten_event(true).try_init().unwrap_or_default(),
    }
    Ok(())
}

/// The signals that stop the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
