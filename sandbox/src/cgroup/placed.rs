//! The control groups of a container at the place that a runtime
//! configuration names (`linux.cgroupsPath`).
//!
//! Unlike [`super::Cgroup`] they outlive the process that makes them, so
//! nobody holds a lock: whoever made them keeps the list and removes them.
//! On v1 and hybrid hosts there is a group in the tree of every controller, as
//! engines expect to find them, on v2 one.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::create::write;
use super::freeze::Freezer;
use super::position::{Position, Tree};
use super::resources::Resources;
use super::writes::writes;
use super::{V1_TASKS, remove, rules};
use crate::error::{Context as _, Error, Result};
use crate::spawn::CgroupMount;
use crate::sys;

/// Groups that were made, by their directories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    groups: Vec<PlacedGroup>,
}

/// The directory of a group in one tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PlacedGroup {
    path: PathBuf,
    /// The controllers of a v1 tree; empty for v2.
    controllers: Vec<String>,
}

impl Placed {
    /// Makes the groups at `path`: beneath the top of each tree when it is
    /// absolute, else beneath the caller's own groups.
    ///
    /// With `lenient`, trees that the caller may not change are left out.
    ///
    /// # Errors
    ///
    /// When a group cannot be made, or has processes already. What was made is
    /// removed then.
    pub fn create(path: &Path, lenient: bool) -> Result<Self> {
        let mut placed = Self::default();
        match placed.make(path, lenient) {
            Ok(()) => Ok(placed),
            Err(error) => {
                // The reason is more interesting than what is left.
                placed.remove().ok();
                Err(error)
            }
        }
    }

    fn make(&mut self, path: &Path, lenient: bool) -> Result<()> {
        let position = Position::own()?;
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
        if !path.components().all(plain) || path.components().count() < 2 && path.is_absolute() {
            let what = format!("{} is not a path of control groups", path.display());
            return Err(Error::invalid(what));
        }
        let place = |tree: &Tree| match path.strip_prefix("/") {
            Ok(below) => tree.mount.join(below),
            Err(_) => tree.own.join(path),
        };
        let mut trees: Vec<&Tree> = position.v1.iter().collect();
        trees.extend(
            position
                .v2
                .as_ref()
                .filter(|tree| position.v1.is_empty() || !controllers_of(&tree.mount).is_empty()),
        );
        for tree in trees {
            let group = PlacedGroup { path: place(tree), controllers: tree.controllers.clone() };
            match group.make(&tree.mount) {
                Ok(()) => self.groups.push(group),
                Err(error) if lenient && is_forbidden(&error) => {}
                Err(source) => {
                    let what = format!("make the control group {}", group.path.display());
                    return Err(Error::Setup { what, source });
                }
            }
        }
        Ok(())
    }

    /// Puts limits in force; also others than those before.
    ///
    /// # Errors
    ///
    /// When the host cannot say a limit, or the kernel refuses it.
    pub fn apply(&self, resources: &Resources) -> Result<()> {
        let is_v2 = |controller: &str| {
            !self.groups.iter().any(|group| group.controllers.iter().any(|own| own == controller))
        };
        let mut refused = Vec::new();
        for write_to in writes(resources, is_v2).map_err(Error::invalid)? {
            let found = self.group(&write_to.controller).and_then(|group| {
                write_to.files.iter().map(|file| group.path.join(file)).find(|path| path.exists())
            });
            match found {
                Some(path) if write(&path, &write_to.value).is_err() => {
                    refused.push((path, write_to));
                }
                Some(_) => {}
                None if write_to.optional => {}
                None => {
                    return Err(Error::invalid(format!(
                        "cannot set {} to {}: the host has no such file for this container",
                        write_to.files.join(" or "),
                        write_to.value
                    )));
                }
            }
        }
        // What two files must not contradict each other in, they do no more.
        for (path, write_to) in refused {
            match write(&path, &write_to.value) {
                Err(_) if write_to.optional => {}
                other => {
                    other.cannot(|| format!("write {:?} to {}", write_to.value, path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Guards devices; once, when the groups are new.
    ///
    /// # Errors
    ///
    /// When a rule is nonsense, or the kernel refuses it. With `lenient` a
    /// kernel that may not be asked is fine: then device nodes cannot be made
    /// either.
    pub fn guard_devices(&self, resources: &Resources, lenient: bool) -> Result<()> {
        if resources.devices.is_empty() {
            return Ok(());
        }
        let rules = rules::complete(&resources.devices);
        let what = || "guard the devices of the container";
        let v1 = self.groups.iter().find(|group| group.has("devices"));
        let done = match v1 {
            Some(group) => rules::v1(&rules)
                .map_err(Error::invalid)?
                .iter()
                .try_for_each(|(file, rule)| write(&group.path.join(file), rule)),
            None => {
                let program = rules::v2(&rules).map_err(Error::invalid)?;
                match self.unified()? {
                    Some(directory) => sys::load_devices(&program).and_then(|program| {
                        sys::attach_devices(directory.as_fd(), program.as_fd())
                    }),
                    None if lenient => Ok(()),
                    None => Err(io::ErrorKind::Unsupported.into()),
                }
            }
        };
        match done {
            Err(error) if lenient && is_forbidden(&error) => Ok(()),
            other => other.cannot(what),
        }
    }

    /// Returns the processes in the groups and in those inside.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        if let Some(group) = self.groups.first() {
            collect(&group.path, &mut pids);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Sends a signal to every process in the groups.
    ///
    /// # Errors
    ///
    /// When the kernel refuses one; those that end meanwhile are fine.
    pub fn kill(&self, signal: i32) -> Result<()> {
        for pid in self.pids() {
            let (Some(pid), Some(signal)) =
                (i32::try_from(pid).ok().and_then(Pid::from_raw), Signal::from_named_raw(signal))
            else {
                continue;
            };
            match kill_process(pid, signal) {
                Err(rustix::io::Errno::SRCH) => {}
                other => {
                    other
                        .cannot(|| format!("send a signal to process {}", pid.as_raw_nonzero()))?;
                }
            }
        }
        Ok(())
    }

    /// Holds everything in the groups still.
    ///
    /// # Errors
    ///
    /// When the host cannot, or not in time.
    pub fn freeze(&self) -> Result<()> {
        self.freezer()?.freeze()
    }

    /// Lets everything go on. What is not held still is fine.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        let freezer = self.freezer()?;
        freezer.set(false).cannot(|| format!("thaw {}", freezer.group().display()))
    }

    /// Returns whether everything is held still.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.freezer().is_ok_and(|freezer| freezer.is_frozen().unwrap_or(false))
    }

    /// Kills what is left in the groups and removes them.
    ///
    /// # Errors
    ///
    /// When one cannot be removed.
    pub fn remove(&self) -> Result<()> {
        for PlacedGroup { path, .. } in &self.groups {
            remove::remove_directory(path)
                .cannot(|| format!("remove the control group {}", path.display()))?;
        }
        Ok(())
    }

    /// Reads a file of a controller.
    #[must_use]
    pub fn read(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.group(controller)?.path.join(file)).ok()
    }

    /// Returns whether a controller has its own tree (v1).
    #[must_use]
    pub fn is_v1(&self, controller: &str) -> bool {
        self.groups.iter().any(|group| group.has(controller))
    }

    /// Returns the directories by their controllers; v2 has the empty name.
    #[must_use]
    pub fn paths(&self) -> Vec<(String, PathBuf)> {
        let shown = |group: &PlacedGroup| (group.controllers.join(","), group.path.clone());
        self.groups.iter().map(shown).collect()
    }

    /// Returns the files to which a process writes itself to enter the v1
    /// groups.
    pub(crate) fn attach_files(&self) -> Vec<PathBuf> {
        let v1 = self.groups.iter().filter(|group| !group.controllers.is_empty());
        v1.map(|group| group.path.join(V1_TASKS)).collect()
    }

    /// Opens the v2 directory, for `CLONE_INTO_CGROUP`.
    pub(crate) fn unified(&self) -> Result<Option<OwnedFd>> {
        let Some(group) = self.groups.iter().find(|group| group.controllers.is_empty()) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&group.path, flags, Mode::empty())
            .map(Some)
            .cannot(|| format!("open the control group {}", group.path.display()))
    }

    /// Returns the file systems that show the groups inside.
    pub(crate) fn mounts(&self) -> Vec<(CgroupMount, PathBuf)> {
        let mount = |group: &PlacedGroup| CgroupMount { controllers: group.controllers.clone() };
        self.groups.iter().map(|group| (mount(group), group.path.clone())).collect()
    }

    fn group(&self, controller: &str) -> Option<&PlacedGroup> {
        let v1 = self.groups.iter().find(|group| group.has(controller));
        v1.or_else(|| self.groups.iter().find(|group| group.controllers.is_empty()))
    }

    fn freezer(&self) -> Result<Freezer> {
        let v1 = self.groups.iter().find(|group| group.has("freezer"));
        let v2 = self.groups.iter().find(|group| group.controllers.is_empty());
        v1.map(|group| Freezer::V1(group.path.clone()))
            .or_else(|| v2.map(|group| Freezer::V2(group.path.clone())))
            .ok_or_else(|| Error::invalid("the container has no group that can be frozen"))
    }
}

impl PlacedGroup {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    /// Makes the directory with its parents up to `top`.
    fn make(&self, top: &Path) -> io::Result<()> {
        let below = self.path.strip_prefix(top).map_err(io::Error::other)?;
        let mut current = top.to_path_buf();
        for name in below.components() {
            if self.controllers.is_empty() {
                hand_down(&current);
            }
            let parent = current.clone();
            current.push(name);
            match fs::create_dir(&current) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if self.has("cpuset") {
                inherit_cpuset(&parent, &current)?;
            }
        }
        let occupied = fs::read_to_string(current.join("cgroup.procs"))?;
        if occupied.trim().is_empty() {
            return Ok(());
        }
        Err(io::Error::other("it is in use by other processes"))
    }
}

/// Hands every controller down that can be: what is missing in the end is
/// found out by writing its files.
fn hand_down(group: &Path) {
    let file = group.join("cgroup.subtree_control");
    for controller in controllers_of(group) {
        write(&file, &format!("+{controller}")).ok();
    }
}

fn controllers_of(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A v1 cpuset takes no processes before it has processors and memory.
fn inherit_cpuset(parent: &Path, group: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(group.join(file))?.trim().is_empty() {
            write(&group.join(file), fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn collect(group: &Path, pids: &mut Vec<u32>) {
    pids.extend(remove::processes(group));
    let Ok(entries) = fs::read_dir(group) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), pids);
        }
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
