//! Reads the configuration again when it changes.
//!
//! Files are looked at every few seconds rather than watched: that also sees what
//! is mounted over them, replaced by a link (Kubernetes), or on another machine.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Config, Loaded, directory_of};
use crate::content::{Options, Registry};
use crate::server::Live;
use crate::storage::Storage;

/// How often files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What tells two versions of a file apart.
type Fingerprint = Option<(u64, u64, u64, i64, i64)>;

/// What is needed to use a configuration again.
pub(crate) struct Reload<S> {
    pub(crate) path: PathBuf,
    /// The configuration that the program started with.
    pub(crate) started: Config,
    pub(crate) secret: [u8; 32],
    pub(crate) overrides: Overrides,
    pub(crate) registry: Arc<Registry<S>>,
    pub(crate) live: Arc<Live>,
}

/// What flags and environment say of the rules for content.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) read_only: bool,
    pub(crate) allow_missing: bool,
    pub(crate) no_delete: bool,
}

impl Overrides {
    /// Puts what they say before what the file says.
    pub(crate) fn apply(&self, options: Options) -> Options {
        Options {
            read_only: options.read_only || self.read_only,
            allow_missing: options.allow_missing || self.allow_missing,
            allow_delete: options.allow_delete && !self.no_delete,
            ..options
        }
    }
}

impl<S: Storage> Reload<S> {
    /// Uses the configuration anew whenever it changes or SIGHUP comes.
    ///
    /// What cannot be used is reported, and what was used before stays.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(%error, "cannot wait for SIGHUP");
                return;
            }
        };
        let mut files = self.files(&self.started);
        let mut seen = fingerprints(&files);
        loop {
            let must = tokio::select! {
                _ = ticks.tick() => false,
                asked = hangup.recv() => asked.is_some(),
            };
            let now = fingerprints(&files);
            if now == seen && !must {
                continue;
            }
            seen = now;
            match self.reload() {
                Ok(config) => {
                    files = self.files(&config);
                    seen = fingerprints(&files);
                }
                Err(error) => tracing::error!(
                    error = format!("{error:#}"),
                    "the configuration cannot be used; the one before stays"
                ),
            }
        }
    }

    fn files(&self, config: &Config) -> Vec<PathBuf> {
        let mut files = config.files(directory_of(&self.path));
        files.push(self.path.clone());
        files
    }

    fn reload(&self) -> anyhow::Result<Config> {
        let config = Config::load(&self.path)?;
        let Loaded { options, access, tls } =
            config.resolve(directory_of(&self.path), &self.secret)?;
        if !config.starts_like(&self.started) {
            tracing::warn!("addresses, storage and log change with a restart, not before");
        }
        // A port that spoke TLS never speaks without, nor the other way round.
        if self.started.tls.is_some() == tls.is_some() {
            self.live.set_tls(tls);
        }
        self.live.set_access(access);
        self.registry.set_options(self.overrides.apply(options));
        tracing::info!(path = %self.path.display(), "the configuration was read again");
        Ok(config)
    }
}

fn fingerprints(files: &[PathBuf]) -> Vec<Fingerprint> {
    files.iter().map(|file| fingerprint(file)).collect()
}

fn fingerprint(file: &Path) -> Fingerprint {
    let found = std::fs::metadata(file).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
