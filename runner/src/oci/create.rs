//! Making a container and starting its command.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use sandbox::bundle::{self, Bundle, Start, gate, run_hooks};
use sandbox::cgroup::{Placed, Resources};
use sandbox::{Sandboxed, Stdio};

use super::console;
use super::error::{Error, Result};
use super::rootless;
use super::spec::{self, Config, Hook};
use super::state::{Container, Creating, Id, Record, States, Status, write_whole};

/// What `create` and `run` are given beside the bundle.
#[derive(Debug)]
pub struct Request<'a> {
    /// The container's name.
    pub id: &'a Id,
    /// The bundle's directory, absolute.
    pub bundle: &'a Path,
    /// The socket that gets the terminal.
    pub console_socket: Option<&'a Path>,
    /// The file that gets the process id.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors from 3 on the command gets.
    pub preserved: Vec<OwnedFd>,
    /// When it is, RFC 3339.
    pub now: String,
    /// Whether the command waits for `start`.
    pub waits: bool,
    /// Whether nobody stays with it.
    pub detached: bool,
}

/// A container whose first process is there.
#[derive(Debug)]
pub struct Made {
    /// The container.
    pub container: Container,
    /// Its configuration.
    pub config: Config,
    /// Its first process; killed when this is dropped.
    pub process: Sandboxed,
}

/// Makes a container.
///
/// # Errors
///
/// When the configuration is refused or something cannot be set up. Nothing is
/// left behind then.
pub fn create(states: &States, request: Request<'_>) -> Result<Made> {
    let (config, bytes) = spec::read(request.bundle)?;
    let mut bundle = spec::bundle(&config, request.bundle)?;
    rootless::translate(&mut bundle)?;
    let console = console_of(&bundle, &request)?;
    let preserved = request.preserved.len();
    if preserved > 0 && !bundle.process.env.iter().any(|entry| entry.starts_with("LISTEN_FDS=")) {
        announce_sockets(&mut bundle, preserved);
    }
    let record = Record {
        id: request.id.to_string(),
        bundle: request.bundle.to_owned(),
        rootfs: bundle.root.clone(),
        created: request.now.clone(),
        owner: rustix::process::getuid().as_raw(),
        annotations: config.annotations.clone(),
        process: None,
        groups: Placed::default(),
    };
    let mut creating = states.begin(request.id, record, &bytes)?;
    match build(&mut creating, &config, &bundle, request, console.as_ref()) {
        Ok(process) => {
            let Creating { container, .. } = creating;
            Ok(Made { container, config, process })
        }
        Err(error) => {
            clean_up(&creating.container, &config);
            Err(error)
        }
    }
}

/// Tells the command about sockets, if the engine was told about them.
fn announce_sockets(bundle: &mut Bundle, preserved: usize) {
    let Some(count) = std::env::var_os("LISTEN_FDS").and_then(|text| text.into_string().ok())
    else {
        return;
    };
    if count.parse::<usize>().is_ok_and(|count| count > 0 && count <= preserved) {
        bundle.process.env.push(format!("LISTEN_FDS={count}"));
        bundle.process.env.push("LISTEN_PID=1".to_owned());
    }
}

/// A terminal needs somebody to hold it.
fn console_of(bundle: &Bundle, request: &Request<'_>) -> Result<Option<UnixStream>> {
    match (bundle.process.terminal, request.console_socket) {
        (true, Some(path)) => console::connect(path).map(Some),
        (true, None) if request.detached || request.waits => Err(Error::invalid(
            "process.terminal needs a console socket, unless it is `run` in the foreground",
        )),
        (false, Some(_)) => {
            Err(Error::invalid("a console socket was given, and process.terminal is not set"))
        }
        (_, None) => Ok(None),
    }
}

fn build(
    creating: &mut Creating,
    config: &Config,
    bundle: &Bundle,
    request: Request<'_>,
    console: Option<&UnixStream>,
) -> Result<Sandboxed> {
    let container = &mut creating.container;
    let lenient = !is_host_root();
    let path = cgroups_path(config, request.id);
    let nothing = Resources::default();
    let resources = config.linux.resources.as_ref().unwrap_or(&nothing);
    container.record.groups = Placed::create(&path, lenient)?;
    container.save()?;
    container.record.groups.apply(resources)?;
    container.record.groups.guard_devices(resources, lenient)?;
    let gate = if request.waits { Some(gate::make(container.directory())?) } else { None };
    let hooks = &config.hooks;
    let record = &container.record;
    let mut mounted = |pid| {
        let state = record.state(Status::Creating, Some(pid)).to_string();
        let run = |kind, hooks: &[Hook]| {
            let hooks = spec::hooks(hooks)
                .map_err(|error| sandbox::Error::Invalid { what: error.to_string() })?;
            run_hooks(kind, &hooks, &state)
        };
        run("prestart", &hooks.prestart)?;
        run("createRuntime", &hooks.create_runtime)?;
        // What hooks in the container are told.
        Ok(record.state(Status::Creating, Some(pid)).to_string())
    };
    let start = Start { stdio: Stdio::inherit(), preserved: request.preserved, gate };
    let process = bundle::create(bundle, &container.record.groups, start, &mut mounted)?;
    if let Some(socket) = console
        && let Some(master) = process.take_terminal()
    {
        console::send(socket, &master)?;
    }
    container.record.process = Some((process.pid(), process.start_time()));
    container.save()?;
    if let Some(path) = request.pid_file {
        write_whole(path, process.pid().to_string().as_bytes())?;
    }
    Ok(process)
}

/// Returns where the control groups are: where the configuration says, else
/// beneath the caller's own.
fn cgroups_path(config: &Config, id: &Id) -> PathBuf {
    let wanted = config.linux.cgroups_path.as_ref().filter(|path| !path.as_os_str().is_empty());
    wanted.cloned().unwrap_or_else(|| PathBuf::from(id.as_str()))
}

/// Whether user id 0 here is that of the host, which may change everything.
pub(super) fn is_host_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root()
        && map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Removes what a creation that failed has left.
fn clean_up(container: &Container, config: &Config) {
    if let Err(error) = container.record.groups.remove() {
        tracing::warn!(%error, "a control group is left");
    }
    let hooks = run_poststop(container, config);
    if let Err(error) = hooks.and_then(|()| container.forget()) {
        tracing::warn!(%error, "the state of a container is left");
    }
}

/// Runs the hooks that come after a container.
///
/// # Errors
///
/// When one fails.
pub fn run_poststop(container: &Container, config: &Config) -> Result<()> {
    let state = container.record.state(Status::Stopped, None).to_string();
    Ok(run_hooks("poststop", &spec::hooks(&config.hooks.poststop)?, &state)?)
}

/// Runs the hooks that come after the start. One that fails is told, and the
/// container goes on (`runtime.md`, "Lifecycle").
///
/// # Errors
///
/// When a hook makes no sense.
pub fn run_poststart(container: &Container, config: &Config) -> Result<()> {
    let pid = container.record.process.map(|(pid, _)| pid);
    let state = container.record.state(Status::Running, pid).to_string();
    let hooks = spec::hooks(&config.hooks.poststart)?;
    if let Err(error) = run_hooks("poststart", &hooks, &state) {
        tracing::warn!(%error, "a hook failed");
    }
    Ok(())
}
