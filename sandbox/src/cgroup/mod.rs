//! Control groups: what the processes of a sandbox may use together.
//!
//! All three layouts work: v2 (one tree), v1 (a tree per controller) and
//! hybrid (some controllers on v1, the rest or nothing on v2). New groups are
//! made beneath the caller's own position in each tree, never at its top, so
//! that limits from above stay in force:
//!
//! ```text
//! v1, hybrid  <mount of controller>/<own path>/<name>      for each controller needed
//! v2          <mount>/<own path or an ancestor>/<name>     an ancestor where the own group has
//!                                                          processes and controllers are needed
//! ```
//!
//! Only controllers that are needed get a group: those of the limits, and
//! `devices` where device nodes can be made (on v2 a small BPF program).
//!
//! # Invariants
//!
//! - Whoever uses a group holds a lock on its directory. The lock dies with
//!   the process; a group without one is garbage, which [`sweep`] removes.
//! - A limit that was asked for is in force or an error.

mod create;
mod devices;
mod freeze;
mod limits;
mod placed;
mod position;
mod remove;
mod resources;
mod rules;
mod update;
mod writes;

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};
use crate::spawn::CgroupMount;
pub use freeze::{freeze, is_frozen, thaw};
pub use placed::Placed;
use position::Position;
pub(crate) use position::attach_files_of;
pub use remove::{sweep, sweep_at};
pub use resources::{
    BlockIo, Cpu, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};
pub use rules::DeviceRule;
pub use update::update;

/// The file by which a thread enters a v1 group. For a process of one thread
/// it does what `cgroup.procs` does, but a thread that writes *itself* needs no
/// lock against all forks and exits of the machine, for which the kernel waits
/// about 10 ms.
const V1_TASKS: &str = "tasks";

/// A control group that was made, in one or several trees.
#[derive(Debug)]
pub(crate) struct Cgroup {
    groups: Vec<Group>,
    guards_devices: bool,
}

/// The directory of a group in one tree.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    /// The controllers of a v1 tree; empty for v2.
    controllers: Vec<String>,
    /// Open and locked as long as the group is used.
    directory: OwnedFd,
}

impl Cgroup {
    /// Returns the files to which a process writes itself to enter the group, in
    /// the trees where it was not born in it (see [`Cgroup::unified`]).
    pub(crate) fn attach_files(&self) -> Vec<PathBuf> {
        let v1 = self.groups.iter().filter(|group| !group.controllers.is_empty());
        v1.map(|group| group.path.join(V1_TASKS)).collect()
    }

    /// Returns the v2 directory, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.groups
            .iter()
            .find(|group| group.controllers.is_empty())
            .map(|group| group.directory.as_fd())
    }

    /// Returns the file systems that show the group inside the sandbox.
    pub(crate) fn mounts(&self) -> Vec<CgroupMount> {
        self.groups
            .iter()
            .map(|group| CgroupMount { controllers: group.controllers.clone() })
            .collect()
    }

    /// Returns whether device nodes made inside are guarded.
    pub(crate) fn guards_devices(&self) -> bool {
        self.guards_devices
    }

    /// Returns the most memory used, in bytes.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let read = |name: &str| {
            let counts = |group: &&Group| {
                group.controllers.is_empty() || group.controllers.iter().any(|c| c == "memory")
            };
            self.groups.iter().filter(counts).find_map(|group| {
                fs::read_to_string(group.path.join(name)).ok()?.trim().parse().ok()
            })
        };
        read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))
    }

    /// Returns whether the kernel killed a process for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        self.groups.iter().any(|group| directory_oom_killed(&group.path))
    }

    /// Kills what is left and removes the group.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        self.groups.iter().try_for_each(|group| remove::remove_directory(&group.path))
    }
}

/// Kills every process in the control group `name` and removes it from every
/// tree. Returns whether there was one.
///
/// # Errors
///
/// When a directory cannot be removed although nothing runs in it any more.
pub fn destroy(name: &str) -> Result<bool> {
    let found = directories(name)?;
    for path in &found {
        remove::remove_directory(path)
            .cannot(|| format!("remove the control group {}", path.display()))?;
    }
    Ok(!found.is_empty())
}

/// Returns the processes in the control group `name`, in the caller's process
/// id namespace.
///
/// # Errors
///
/// When the own position cannot be read or `name` is not a file name.
pub fn pids(name: &str) -> Result<Vec<u32>> {
    let mut pids: Vec<u32> =
        directories(name)?.iter().flat_map(|path| remove::processes(path)).collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Returns whether the kernel killed a process of the control group `name`
/// for want of memory; false when there is no such group.
#[must_use]
pub fn oom_killed(name: &str) -> bool {
    directories(name).is_ok_and(|found| found.iter().any(|path| directory_oom_killed(path)))
}

/// Returns where the group `name` exists.
fn directories(name: &str) -> Result<Vec<PathBuf>> {
    check_name(name)?;
    let position = Position::own()?;
    Ok(position.parents().map(|parent| parent.join(name)).filter(|path| path.is_dir()).collect())
}

/// Refuses names that would lead out of the parent directory.
fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.starts_with('.') || name.len() > 200 || !name.bytes().all(plain) {
        return Err(Error::invalid(format!("{name:?} is not a name for a control group")));
    }
    Ok(())
}

fn directory_oom_killed(path: &Path) -> bool {
    ["memory.events", "memory.oom_control"]
        .iter()
        .filter_map(|name| fs::read_to_string(path.join(name)).ok())
        .any(|text| count_of(&text, "oom_kill") > 0)
}

/// Reads a count from lines of the form `name number`.
fn count_of(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(key, _)| *key == name)
        .and_then(|(_, count)| count.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_directory() {
        for name in ["", ".", "..", "a/b", "/a", "a\0", "ä"] {
            assert!(check_name(name).is_err(), "accepted {name:?}");
        }
        assert!(check_name("rrun-0123.x_y").is_ok());
    }

    #[test]
    fn counts_are_read_by_their_whole_name() {
        let events = "low 0\noom 3\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(count_of(events, "oom_kill"), 2);
        assert_eq!(count_of("oom_kill_disable 1\nunder_oom 0\n", "oom_kill"), 0);
    }
}
