//! `rrun pull`, and pulling on the way to `run`.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use oci::{Descriptor, Digest, Platform, Reference};
use store::Store;
use store::remote::{AuthFile, Client, ClientOptions, Event, Proxies, PullOptions, Task};

use crate::engine::options::Bytes;
use crate::engine::{Error, Result};

use super::{Context, caller_env};

/// Fetch an image from a registry
///
/// A short form of `rbuild pull`: both fill the same store.
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Allow plain HTTP and unverified certificates
    #[arg(long)]
    insecure: bool,
    /// Image to fetch
    image: String,
}

pub(super) fn run(args: &PullArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let reference: Reference = args
        .image
        .parse()
        .with_context(|| format!("invalid image reference \"{}\"", args.image))?;
    let platform = args.platform.clone().unwrap_or_else(Platform::host);
    let descriptor = pull(engine.store(), &reference, &platform, args.insecure)?;
    writeln!(io::stdout(), "{}", reference.with_digest(descriptor.digest))?;
    Ok(0)
}

/// Fetches an image, with its progress on stderr.
pub(super) fn pull(
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    insecure: bool,
) -> Result<Descriptor> {
    let failed = |source| Error::Pull { reference: reference.familiar(), source };
    let progress = Progress::new(reference);
    let client = Client::new(options(reference, insecure));
    let lease = store.lease()?;
    let wanted = PullOptions { platform: platform.clone(), ..PullOptions::default() };
    let pulled =
        client.pull(&lease, reference, &wanted, &|event| progress.tell(&event)).map_err(failed)?;
    progress.done();
    Ok(pulled.descriptor)
}

/// Collects from the environment how registries are reached.
fn options(reference: &Reference, insecure: bool) -> ClientOptions {
    let env = |key: &str| caller_env(key).filter(|value| !value.is_empty());
    let either = |upper: &str, lower: &str| env(lower).or_else(|| env(upper));
    let home = || env("HOME").map(PathBuf::from);
    let docker = env("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(home()?.join(".docker")))
        .map(|dir| dir.join("config.json"));
    let podman = env("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| Some(env("XDG_RUNTIME_DIR").map(PathBuf::from)?.join("containers/auth.json")));
    let config = env("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home()?.join(".config")))
        .map(|dir| dir.join("containers/auth.json"));
    ClientOptions {
        auth_files: [docker, podman, config].into_iter().flatten().map(AuthFile::new).collect(),
        insecure_hosts: if insecure { vec![reference.registry().to_owned()] } else { Vec::new() },
        ca_files: env("SSL_CERT_FILE").map(PathBuf::from).into_iter().collect(),
        certs_directories: vec![PathBuf::from("/etc/docker/certs.d")],
        proxies: Proxies {
            // The capital form is set by web servers from a request's header.
            http: env("http_proxy"),
            https: either("HTTPS_PROXY", "https_proxy"),
            all: either("ALL_PROXY", "all_proxy"),
            no_proxy: either("NO_PROXY", "no_proxy"),
        },
        user_agent: concat!("rrun/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..ClientOptions::default()
    }
}

/// Tells on stderr how far a pull is: one line that is written again on a
/// terminal, a few lasting lines elsewhere.
struct Progress {
    is_terminal: bool,
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: u64,
    done: std::collections::BTreeMap<Digest, u64>,
    there: BTreeSet<Digest>,
    shown: String,
}

impl Progress {
    fn new(reference: &Reference) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let name = reference.familiar();
        Self { is_terminal, name, state: Mutex::new(State::default()) }
    }

    fn tell(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Resolved { .. } if !self.is_terminal => say(&format!("pulling {}\n", self.name)),
            Event::Started { digest, task: Task::Download, size } => {
                state.total += size;
                state.done.insert(*digest, 0);
            }
            Event::Progress { digest, task: Task::Download, done } => {
                state.done.insert(*digest, *done);
            }
            Event::Exists { digest, task: Task::Download } => {
                state.there.insert(*digest);
            }
            Event::Retrying { what, reason, .. } => {
                say(&format!("{}warning: {what}: {reason}; trying again\n", self.line_start()));
            }
            _ => {}
        }
        if self.is_terminal {
            let done = state.done.values().sum();
            let line = format!("pulling {}: {} of {}", self.name, Bytes(done), Bytes(state.total));
            if line != state.shown {
                say(&format!("{}{line}", self.line_start()));
                state.shown = line;
            }
        }
    }

    fn done(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let received = Bytes(state.done.values().sum());
        let there = match state.there.len() {
            0 => String::new(),
            count => format!(", {count} blobs were there"),
        };
        say(&format!("{}pulled {}: {received}{there}\n", self.line_start(), self.name));
    }

    /// Goes back to the beginning of a line that is written again.
    fn line_start(&self) -> &'static str {
        if self.is_terminal { "\r\x1b[K" } else { "" }
    }
}

fn say(text: &str) {
    // Progress that nobody can see is no failure.
    let _written = io::stderr().write_all(text.as_bytes());
}
