//! What a client is told by its program.

use std::path::PathBuf;
use std::time::Duration;

use super::auth::AuthFile;
use super::retry::Retry;

/// How to reach registries. Nothing is taken from the environment: the program does that.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where credentials are, the first that has some for a registry wins.
    pub auth_files: Vec<AuthFile>,
    /// Where credential helpers are searched before the usual path of programs.
    pub helper_directory: Option<PathBuf>,
    /// Hosts (with their port, if it is part of their name) that may be spoken to over plain
    /// HTTP, or over TLS without checking certificates. `localhost`, `127.0.0.0/8` and `::1` need
    /// not be listed for plain HTTP.
    pub insecure_hosts: Vec<String>,
    /// Files with certificates (PEM) to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Directories with one directory per host, holding `*.crt` to trust, and `*.cert` with
    /// `*.key` to present; `/etc/docker/certs.d` is the usual one.
    pub certs_directories: Vec<PathBuf>,
    /// Proxies on the way to registries.
    pub proxies: Proxies,
    /// How patient to be.
    pub retry: Retry,
    /// How many blobs travel at once.
    pub parallel: usize,
    /// How long nothing may happen while something is read; writes get more.
    pub timeout: Duration,
    /// What to call itself: `rbuild/1.2.3`.
    pub user_agent: String,
}

impl Default for ClientOptions {
    /// Knows no credentials, no proxies, and no certificates but the system's.
    fn default() -> Self {
        Self {
            auth_files: Vec::new(),
            helper_directory: None,
            insecure_hosts: Vec::new(),
            ca_files: Vec::new(),
            certs_directories: Vec::new(),
            proxies: Proxies::default(),
            retry: Retry::default(),
            parallel: 4,
            timeout: Duration::from_secs(60),
            user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Proxies, as `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name them.
///
/// This machine's own addresses are never reached through a proxy.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http` addresses.
    pub http: Option<String>,
    /// For `https` addresses.
    pub https: Option<String>,
    /// For both, where there is no special one.
    pub all: Option<String>,
    /// Hosts, domains, addresses and networks to reach directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl std::fmt::Debug for Proxies {
    /// Hides the addresses, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("all", &self.all.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}
