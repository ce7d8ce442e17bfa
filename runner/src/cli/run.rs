//! `rrun run`.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oci::Platform;

use crate::engine::config::{LimitsConfig, PlaceConfig, SecurityConfig};
use crate::engine::launch::Prepared;
use crate::engine::name::Name;
use crate::engine::network::Resolver;
use crate::engine::options::{
    Bytes, Capability, ContainerPort, Cpus, EnvEntry, ExtraHost, HostName, Label, MountRequest,
    NetworkMode, PidsLimit, Publish, PullPolicy, RestartPolicy, SeccompChoice, SecurityOption,
    Signal, SwapLimit, Ulimit, parse_env_file,
};
use crate::engine::request::Request;
use crate::engine::restart::check_policy;
use crate::engine::update::check_swap;
use crate::engine::{Engine, image};

use super::health::HealthArgs;
use super::{Context, caller_env, pull, report};

/// Run a command in a new container
///
/// The image is taken from the local store, or pulled when it is not there.
/// The exit status is that of the command; 125 if the container could not be
/// made, 126 if the command could not be executed, 127 if it was not found.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_usage = "rrun run [OPTIONS] IMAGE [COMMAND] [ARGUMENT]..."
)]
pub(super) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    container: ContainerArgs,
}

/// Make a container without starting it, and print its id
///
/// `rrun start` starts it.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_flag = true,
    override_usage = "rrun create [OPTIONS] IMAGE [COMMAND] [ARGUMENT]..."
)]
pub(super) struct CreateArgs {
    #[command(flatten)]
    container: ContainerArgs,
}

/// What a new container is like.
#[derive(Debug, clap::Args)]
struct ContainerArgs {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// When to start it again: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, default_value = "no", value_name = "POLICY")]
    restart: RestartPolicy,
    #[command(flatten)]
    health: HealthArgs,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or pass one on (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<EnvEntry>,
    /// Read variables from a file (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Show a host directory or file or a volume inside, or keep TARGET outside the overlay (can be repeated)
    #[arg(short, long, value_name = "[SOURCE|VOLUME:]TARGET[:ro]", value_parser = MountRequest::from_volume)]
    volume: Vec<MountRequest>,
    /// Mount with type=bind|tmpfs|volume,source=…,target=…[,readonly][,volume-nocopy][,volume-subpath=…] (can be repeated)
    #[arg(long, value_name = "FIELDS", value_parser = MountRequest::from_mount)]
    mount: Vec<MountRequest>,
    /// Mount a directory in memory (can be repeated)
    #[arg(long, value_name = "TARGET[:size=…,mode=…]", value_parser = MountRequest::from_tmpfs)]
    tmpfs: Vec<MountRequest>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// User inside, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Name of the container; two words are drawn otherwise
    #[arg(long)]
    name: Option<Name>,
    /// Host name inside; the short container id otherwise
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "BYTES", value_parser = Bytes::memory_limit)]
    memory: Option<Bytes>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<PidsLimit>,
    /// Network: bridge, host, none, container:NAME or one of `rrun network ls`;
    /// bridge otherwise, host for ordinary users
    #[arg(long, alias = "net", env = "RRUN_NETWORK", value_name = "NETWORK")]
    network: Option<NetworkMode>,
    /// Publish a port of the container on this machine (can be repeated)
    #[arg(short, long, value_name = "[[IP:]HOST:]CONTAINER[/PROTOCOL]")]
    publish: Vec<Publish>,
    /// Publish every exposed port at a free port of this machine
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the container listens on a port (can be repeated)
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<ContainerPort>,
    /// Address in the network; any free one otherwise
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// Another name by which containers of the network find it (can be repeated)
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<HostName>,
    /// Server to ask for names (can be repeated)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// Domain to look for short names in (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option for /etc/resolv.conf (can be repeated)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Name that the container knows; host-gateway is this machine (can be repeated)
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<ExtraHost>,
    /// Program to run instead of the image's entrypoint; "" for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Add a capability, or ALL (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<Capability>,
    /// Drop a capability, or ALL (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<Capability>,
    /// no-new-privileges, seccomp=unconfined or seccomp=FILE (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<SecurityOption>,
    /// Set a resource limit (can be repeated)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Run a small init that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// When to pull the image
    #[arg(long, default_value = "missing", value_name = "missing|always|never")]
    pull: PullPolicy,
    /// Platform of the image, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Label the container (can be repeated)
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<Label>,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Signal that `rrun stop` sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// Allow plain HTTP and unverified certificates when pulling
    #[arg(long)]
    insecure: bool,
    /// Image to run, and what in it; the image's own command otherwise
    // One argument, so that all that follows the image is the container's,
    // also what looks like an option of ours.
    #[arg(trailing_var_arg = true, required = true, value_name = "IMAGE [COMMAND]")]
    image: Vec<String>,
}

pub(super) fn create(args: CreateArgs, context: &Context) -> anyhow::Result<u8> {
    let args = args.container;
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let engine = context.engine()?;
    let prepared = args.create(&engine, false, false)?;
    if let Some(cidfile) = cidfile {
        cidfile.keep(prepared.id().as_str())?;
    }
    writeln!(io::stdout(), "{}", prepared.keep())?;
    Ok(0)
}

pub(super) fn run(args: RunArgs, context: &Context) -> anyhow::Result<u8> {
    let RunArgs { detach, container: args } = args;
    if args.tty && args.interactive && !detach && !io::stdin().is_terminal() {
        bail!("-i and -t together need a terminal as standard input");
    }
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let interactive = args.interactive;
    let engine = context.engine()?;
    let prepared = args.create(&engine, detach, true)?;
    let id = prepared.id().clone();
    if detach {
        report::warn(&prepared.start_detached()?);
        if let Some(cidfile) = cidfile {
            cidfile.keep(id.as_str())?;
        }
        writeln!(io::stdout(), "{id}")?;
        engine.tidy();
        return Ok(0);
    }
    let started = |warnings: &[String]| {
        report::warn(warnings);
        cidfile.map_or(Ok(()), |cidfile| cidfile.keep(id.as_str()))
    };
    let code =
        prepared.run_attached(interactive, started, |text| report::warn(&[text.to_owned()]))?;
    engine.tidy();
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

impl ContainerArgs {
    /// Makes the container, pulling its image first if need be.
    fn create(self, engine: &Engine, detach: bool, starts: bool) -> anyhow::Result<Prepared<'_>> {
        let reference = self.image.first().cloned().unwrap_or_default();
        let platform = self.platform.clone().unwrap_or_else(Platform::host);
        let image =
            image::resolve(engine.store(), &reference, self.pull, &platform, |reference| {
                pull::pull(engine.store(), reference, &platform, self.insecure)
            })?;
        let name = self.name.clone();
        Ok(engine.create(self.request(detach)?, name.as_ref(), &image, starts, caller_env)?)
    }

    /// Turns the arguments into what the engine understands, reading the
    /// files they name.
    fn request(self, detach: bool) -> anyhow::Result<Request> {
        check_policy(self.restart, self.rm)?;
        let mut env = Vec::new();
        for path in &self.env_file {
            let bytes =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let entries = parse_env_file(&bytes)
                .map_err(|reason| anyhow::anyhow!("cannot use {}: {reason}", path.display()))?;
            env.extend(entries);
        }
        env.extend(self.env);
        let mut mounts: Vec<_> =
            self.volume.into_iter().chain(self.mount).chain(self.tmpfs).collect();
        for mount in &mut mounts {
            if let MountRequest::Bind(bind) = mount {
                bind.source = std::path::absolute(&bind.source)
                    .with_context(|| format!("cannot use {}", bind.source.display()))?;
            }
        }
        let mut security = SecurityConfig {
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            ..SecurityConfig::default()
        };
        for option in self.security_opt {
            match option {
                SecurityOption::NoNewPrivileges(yes) => security.no_new_privileges = yes,
                SecurityOption::Seccomp(SeccompChoice::File(path)) => {
                    let path = std::path::absolute(&path)
                        .with_context(|| format!("cannot use {}", path.display()))?;
                    security.seccomp = SeccompChoice::File(path);
                }
                SecurityOption::Seccomp(choice) => security.seccomp = choice,
                SecurityOption::NoModule => {}
            }
        }
        let limits = LimitsConfig {
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpus: self.cpus,
            pids: self.pids_limit.unwrap_or_default(),
            ulimits: self.ulimit,
        };
        check_swap(&limits)?;
        let mut words = self.image.into_iter();
        Ok(Request {
            image: words.next().unwrap_or_default(),
            args: words.collect(),
            entrypoint: self.entrypoint,
            env,
            workdir: self.workdir,
            user: self.user,
            hostname: self.hostname,
            terminal: self.tty,
            interactive: self.interactive,
            detach,
            remove: self.rm,
            restart: self.restart,
            health: self.health.request(),
            init: self.init,
            read_only: self.read_only,
            network: settle_network(self.network, !self.publish.is_empty() || self.publish_all)?,
            place: PlaceConfig {
                address: self.ip,
                published: self.publish.into_iter().flat_map(|Publish(ports)| ports).collect(),
                exposed: self.expose,
                aliases: self.network_alias.into_iter().map(|HostName(name)| name).collect(),
                resolver: Resolver {
                    servers: self.dns,
                    search: self.dns_search,
                    options: self.dns_option,
                },
                hosts: self.add_host,
            },
            publish_all: self.publish_all,
            mounts,
            limits,
            security,
            labels: self.label.into_iter().map(|label| (label.key, label.value)).collect(),
            stop_signal: self.stop_signal,
        })
    }
}

/// Returns the network to be in where none was asked for: docker's for root, the
/// host's for an ordinary user, who may not make devices there.
fn settle_network(asked: Option<NetworkMode>, publishes: bool) -> anyhow::Result<NetworkMode> {
    let is_rootless = sandbox::rootless::is_rootless();
    match &asked {
        Some(NetworkMode::Named(name)) if is_rootless => {
            bail!(
                "network {name} needs root: an ordinary user's containers have host, none or container:NAME"
            )
        }
        Some(NetworkMode::Host) if publishes => {
            report::warn(&["ports are not published in the host's network: what listens there is reached as it is".to_owned()]);
        }
        None if is_rootless && publishes => {
            bail!(
                "an ordinary user cannot publish ports: with --network host the program's own ports are reached as they are"
            )
        }
        _ => {}
    }
    let default = if is_rootless { NetworkMode::Host } else { NetworkMode::bridge() };
    Ok(asked.unwrap_or(default))
}

/// A file that will hold a container's id. It is made before the container,
/// so that an existing one is noticed in time, and removed if none is made.
#[derive(Debug)]
struct CidFile {
    file: fs::File,
    path: PathBuf,
    is_kept: bool,
}

impl CidFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = fs::File::create_new(path)
            .with_context(|| format!("cannot create the container id file {}", path.display()))?;
        Ok(Self { file, path: path.to_owned(), is_kept: false })
    }

    fn keep(mut self, id: &str) -> io::Result<()> {
        self.file.write_all(id.as_bytes())?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for CidFile {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "an empty file is left");
        }
    }
}

#[cfg(test)]
mod tests;
