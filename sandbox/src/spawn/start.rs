//! Starting a process: clone, plan, answer.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};

use super::answers::{Answers, Unreaped};
use super::{
    Channel, Enter, Message, Pause, Plan, Running, Sandboxed, find_start_time_of, open_helper,
};
use crate::caps;
use crate::cgroup::{self, Cgroup};
use crate::dns::{self, Resolver};
use crate::error::{Context as _, Error, Result};
use crate::netlink;
use crate::seccomp;
use crate::spec::{Network, Process, Root, Spec};
use crate::stubs::Stub;
use crate::sys;

/// One standard stream of a process.
#[derive(Debug)]
pub enum Stream {
    /// `/dev/null`.
    Null,
    /// The caller's own stream.
    Inherit,
    /// A descriptor, for instance the end of a pipe.
    Fd(OwnedFd),
}

/// The standard streams of a process. Without effect when it has a terminal.
#[derive(Debug)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: Stream,
    /// Descriptor 1.
    pub stdout: Stream,
    /// Descriptor 2.
    pub stderr: Stream,
}

impl Stdio {
    /// Returns the caller's own streams.
    #[must_use]
    pub fn inherit() -> Self {
        Self { stdin: Stream::Inherit, stdout: Stream::Inherit, stderr: Stream::Inherit }
    }

    /// Returns nothing to read and nowhere to write.
    #[must_use]
    pub fn null() -> Self {
        Self { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null }
    }
}

/// Starts a sandbox, and returns when its command has been executed.
///
/// # Errors
///
/// See [`Error`]; [`Error::exit_code`] tells 125, 126 and 127 apart. Nothing
/// is left behind.
pub fn spawn(spec: &Spec, stdio: Stdio) -> Result<Sandboxed> {
    spawn_or_hold(spec, stdio, false)
}

/// Makes a sandbox in which nothing is executed, and returns when everything in
/// it is mounted: for looking at its files through `/proc/PID/root`. It ends
/// when the value is dropped, at the latest with the calling thread.
///
/// # Errors
///
/// As [`spawn`].
pub fn hold(spec: &Spec) -> Result<Sandboxed> {
    spawn_or_hold(spec, Stdio::null(), true)
}

/// Starts a process that holds on to a descriptor for a moment, and nothing
/// else; nobody waits for it.
pub(crate) fn linger(descriptor: BorrowedFd<'_>) -> Result<()> {
    let program = open_helper()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| "open /dev/null")?;
    sys::clone_helper(&sys::Clone {
        namespaces: 0,
        stdio: [null.as_fd(); 3],
        channel: descriptor,
        program,
        cgroup: None,
        argument: c"linger",
    })
    .map(drop)
    .cannot(|| "start the helper rrun-init")
}

fn spawn_or_hold(spec: &Spec, stdio: Stdio, holds: bool) -> Result<Sandboxed> {
    if !matches!(spec.root, Root::Chroot { .. }) {
        crate::rootless::require_namespaces()?;
    }
    let (mut capabilities, mut filter) = security(&spec.process)?;
    if let Root::Chroot { .. } = spec.root {
        // Either is the way out of a chroot, and nothing else stands there.
        capabilities &= !caps::leaves_chroot();
        if !spec.process.security.no_new_privileges && !crate::rootless::may_mount() {
            // It takes the same capability; the outer container's filter is in force.
            filter = seccomp::Filter::default();
        }
    }
    let mut warnings = Vec::new();
    let cgroup = match &spec.cgroup {
        Some(cgroup) => {
            let guard = caps::contains_mknod(capabilities) && !spec.privileged;
            Some(Cgroup::create(cgroup, guard, &mut warnings)?)
        }
        None => None,
    };
    let enter = match &spec.root {
        Root::Chroot { path } => chroot(spec, path)?,
        root @ (Root::Overlay { .. } | Root::Directory { .. }) => Enter::New {
            root: root.clone(),
            mounts: spec.mounts.clone(),
            network: spec.network.clone(),
            hostname: spec.hostname.clone(),
            cgroups: cgroup.as_ref().map(Cgroup::mounts).unwrap_or_default(),
            devices_guarded: cgroup.as_ref().is_some_and(Cgroup::guards_devices),
            privileged: spec.privileged,
        },
    };
    let namespaces = namespaces(spec);
    let plan = Plan {
        enter,
        process: without_security(&spec.process),
        die_with_parent: spec.die_with_parent,
        holds,
        attach: cgroup.as_ref().map(Cgroup::attach_files).unwrap_or_default(),
        capabilities,
        filter: filter.instructions,
        filter_log: filter.log,
        filter_speculation: filter.speculation,
        own: None,
    };
    let unified = cgroup.as_ref().and_then(Cgroup::unified);
    let shared = match spec.network {
        Network::Shared { pid, start_time } => Running { pid, start_time }.open().map(Some),
        Network::Host | Network::None | Network::Bridged { .. } => Ok(None),
    };
    let started = shared.and_then(|shared| {
        let request = Request::new(&plan, &stdio);
        start(Request { namespaces, cgroup: unified, target: shared.as_ref(), ..request })
    });
    // The cgroup is removed on failure, too; what remains is left to `sweep`.
    let mut started = started.inspect_err(|_| {
        if let Some(cgroup) = &cgroup {
            cgroup.remove().ok();
        }
    })?;
    // The sandbox has its copies now: pipes end when it lets go of them.
    drop(stdio);
    let sockets = std::mem::take(&mut started.sockets);
    let mut sandboxed = started.into_sandboxed(cgroup, warnings);
    if let Network::Bridged { resolver: Some(resolver), .. } = &spec.network {
        dns::start(Resolver::clone(resolver), sockets)?;
    }
    if let Root::Chroot { .. } = spec.root {
        // The helper kills the others before it ends.
        sandboxed.ends_by = libc::SIGTERM;
    }
    Ok(sandboxed)
}

fn namespaces(spec: &Spec) -> i32 {
    if let Root::Chroot { .. } = spec.root {
        return 0;
    }
    let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    match spec.network {
        Network::Host | Network::Shared { .. } => own,
        Network::None | Network::Bridged { .. } => own | libc::CLONE_NEWNET,
    }
}

/// Returns how a plain directory is entered, of which not everything can be
/// asked.
fn chroot(spec: &Spec, root: &Path) -> Result<Enter> {
    if !spec.mounts.is_empty() {
        return Err(Error::invalid("nothing can be mounted in a chroot"));
    }
    match spec.network {
        Network::None | Network::Bridged { .. } | Network::Shared { .. } => {
            Err(Error::invalid("a chroot has the network of the host"))
        }
        Network::Host => Ok(Enter::Chroot { root: root.to_owned() }),
    }
}

/// Adds a process to a sandbox that runs: to all its namespaces and its
/// control groups.
///
/// # Errors
///
/// [`Error::NotRunning`] when the sandbox has ended, otherwise as [`spawn`].
pub fn exec(target: &Running, process: &Process, stdio: Stdio) -> Result<Sandboxed> {
    join(target, process, stdio, true)
}

/// Does the same for a process that does not end with the caller; see
/// [`Sandboxed::leave`].
///
/// # Errors
///
/// As [`exec`].
pub fn exec_detached(target: &Running, process: &Process, stdio: Stdio) -> Result<Sandboxed> {
    join(target, process, stdio, false)
}

fn join(
    target: &Running,
    process: &Process,
    stdio: Stdio,
    die_with_parent: bool,
) -> Result<Sandboxed> {
    let pidfd = target.open()?;
    let (capabilities, filter) = security(process)?;
    let plan = Plan {
        enter: Enter::Join { pid: target.pid },
        process: without_security(process),
        die_with_parent,
        holds: false,
        attach: cgroup::attach_files_of(target.pid)?,
        capabilities,
        filter: filter.instructions,
        filter_log: filter.log,
        filter_speculation: filter.speculation,
        own: None,
    };
    let started = start(Request { target: Some(&pidfd), ..Request::new(&plan, &stdio) })?;
    drop(stdio);
    Ok(started.into_sandboxed(None, Vec::new()))
}

fn security(process: &Process) -> Result<(u64, seccomp::Filter)> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command was given"));
    }
    let security = &process.security;
    let capabilities = caps::resolve(&security.cap_add, &security.cap_drop)?;
    Ok((capabilities, seccomp::filter(&security.seccomp, capabilities)?))
}

/// The profile's text need not travel: the filter does.
fn without_security(process: &Process) -> Process {
    let mut process = process.clone();
    process.security.seccomp = crate::spec::Seccomp::Unconfined;
    process
}

/// What is asked of the helper.
pub(crate) struct Request<'a> {
    pub(crate) plan: &'a Plan,
    /// The namespaces it is born in.
    pub(crate) namespaces: i32,
    /// The group (v2) it is born in.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// The process to join.
    pub(crate) target: Option<&'a OwnedFd>,
    /// What a bundle needs.
    pub(crate) given: Vec<OwnedFd>,
    pub(crate) stdio: &'a Stdio,
    /// What is done when the helper waits; returns the container's state.
    pub(crate) paused: Option<&'a mut dyn FnMut(Pause, u32) -> Result<String>>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(plan: &'a Plan, stdio: &'a Stdio) -> Self {
        let given = Vec::new();
        Self { plan, namespaces: 0, cgroup: None, target: None, given, stdio, paused: None }
    }
}

/// What the helper answered.
pub(crate) struct Started {
    pid: u32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
    warnings: Vec<String>,
    stubs: Vec<Stub>,
}

impl Started {
    pub(crate) fn into_sandboxed(
        self,
        cgroup: Option<Cgroup>,
        mut warnings: Vec<String>,
    ) -> Sandboxed {
        warnings.extend(self.warnings);
        Sandboxed {
            pid: self.pid,
            // Our child is not reaped yet, so it has a stat file.
            start_time: find_start_time_of(self.pid).unwrap_or(0),
            pidfd: Arc::new(self.pidfd),
            cgroup,
            terminal: Mutex::new(self.terminal),
            exit: Mutex::new(None),
            warnings,
            stubs: self.stubs,
            left: false,
            ends_by: libc::SIGKILL,
        }
    }
}

/// Starts the helper and returns when the command is executed, or waits at its
/// gate.
pub(crate) fn start(request: Request<'_>) -> Result<Started> {
    let Request { plan, namespaces, cgroup, stdio, .. } = request;
    let program = open_helper()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .cannot(|| "open /dev/null")?;
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let descriptors = std::array::from_fn(|index| match streams[index] {
        _ if plan.process.terminal => null.as_fd(),
        Stream::Null => null.as_fd(),
        Stream::Inherit => own[index],
        Stream::Fd(fd) => fd.as_fd(),
    });
    let (ours, theirs) = Channel::pair().cannot(|| "open a socket to the helper")?;
    let (pid, pidfd) = sys::clone_helper(&sys::Clone {
        namespaces,
        stdio: descriptors,
        channel: theirs.as_fd(),
        program,
        cgroup,
        argument: c"enter",
    })
    .map_err(|source| clone_failed(source, namespaces))?;
    drop(theirs);
    let guard = Unreaped::new(pidfd);
    // Meanwhile the helper is executed; it waits for its plan.
    if let Enter::New { network: Network::Bridged { links, .. }, .. } = &plan.enter {
        netlink::connect(links, pid)?;
    }
    converse(ours, request, pid, guard)
}

fn clone_failed(source: std::io::Error, namespaces: i32) -> Error {
    let denied = source.raw_os_error() == Some(libc::EPERM);
    let what = if denied && namespaces != 0 {
        "create namespaces: neither root nor inside a user namespace of one's own"
    } else {
        "start the helper rrun-init"
    };
    Error::Setup { what: what.into(), source }
}

/// Sends the plan and collects the answers until the command is executed.
fn converse(
    mut channel: Channel,
    request: Request<'_>,
    pid: u32,
    guard: Unreaped,
) -> Result<Started> {
    let Request { plan, target, given, paused, .. } = request;
    if let Some(target) = target {
        let target = target.try_clone().cannot(|| "copy a descriptor")?;
        channel.send(&Message::Descriptor(target)).ok();
    }
    for descriptor in given {
        channel.send(&Message::Given(descriptor)).ok();
    }
    // A helper that is already gone is found out by reading.
    match channel.send(&Message::Plan(crate::wire::encode(plan))) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(error).cannot(|| "instruct the helper");
        }
        _ => {}
    }
    let mut nothing = |_, _| Ok(String::new());
    let answers = Answers::collect(&mut channel, pid, paused.unwrap_or(&mut nothing))?;
    if let Some(error) = answers.failure {
        return Err(error);
    }
    if !answers.ready {
        return Err(Error::HelperDied { exit: guard.end() });
    }
    let Answers { warnings, stubs, terminal, sockets, joined, .. } = answers;
    let (pid, pidfd) = match joined {
        Some((pid, pidfd)) => {
            // The helper has forked, and is done.
            guard.end();
            (pid, pidfd.keep())
        }
        None => (pid, guard.keep()),
    };
    Ok(Started { pid, pidfd, terminal, sockets, warnings, stubs })
}
