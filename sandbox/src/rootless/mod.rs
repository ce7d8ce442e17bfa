//! Running as an ordinary user: a user namespace around the whole program.
//!
//! ```text
//! user 1000 ── unshare(user, mount) ──► root of a namespace in which
//!                                         0      is 1000
//!                                         1 …    are the ids of /etc/subuid, /etc/subgid
//! ```
//!
//! The program itself enters and goes on; nothing is executed again. The
//! namespace lives as long as a process in it: a container that was left
//! running keeps it, and later commands of the same user join that one, since
//! only from inside can they act on its processes. Which processes are in it
//! is written down in the user's runtime directory.
//!
//! Where the user has no subordinate ids a single id is mapped. Then images
//! whose files belong to others cannot be unpacked faithfully, and the errors
//! say so.
//!
//! Root of a container is an ordinary user as far as mounts go. Where the
//! container lets it have namespaces, it enters one in which every id is what
//! it was; where not, it goes on as it is, and only what needs namespaces
//! fails.

mod explain;
mod holders;
mod ids;

use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sched::CloneFlags;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::caps;
use crate::error::{Context as _, Error, Result};
use crate::spawn::find_start_time_of;
use crate::sys;
use holders::Holders;
use ids::Maps;

/// Why subordinate ids that the user has were not mapped.
const TOOLS_FAILED: &str = "newuidmap and newgidmap are missing or refused (they are in Debian's \
                            package uidmap, and must be setuid root)";

/// How a program has its privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// It was root when it was started, and may mount.
    Root,
    /// It was root of a container and is root of a user namespace with the same
    /// ids.
    Contained,
    /// It is root of a container that lets it have no namespaces.
    Denied {
        /// What was found.
        reason: String,
        /// What helps.
        hint: String,
    },
    /// It is root of a user namespace with subordinate ids.
    Mapped,
    /// It is root of a user namespace with its own id only, for the reason
    /// given.
    SingleId(String),
}

/// Makes the calling program root of a user namespace, unless it is root and
/// may mount.
///
/// Call it first thing in `main`: the program must have a single thread.
///
/// # Errors
///
/// [`Error::Rootless`] with a reason and a hint where this host does not let
/// users have namespaces. Root of a container goes on without.
pub fn enter_if_needed() -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    if is_root && may_mount() {
        return Ok(());
    }
    let privileges = match enter() {
        Err(Error::Rootless { reason, hint }) if is_root => Privileges::Denied { reason, hint },
        other => other?,
    };
    // Entering happens once.
    ENTERED.set(privileges).ok();
    Ok(())
}

/// Does the same for a program that mounts nothing and starts processes in a
/// [`crate::Root::Chroot`] only: root stays what it is, wherever it is, since
/// outside of a user namespace it can make device nodes.
///
/// # Errors
///
/// As [`enter_if_needed`].
pub fn enter_for_chroot() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    enter_if_needed().map_err(|error| match error {
        Error::Rootless { reason, .. } => refused(
            reason,
            "without namespaces only root may use chroot: run it as the container's user 0",
        ),
        other => other,
    })
}

/// Returns whether the process has the capability that mounts take.
pub(crate) fn may_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.bits() & caps::sys_admin() != 0)
}

fn enter() -> Result<Privileges> {
    let uid = rustix::process::geteuid().as_raw();
    // Held until the own process is written down, so that two commands do not
    // both make a namespace.
    let mut holders = Holders::open(uid)?;
    let own = std::process::id();
    let joined = match &mut holders {
        Some(holders) => join_one_of(holders, uid)?,
        None => None,
    };
    let privileges = match joined {
        Some(privileges) => privileges,
        None => create(uid)?,
    };
    if let Some(holders) = &holders {
        holders.add(own, find_start_time_of(own).unwrap_or(0));
    }
    Ok(privileges)
}

static ENTERED: OnceLock<Privileges> = OnceLock::new();

/// Returns what [`enter_if_needed`] has found.
#[must_use]
pub fn privileges() -> &'static Privileges {
    ENTERED.get().unwrap_or(&Privileges::Root)
}

/// Returns whether the program runs for an ordinary user, in a user namespace
/// that it entered itself.
#[must_use]
pub fn is_rootless() -> bool {
    match privileges() {
        Privileges::Mapped | Privileges::SingleId(_) => true,
        Privileges::Root | Privileges::Contained | Privileges::Denied { .. } => false,
    }
}

/// Fails where a sandbox cannot be started, with the reason that
/// [`enter_if_needed`] has found.
///
/// # Errors
///
/// [`Error::Rootless`] for root of a container without namespaces.
pub(crate) fn require_namespaces() -> Result<()> {
    match privileges() {
        Privileges::Denied { reason, hint } => Err(refused(reason, hint)),
        Privileges::Root | Privileges::Contained | Privileges::Mapped | Privileges::SingleId(_) => {
            Ok(())
        }
    }
}

/// Writes down that a process which outlives the caller is in the namespace: the
/// next command joins it there.
pub fn register(pid: u32, start_time: u64) {
    let uid = match privileges() {
        Privileges::Contained => Some(0),
        _ => ids::outer_uid(),
    };
    if let Some(uid) = uid
        && let Ok(Some(holders)) = Holders::open(uid)
    {
        holders.add(pid, start_time);
    }
}

/// Joins the namespace of a process of the same user, if there is one.
fn join_one_of(holders: &mut Holders, uid: u32) -> Result<Option<Privileges>> {
    let refused = loop {
        let Some(pidfd) = holders.find() else { return Ok(None) };
        match move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::USER) {
            Ok(()) => break None,
            // It was alive a moment ago, and has left its namespaces since.
            Err(rustix::io::Errno::SRCH) => holders.forget_found(),
            Err(errno) => break Some(errno),
        }
    };
    if let Some(errno) = refused {
        return Err(errno).cannot(|| "join the user namespace of a running container");
    }
    become_root()?;
    separate_mounts()?;
    Ok(Some(match ids::count_mapped() {
        _ if uid == 0 => Privileges::Contained,
        0 | 1 => {
            Privileges::SingleId("the running containers of this user have a single id".into())
        }
        _ => Privileges::Mapped,
    }))
}

fn create(uid: u32) -> Result<Privileges> {
    let gid = rustix::process::getegid().as_raw();
    let maps = if uid == 0 { ids::identity() } else { ids::subordinate(uid, gid) };
    // The maps are written from outside, by a child that stays there.
    let (ready, mapper) = match &maps {
        Ok(maps) => {
            let (wait, ready) = pipe_with(PipeFlags::CLOEXEC).cannot(|| "open a pipe")?;
            let child = sys::fork().cannot(|| "start a process")?;
            if child == 0 {
                drop(ready);
                map_from_outside(&wait, maps);
            }
            (Some(ready), Some(child))
        }
        Err(_) => (None, None),
    };
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER)
        .map_err(|errno| explain::denied(&errno.into()))?;
    drop(ready);
    let mapped = mapper.is_some_and(succeeded);
    let privileges = match (mapped, maps) {
        (true, _) if uid == 0 => Privileges::Contained,
        (true, _) => Privileges::Mapped,
        (false, maps) => {
            ids::map_single(uid, gid).cannot(|| "map the own user id")?;
            let reason = match maps {
                Err(reason) => reason,
                Ok(Maps::Direct { .. }) => "the container's root may not map its ids".into(),
                Ok(Maps::Tools { .. }) => TOOLS_FAILED.into(),
            };
            Privileges::SingleId(reason)
        }
    };
    become_root()?;
    separate_mounts()?;
    Ok(privileges)
}

/// The ids are mapped; taking them on keeps the capabilities of the namespace.
fn become_root() -> Result<()> {
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .cannot(|| "become group 0 of the user namespace")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .cannot(|| "become user 0 of the user namespace")
}

/// Separates the mounts; the first thing that takes a capability, so here it
/// shows whether the host gave any.
fn separate_mounts() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| explain::denied(&errno.into()))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(|errno| explain::denied(&errno.into()))
}

/// Runs in the child: waits until the parent is in its namespace, maps its
/// ids, and ends.
fn map_from_outside(wait: &OwnedFd, maps: &Maps) -> ! {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    // The end of the pipe is closed by the parent, or by its end.
    let mut byte = [0];
    rustix::io::read(wait, &mut byte).ok();
    let write = |name: &str, map: &str| std::fs::write(format!("/proc/{parent}/{name}"), map);
    let tool = |tool: &str, arguments: &[String]| {
        let status = Command::new(tool)
            .arg(parent.to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    };
    let done = match maps {
        Maps::Direct { uids, gids } => {
            write("uid_map", uids).is_ok() && write("gid_map", gids).is_ok()
        }
        Maps::Tools { uids, gids } => tool("newuidmap", uids) && tool("newgidmap", gids),
    };
    sys::exit_now(i32::from(!done))
}

fn succeeded(child: u32) -> bool {
    let Some(pid) = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => return status.exit_status() == Some(0),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

/// Returns an error of this module.
fn refused(reason: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Rootless { reason: reason.into(), hint: hint.into() }
}
