//! `rregistry serve`: settings from flags, environment and file, and the server
//! that heeds them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{PeriodicGcArgs, random};
use crate::config::watch::{Overrides, Reload};
use crate::config::{Config, Loaded, LogConfig, LogFormat, directory_of};
use crate::content::{Clock, Registry};
use crate::metrics;
use crate::server::{self, Live};
use crate::storage::{Local, Storage};
use crate::storage_args::{self, Place, StorageArgs};

/// Where nobody from elsewhere reaches the registry.
const DEFAULT_LISTEN: &str = "127.0.0.1:5000";

/// Which messages are logged when nobody says.
const DEFAULT_LOG: &str = "info";

/// How long requests may take to end, in seconds: below the ten that container
/// engines wait before they kill.
const DEFAULT_DRAIN_S: u64 = 8;

/// Serve images over HTTP
///
/// Speaks the OCI distribution API 1.1 with docker, podman, skopeo, buildah, containerd and all
/// that push and pull images. Without a configuration file everybody who reaches the port may do
/// everything: listen on loopback then, which is the default.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file, in TOML; flags and variables come before what it says
    #[arg(short, long, value_name = "FILE", env = "RREGISTRY_CONFIG")]
    config: Option<PathBuf>,

    /// Address and port to listen on; port 0 takes a free one and prints it [default:
    /// 127.0.0.1:5000]
    #[arg(long, value_name = "ADDRESS", env = "RREGISTRY_LISTEN")]
    listen: Option<String>,

    #[command(flatten)]
    storage: StorageArgs,

    #[command(flatten)]
    gc: PeriodicGcArgs,

    /// Serve numbers for Prometheus at /metrics on this address and port
    #[arg(long, value_name = "ADDRESS", env = "RREGISTRY_METRICS")]
    metrics: Option<String>,

    /// How the log on standard error is written [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", env = "RREGISTRY_LOG_FORMAT")]
    log_format: Option<LogFormat>,

    /// Which messages are logged, for example `debug` or `registry=debug` [default: info]
    #[arg(long, value_name = "FILTER", env = "RREGISTRY_LOG")]
    log: Option<String>,

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

    /// Accept no change at all
    #[arg(long, action = ArgAction::SetTrue, env = "RREGISTRY_READ_ONLY")]
    read_only: bool,

    /// How long requests may take to end when the registry is stopped, in seconds [default: 8]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
}

/// All that `serve` was told, by flags, environment and file.
struct Settings {
    listen: String,
    place: Place,
    metrics: Option<String>,
    drain: Duration,
    gc: PeriodicGcArgs,
    overrides: Overrides,
    file: Config,
    path: Option<PathBuf>,
    loaded: Loaded,
    secret: [u8; 32],
}

impl Settings {
    fn new(arguments: ServeArgs) -> anyhow::Result<Self> {
        let path = arguments.config;
        let file = path.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
        let secret = random()?;
        let directory = path.as_deref().map_or(Path::new(""), directory_of);
        let loaded = file.resolve(directory, &secret)?;
        let log = LogConfig {
            format: arguments.log_format.or(file.log.format),
            filter: arguments.log.or_else(|| file.log.filter.clone()),
            access: match (arguments.access_log, arguments.no_access_log) {
                (false, false) => file.log.access,
                (is_wanted, _) => Some(is_wanted),
            },
            audit: file.log.audit.or(Some(loaded.access.is_some())),
        };
        start_log(&log)?;
        Ok(Self {
            listen: arguments
                .listen
                .or_else(|| file.listen.clone())
                .unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            place: arguments.storage.or(&file.storage, directory).place(std::env::vars())?,
            metrics: arguments
                .metrics
                .or_else(|| file.metrics.as_ref().map(|metrics| metrics.listen.clone())),
            drain: Duration::from_secs(
                arguments.drain.or(file.drain_seconds).unwrap_or(DEFAULT_DRAIN_S),
            ),
            gc: arguments.gc,
            overrides: Overrides {
                read_only: arguments.read_only,
                allow_missing: arguments.allow_missing,
                no_delete: arguments.no_delete,
            },
            file,
            path,
            loaded,
            secret,
        })
    }
}

impl ServeArgs {
    /// Serves until a signal comes.
    pub(crate) async fn run(self, clock: Clock) -> anyhow::Result<()> {
        let settings = Settings::new(self)?;
        match &settings.place {
            Place::Directory(root) => {
                let storage = Local::open(root)
                    .with_context(|| format!("cannot use {} as storage", root.display()))?;
                let place = root.display().to_string();
                serve_images(settings, storage, &place, clock).await
            }
            Place::Bucket(place) => {
                let storage = storage_args::open_bucket(place.clone()).await?;
                let place = place.url.to_string();
                serve_images(settings, storage, &place, clock).await
            }
        }
    }
}

/// Serves what `storage`, which is at `place`, holds.
async fn serve_images(
    settings: Settings,
    storage: impl Storage,
    place: &str,
    clock: Clock,
) -> anyhow::Result<()> {
    storage.sweep().await.context("cannot clear what a crash left")?;
    let Settings { listen, metrics, drain, gc, overrides, file, path, loaded, secret, .. } =
        settings;
    let registry = Arc::new(Registry::new(storage, overrides.apply(loaded.options), clock)?);
    gc.start(&registry);
    let listener =
        TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    if loaded.access.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "there is no access control: who reaches the port may do everything");
    }
    let metrics = match metrics {
        Some(address) => Some(
            metrics::Listener::bind(&address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?,
        ),
        None => None,
    };
    let live = Arc::new(Live::default());
    live.set_access(loaded.access);
    live.set_tls(loaded.tls);
    announce(&address, place);
    if let Some(metrics) = &metrics {
        tracing::info!(address = %metrics.address()?, "serving numbers at /metrics");
    }
    let reload = path.map(|path| {
        let (registry, live) = (Arc::clone(&registry), Arc::clone(&live));
        tokio::spawn(Reload { path, started: file, secret, overrides, registry, live }.run())
    });
    let mut signals = Signals::new()?;
    let mut second = Signals::new()?;
    let stop = async move { signals.next().await };
    let options = server::Options { drain, live, metrics };
    tokio::select! {
        served = server::run(listener, registry, options, stop) => served.context("cannot serve")?,
        // The first signal reaches both; the second ends the wait.
        () = async { second.next().await; second.next().await } => {
            tracing::warn!("stopped at once");
        }
    }
    if let Some(reload) = reload {
        reload.abort();
    }
    Ok(())
}

/// Tells scripts, on standard output, which address was taken.
#[expect(clippy::print_stdout, reason = "the command line talks here")]
fn announce(address: &SocketAddr, place: &str) {
    println!("listening on {address}, images in {place}");
}

fn start_log(config: &LogConfig) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    let filter = config.filter.as_deref().unwrap_or(DEFAULT_LOG);
    let mut filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("cannot understand the log filter {filter}"))?;
    for (is_wanted, target) in [(config.access, "access=off"), (config.audit, "audit=off")] {
        if is_wanted == Some(false) {
            filter = filter.add_directive(target.parse()?);
        }
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    // A log that somebody else has set up (in tests) is as good.
    match config.format.unwrap_or(LogFormat::Text) {
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
