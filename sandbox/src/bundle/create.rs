//! The caller's half of starting a bundle.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, fstatfs};
use rustix::mount::{OpenTreeFlags, open_tree};

use super::{Bundle, BundleMountKind, Credentials, Namespace, NamespaceKind, Propagation, idmap};
use crate::cgroup::{self, Placed};
use crate::error::{Context as _, Error, Result};
use crate::seccomp;
use crate::spawn::{Enter, Own, Pause, Plan, Request, Running, Sandboxed, Stdio, start};
use crate::spec::{Process, Seccomp};
use crate::sys;

/// The kernel's number for the file system of namespaces.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// What the first process of a bundle is given by its caller.
#[derive(Debug)]
pub struct Start {
    /// Its standard streams.
    pub stdio: Stdio,
    /// Descriptors that become 3, 4, … of the command.
    pub preserved: Vec<OwnedFd>,
    /// The gate at which it waits; none executes the command at once.
    pub gate: Option<OwnedFd>,
}

/// Starts the first process of a bundle. Returns when its command has been
/// executed, or waits at the gate.
///
/// It enters the control groups. `mounted` is called with its process id when the namespaces are there and
/// the root is not changed yet, if the bundle pauses; it returns the state that
/// hooks are told.
///
/// # Errors
///
/// See [`Error`]. The process is gone then; control groups are the caller's.
pub fn create(
    bundle: &Bundle,
    groups: &Placed,
    start_with: Start,
    mounted: &mut dyn FnMut(u32) -> Result<String>,
) -> Result<Sandboxed> {
    let Start { stdio, preserved, gate } = start_with;
    let mut given: Vec<OwnedFd> = Vec::new();
    let gated = gate.is_some();
    given.extend(gate);
    open_sources(bundle, &mut given)?;
    for namespace in &bundle.namespaces {
        if let Some(path) = &namespace.path {
            given.push(open_namespace(namespace, path)?);
        }
    }
    let own = Own { credentials: bundle.credentials.clone(), gated, preserved: count(&preserved)? };
    given.extend(preserved);
    let enter =
        Enter::Bundle { bundle: Box::new(without_filter(bundle)), cgroups: groups.mounts() };
    let plan = plan(enter, &bundle.process, own, groups.attach_files())?;
    let unified = groups.unified()?;
    let mut paused = |pause, pid| match pause {
        Pause::Unmapped => {
            idmap::write(pid, &bundle.uid_map, &bundle.gid_map).map(|()| String::new())
        }
        Pause::Clocks => set_clocks(pid, bundle).map(|()| String::new()),
        Pause::Mounted => mounted(pid),
    };
    let started = start(Request {
        namespaces: born_in(bundle),
        cgroup: unified.as_ref().map(|directory| directory.as_fd()),
        given,
        paused: Some(&mut paused),
        ..Request::new(&plan, &stdio)
    })?;
    drop(stdio);
    Ok(started.into_sandboxed(None, Vec::new()))
}

/// Adds a process to the namespaces and control groups of one that runs, as
/// numbers say rather than names.
///
/// # Errors
///
/// [`Error::NotRunning`] when that one has ended, otherwise as [`create`].
pub fn exec(
    target: &Running,
    process: &Process,
    credentials: &Credentials,
    start_with: Start,
) -> Result<Sandboxed> {
    let Start { stdio, preserved, gate } = start_with;
    let pidfd = target.open()?;
    let gated = gate.is_some();
    let own = Own { credentials: credentials.clone(), gated, preserved: count(&preserved)? };
    let given = gate.into_iter().chain(preserved).collect();
    let attach = cgroup::attach_files_of(target.pid)?;
    let plan = plan(Enter::Join { pid: target.pid }, process, own, attach)?;
    let started = start(Request { target: Some(&pidfd), given, ..Request::new(&plan, &stdio) })?;
    drop(stdio);
    Ok(started.into_sandboxed(None, Vec::new()))
}

/// Copies descriptors that the program was started with, for
/// [`Start::preserved`]: `count` of them, from 3 on.
///
/// # Errors
///
/// When one is not open.
pub fn inherited(count: u32) -> Result<Vec<OwnedFd>> {
    let last = i32::try_from(count).map_err(|_| Error::invalid("too many descriptors"))?;
    (3..last.saturating_add(3))
        .map(|number| {
            sys::copy_inherited(number).cannot(|| format!("preserve the descriptor {number}"))
        })
        .collect()
}

/// Returns whether the host confines processes by AppArmor profiles.
#[must_use]
pub fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled")
        .is_ok_and(|text| text.trim() == "Y")
}

fn plan(
    enter: Enter,
    process: &Process,
    own: Own,
    attach: Vec<std::path::PathBuf>,
) -> Result<Plan> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command was given"));
    }
    let capabilities = own.credentials.capabilities.bounding;
    let filter = seccomp::filter(&process.security.seccomp, capabilities)?;
    let mut process = process.clone();
    process.security.seccomp = Seccomp::Unconfined;
    Ok(Plan {
        enter,
        process,
        die_with_parent: false,
        holds: false,
        attach,
        capabilities,
        filter: filter.instructions,
        filter_log: filter.log,
        filter_speculation: filter.speculation,
        own: Some(own),
    })
}

/// The process travels in the plan.
fn without_filter(bundle: &Bundle) -> Bundle {
    Bundle { process: Process::default(), ..bundle.clone() }
}

fn count(descriptors: &[OwnedFd]) -> Result<u32> {
    u32::try_from(descriptors.len()).map_err(|_| Error::invalid("too many descriptors"))
}

/// Returns the namespaces that the helper is born in. Where ids have to be
/// mapped first or a namespace is joined whose children only are in it, it
/// makes all of them itself.
fn born_in(bundle: &Bundle) -> i32 {
    if bundle.is_staged() {
        return 0;
    }
    let new = bundle.namespaces.iter().filter(|namespace| namespace.path.is_none());
    // Its own groups must be entered before they become the root.
    let now = new.filter(|namespace| namespace.kind != NamespaceKind::Cgroup);
    now.fold(0, |flags, namespace| flags | namespace.kind.flag())
}

impl Bundle {
    /// Whether the helper has to fork to be in its namespaces.
    pub(crate) fn is_staged(&self) -> bool {
        self.namespaces.iter().any(|namespace| match namespace.kind {
            NamespaceKind::User | NamespaceKind::Time => true,
            NamespaceKind::Pid => namespace.path.is_some(),
            NamespaceKind::Network
            | NamespaceKind::Mount
            | NamespaceKind::Ipc
            | NamespaceKind::Uts
            | NamespaceKind::Cgroup => false,
        })
    }

    /// Returns how a kind of namespace is asked for, if it is.
    pub(crate) fn namespace(&self, kind: NamespaceKind) -> Option<&Namespace> {
        self.namespaces.iter().find(|namespace| namespace.kind == kind)
    }

    /// Whether it has a mount namespace of its own, in which there is
    /// something to mount.
    pub(crate) fn has_new(&self, kind: NamespaceKind) -> bool {
        self.namespace(kind).is_some_and(|namespace| namespace.path.is_none())
    }
}

/// Sets the clocks of the time namespace that children of a process are in.
fn set_clocks(pid: u32, bundle: &Bundle) -> Result<()> {
    for offset in &bundle.clocks {
        let line = format!("{} {} {}", offset.clock, offset.seconds, offset.nanoseconds);
        std::fs::write(format!("/proc/{pid}/timens_offsets"), &line)
            .cannot(|| format!("set the clock of the time namespace to {line:?}"))?;
    }
    Ok(())
}

/// Opens the root and the sources of bind mounts as detached mounts: here
/// every path can be reached, and ids can be mapped.
fn open_sources(bundle: &Bundle, given: &mut Vec<OwnedFd>) -> Result<()> {
    if !bundle.has_new(NamespaceKind::Mount) {
        return Ok(());
    }
    let root = clone_tree(&bundle.root, true)
        .cannot(|| format!("open the root {}", bundle.root.display()))?;
    let is_directory =
        FileType::from_raw_mode(fstat(&root).cannot(|| "look at the root")?.st_mode).is_dir();
    if !is_directory {
        return Err(Error::invalid(format!(
            "the root {} is not a directory",
            bundle.root.display()
        )));
    }
    let propagation = match bundle.propagation {
        None | Some(Propagation::Private | Propagation::Unbindable) => Some(libc::MS_PRIVATE),
        Some(Propagation::Slave) => Some(libc::MS_SLAVE),
        Some(Propagation::Shared) => None,
    };
    if let Some(propagation) = propagation {
        sys::mount_change_attributes(root.as_fd(), true, 0, 0, propagation)
            .cannot(|| "separate the root's mounts from those of the host")?;
    }
    given.push(root);
    for mount in &bundle.mounts {
        let BundleMountKind::Bind { source, recursive, ids } = &mount.kind else { continue };
        let what = || {
            format!(
                "open {}, which is to be mounted at {}",
                source.display(),
                mount.target.display()
            )
        };
        let tree = clone_tree(source, *recursive).cannot(what)?;
        if let Some(maps) = ids {
            idmap::apply(tree.as_fd(), maps)?;
        }
        if mount.propagation.is_none() {
            // What the host mounts later there must not arrive in the container.
            sys::mount_change_attributes(tree.as_fd(), *recursive, 0, 0, libc::MS_PRIVATE)
                .cannot(what)?;
        }
        given.push(tree);
    }
    Ok(())
}

fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

fn open_namespace(namespace: &Namespace, path: &Path) -> Result<OwnedFd> {
    let what = || format!("open the namespace {}", path.display());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).cannot(what)?;
    if fstatfs(&file).cannot(what)?.f_type != NSFS_MAGIC {
        let kind = namespace.kind;
        return Err(Error::invalid(format!("{} is not a namespace ({kind:?})", path.display())));
    }
    Ok(file)
}
