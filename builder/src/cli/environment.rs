//! What the program takes from its surroundings: variables, the clock, the user.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::fetch::Environment;
use oci::Reference;
use store::remote::{AuthFile, Client, ClientOptions, Proxies};

#[expect(clippy::disallowed_methods, reason = "this is the border where the environment is read")]
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns a variable as it is, even if it is empty.
#[expect(clippy::disallowed_methods, reason = "this is the border where the environment is read")]
pub(super) fn raw_variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[expect(clippy::disallowed_methods, reason = "this is the border where the clock is read")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

/// Returns whether stderr may have colours.
pub(crate) fn colour_wanted() -> bool {
    variable("NO_COLOR").is_none()
        && variable("TERM").is_none_or(|term| term != "dumb")
        && std::io::stderr().is_terminal()
}

/// Returns where the store is unless one is given: the machine's for root, else the user's own.
pub(super) fn default_root() -> PathBuf {
    if sandbox::rootless::is_rootless() {
        let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        let data = variable("XDG_DATA_HOME")
            .and_then(absolute)
            .or_else(|| Some(variable("HOME").and_then(absolute)?.join(".local/share")));
        if let Some(data) = data {
            return data.join("rbuild");
        }
    }
    PathBuf::from("/var/lib/rbuild")
}

/// Returns docker's file of credentials, which `login` writes.
pub(super) fn docker_config() -> Option<PathBuf> {
    variable("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker")))
        .map(|directory| directory.join("config.json"))
}

/// Returns the files that credentials are looked for in, in order.
pub(super) fn auth_files() -> Vec<AuthFile> {
    let podman = variable("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("XDG_RUNTIME_DIR")?).join("containers/auth.json")));
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))
        .map(|directory| directory.join("containers/auth.json"));
    [docker_config(), podman, config].into_iter().flatten().map(AuthFile::new).collect()
}

/// Makes a client for a registry. It costs milliseconds: only commands that use the
/// network make one.
pub(super) fn client(registry: &str, insecure: bool) -> Client {
    let insecure_hosts = if insecure { vec![registry.to_owned()] } else { Vec::new() };
    client_with(insecure_hosts, auth_files())
}

/// Makes a client that may be insecure with these hosts, and finds credentials in these files.
pub(super) fn client_with(insecure_hosts: Vec<String>, auth_files: Vec<AuthFile>) -> Client {
    let either = |upper: &str, lower: &str| variable(lower).or_else(|| variable(upper));
    let defaults = ClientOptions::default();
    Client::new(ClientOptions {
        auth_files,
        insecure_hosts,
        ca_files: variable("SSL_CERT_FILE").map(PathBuf::from).into_iter().collect(),
        certs_directories: vec![PathBuf::from("/etc/docker/certs.d")],
        proxies: Proxies {
            // The capital form is set by web servers from a request's header.
            http: variable("http_proxy"),
            https: either("HTTPS_PROXY", "https_proxy"),
            all: either("ALL_PROXY", "all_proxy"),
            no_proxy: either("NO_PROXY", "no_proxy"),
        },
        user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        timeout: patience().unwrap_or(defaults.timeout),
        ..defaults
    })
}

/// Returns for how long a registry may be silent, where `RBUILD_TIMEOUT` says so in seconds.
fn patience() -> Option<Duration> {
    let seconds: u64 = variable("RBUILD_TIMEOUT")?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Returns what `git` gets of the surroundings: where programs and proxies are, and the
/// agent and known hosts for ssh.
pub(super) fn git() -> Environment {
    let mut variables = BTreeMap::new();
    let proxies = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"];
    for name in
        ["PATH", "SSH_AUTH_SOCK", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"].into_iter().chain(proxies)
    {
        variables.extend(variable(name).map(|value| (name.to_owned(), value)));
    }
    variables.extend(variable("SSL_CERT_FILE").map(|path| ("GIT_SSL_CAINFO".to_owned(), path)));
    let known_hosts = variable("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"));
    Environment { variables, known_hosts }
}

/// Returns a client for the registry of a reference.
pub(super) fn client_for(reference: &Reference, insecure: bool) -> Client {
    client(reference.registry(), insecure)
}
