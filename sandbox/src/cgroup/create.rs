//! Making a group and putting its limits in force.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::limits::{self, Setting};
use super::position::{Position, Tree};
use super::{Cgroup, Group, check_name, devices, remove};
use crate::error::{Context as _, Error, Result};
use crate::spec::CgroupSpec;
use crate::sys;

impl Cgroup {
    /// Makes the group and sets its limits.
    ///
    /// # Errors
    ///
    /// When a limit cannot be put in force; then nothing is left behind.
    pub(crate) fn create(
        spec: &CgroupSpec,
        devices: bool,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        check_name(&spec.name)?;
        if let Some(objection) = limits::objection(&spec.limits) {
            return Err(Error::invalid(objection));
        }
        let mut position = Position::own()?;
        if let Some(parent) = &spec.parent {
            position = position.at(parent)?;
        }
        let available = available_v2(&position);
        let is_v2 = |controller: &str| {
            position.v1_tree(controller).is_none() && available.contains(controller)
        };
        let settings = limits::settings(&spec.limits, is_v2);
        for setting in &settings {
            if position.v1_tree(setting.controller).is_none()
                && !is_v2(setting.controller)
                && !setting.optional
            {
                return Err(Error::LimitUnsupported {
                    limit: setting.limit,
                    controller: setting.controller,
                });
            }
        }
        let mut cgroup = Self { groups: Vec::new(), guards_devices: false };
        let made = cgroup.make(spec, &position, &settings, devices, warnings);
        made.inspect_err(|_| {
            // What cannot be removed now is left to `sweep`.
            cgroup.remove().ok();
        })?;
        Ok(cgroup)
    }

    fn make(
        &mut self,
        spec: &CgroupSpec,
        position: &Position,
        settings: &[Setting],
        devices: bool,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let mut v1: BTreeSet<&str> = settings.iter().map(|setting| setting.controller).collect();
        if devices {
            v1.insert("devices");
        }
        if spec.freezer && position.v1_tree("freezer").is_some() {
            // On v2 every group can be frozen.
            v1.insert("freezer");
        }
        if spec.account_memory && position.v1_tree("memory").is_some() {
            // On v2 it is there or not: it is not worth changing other groups for.
            v1.insert("memory");
        }
        let v2: BTreeSet<&str> =
            v1.iter().copied().filter(|name| position.v1_tree(name).is_none()).collect();
        for controller in v1 {
            let Some(tree) = position.v1_tree(controller) else { continue };
            if !self.groups.iter().any(|group| group.controllers == tree.controllers) {
                let made = ready_parent(tree, spec)
                    .and_then(|()| make_group(&tree.own, &spec.name, &tree.controllers));
                match made {
                    Ok(group) => self.groups.push(group),
                    Err(error) if is_dispensable(controller, settings, spec, &error) => {}
                    Err(error) => return Err(cannot_make(&tree.own, error)),
                }
            }
        }
        // With a tree of its own (not the bare one of a hybrid host) the group
        // exists on v2 even without limits: it names the processes.
        if let Some(tree) = &position.v2
            && (!v2.is_empty() || position.v1.is_empty())
        {
            self.make_v2(tree, spec, &v2, settings)?;
        }
        for setting in settings {
            self.set(setting, warnings)?;
        }
        if devices {
            self.guard_devices()?;
        }
        Ok(())
    }

    /// Makes the group in the v2 tree. Where the own group has processes it
    /// cannot hand controllers down ("no internal processes"), so then the
    /// nearest ancestor that can is taken.
    fn make_v2(
        &mut self,
        tree: &Tree,
        spec: &CgroupSpec,
        needed: &BTreeSet<&str>,
        settings: &[Setting],
    ) -> Result<()> {
        let mut needed: BTreeSet<&str> = needed.clone();
        needed.remove("devices");
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        let parents = match &spec.parent {
            // Where the user wants it, or not at all.
            Some(_) => {
                ready_parent(tree, spec)
                    .and_then(|()| hand_down(tree, &needed))
                    .map_err(|error| cannot_make(&tree.own, error))?;
                vec![tree.own.clone()]
            }
            None => tree.ancestors(),
        };
        for parent in parents {
            let made = enable(&parent, &needed).and_then(|()| make_group(&parent, &spec.name, &[]));
            match made {
                Ok(group) => {
                    self.groups.push(group);
                    return Ok(());
                }
                Err(error) => last = error,
            }
        }
        if settings.iter().all(|setting| setting.optional) && spec.parent.is_none() {
            // An ordinary user without delegation, who asked for nothing.
            return Ok(());
        }
        Err(cannot_make(&tree.own, last))
    }

    fn set(&self, setting: &Setting, warnings: &mut Vec<String>) -> Result<()> {
        let group = self.groups.iter().find(|group| {
            let listed = group.controllers.iter().any(|name| name == setting.controller);
            listed || group.controllers.is_empty() && group.path.join(setting.file).exists()
        });
        let path = group.map(|group| group.path.join(setting.file)).filter(|path| path.exists());
        match path {
            Some(path) => write(&path, &setting.value).cannot(|| {
                format!("limit {}: write {:?} to {}", setting.limit, setting.value, path.display())
            }),
            None if setting.optional => {
                if setting.limit == "swap" {
                    warnings.push(
                        "the kernel does not account for swap: memory is limited without it".into(),
                    );
                }
                Ok(())
            }
            None => Err(Error::LimitUnsupported {
                limit: setting.limit,
                controller: setting.controller,
            }),
        }
    }

    fn guard_devices(&mut self) -> Result<()> {
        let v1 =
            self.groups.iter().find(|group| group.controllers.iter().any(|name| name == "devices"));
        let guarded = match (v1, self.unified()) {
            (Some(group), _) => {
                let set = |file: &str, rule: &str| write(&group.path.join(file), rule);
                let rules = set("devices.deny", "a").and_then(|()| {
                    devices::v1_rules().iter().try_for_each(|rule| set("devices.allow", rule))
                });
                rules.cannot(|| format!("guard devices in {}", group.path.display()))?;
                true
            }
            // Without the right to load programs (a user namespace) device
            // nodes cannot be opened either; the helper mounts with `nodev`.
            (None, Some(directory)) => sys::load_devices(&devices::v2_program())
                .and_then(|program| sys::attach_devices(directory, program.as_fd()))
                .is_ok(),
            (None, None) => false,
        };
        self.guards_devices = guarded;
        Ok(())
    }
}

/// Returns the controllers of the v2 tree as the mount's root lists them.
fn available_v2(position: &Position) -> BTreeSet<String> {
    let read =
        |tree: &Tree| fs::read_to_string(tree.mount.join("cgroup.controllers")).unwrap_or_default();
    let text = position.v2.as_ref().map(read).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// Hands controllers down from `parent` to its children.
fn enable(parent: &Path, needed: &BTreeSet<&str>) -> io::Result<()> {
    let file = parent.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    if !(needed.is_empty() && enabled.trim().is_empty()) && is_occupied(parent)? {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let missing: Vec<String> = needed
        .iter()
        .filter(|name| !enabled.split_ascii_whitespace().any(|enabled| enabled == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() { Ok(()) } else { write(&file, &missing.join(" ")) }
}

/// Whether a group has processes of its own and so cannot hand controllers
/// down. The kernel refuses some itself (`memory`), but takes those that work
/// for single threads (`cpu`, `pids`): then groups made inside can have no
/// processes at all, with or without limits.
fn is_occupied(group: &Path) -> io::Result<bool> {
    // The topmost group, which may have both, is the one without a type.
    Ok(group.join("cgroup.type").exists()
        && !fs::read_to_string(group.join("cgroup.procs"))?.trim().is_empty())
}

/// How long somebody may hold the lock of a group that we want to make. Whoever
/// sweeps holds it until the kernel has removed the group, whoever lives in a
/// group of that name holds it for good.
const MAKE_PATIENCE: Duration = Duration::from_secs(2);

/// Makes and locks one directory.
fn make_group(parent: &Path, name: &str, controllers: &[String]) -> io::Result<Group> {
    let path = parent.join(name);
    let begun = Instant::now();
    let mut pause = Duration::from_micros(50);
    // Between making and locking, a sweeping process may lock it and remove it.
    loop {
        match fs::create_dir(&path) {
            Ok(()) => {
                if let Some(directory) = lock(&path)? {
                    return Ok(Group { path, controllers: controllers.to_vec(), directory });
                }
            }
            // A container of the same name that was killed, or one that is alive.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if remove::remove_if_unused(&path)? {
                    continue;
                }
            }
            Err(error) => return Err(error),
        }
        if begun.elapsed() >= MAKE_PATIENCE {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Opens and locks a directory; none when it is gone or locked by another.
pub(super) fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    let directory = match rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        other => other?,
    }
    // Meanwhile it may have been removed, and another made in its place.
    let locked = rustix::fs::fstat(&directory)?;
    let is_there = rustix::fs::stat(path)
        .is_ok_and(|there| (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino));
    Ok(is_there.then_some(directory))
}

/// Makes the group that the user named as parent.
fn ready_parent(tree: &Tree, spec: &CgroupSpec) -> io::Result<()> {
    if spec.parent.is_some() { fs::create_dir_all(&tree.own) } else { Ok(()) }
}

/// Hands controllers down from the top of a v2 tree to a group.
fn hand_down(tree: &Tree, needed: &BTreeSet<&str>) -> io::Result<()> {
    let mut above = tree.ancestors();
    above.remove(0);
    above.iter().rev().try_for_each(|group| enable(group, needed))
}

/// Whether failing to make the group of a controller only means that devices
/// are guarded in another way, that memory is not accounted for, or that the
/// sandbox cannot be paused.
fn is_dispensable(
    controller: &str,
    settings: &[Setting],
    spec: &CgroupSpec,
    error: &io::Error,
) -> bool {
    matches!(controller, "devices" | "memory" | "freezer")
        && spec.parent.is_none()
        && !settings.iter().any(|setting| setting.controller == controller)
        && matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
}

fn cannot_make(parent: &Path, source: io::Error) -> Error {
    Error::Setup { what: format!("make a control group in {}", parent.display()), source }
}

/// Writes a control file in one piece; it must exist.
pub(super) fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up v2 tree: enough to see which files are written.
    #[test]
    fn controllers_are_handed_down_only_where_they_are_missing() {
        let tree = tempfile::tempdir().unwrap();
        let file = tree.path().join("cgroup.subtree_control");
        fs::write(&file, "cpu memory\n").unwrap();
        enable(tree.path(), &BTreeSet::from(["memory"])).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "cpu memory\n");
        enable(tree.path(), &BTreeSet::from(["memory", "pids"])).unwrap();
        // A plain file keeps the rest of its old content, the kernel's does not.
        assert!(fs::read_to_string(&file).unwrap().starts_with("+pids"));
        assert!(enable(&tree.path().join("missing"), &BTreeSet::from(["pids"])).is_err());
    }

    #[test]
    fn a_group_with_processes_hands_nothing_down() {
        let tree = tempfile::tempdir().unwrap();
        let control = tree.path().join("cgroup.subtree_control");
        let put = |name: &str, content: &str| fs::write(tree.path().join(name), content).unwrap();
        put("cgroup.subtree_control", "");
        put("cgroup.procs", "7\n");
        let pids = BTreeSet::from(["pids"]);
        enable(tree.path(), &pids).unwrap();
        put("cgroup.subtree_control", "");
        put("cgroup.type", "domain\n");
        let busy = |needed| enable(tree.path(), needed).unwrap_err().kind();
        assert_eq!(busy(&pids), io::ErrorKind::ResourceBusy);
        assert_eq!(fs::read_to_string(&control).unwrap(), "", "nothing is changed");
        enable(tree.path(), &BTreeSet::new()).unwrap();
        // Someone else has handed some down: no group inside can have processes.
        put("cgroup.subtree_control", "pids\n");
        assert_eq!(busy(&pids), io::ErrorKind::ResourceBusy);
        assert_eq!(busy(&BTreeSet::new()), io::ErrorKind::ResourceBusy);
        put("cgroup.procs", "");
        enable(tree.path(), &pids).unwrap();
    }

    #[test]
    fn the_controllers_of_v2_are_those_of_the_mount() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        let mounts = format!("25 22 0:22 / {} rw - cgroup2 cgroup2 rw\n", tree.path().display());
        let position = Position::parse("0::/a/b\n", &mounts);
        let expected = ["cpu", "cpuset", "memory", "pids"].map(str::to_owned);
        assert_eq!(available_v2(&position), BTreeSet::from(expected));
        assert!(available_v2(&Position::parse("", "")).is_empty());
    }

    /// A sweeping process has locked the new directory before we did, and takes a
    /// moment to remove it.
    #[test]
    fn a_group_is_made_when_the_sweeper_is_done() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("group");
        fs::create_dir(&path).unwrap();
        let swept = lock(&path).unwrap().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                fs::remove_dir(&path).unwrap();
                drop(swept);
            });
            let group = make_group(parent.path(), "group", &[]).unwrap();
            assert!(lock(&group.path).unwrap().is_none(), "the new one is ours");
        });
    }

    #[test]
    fn a_group_that_somebody_lives_in_is_not_made_again() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("group")).unwrap();
        let _lived_in = lock(&parent.path().join("group")).unwrap().unwrap();
        let refused = make_group(parent.path(), "group", &[]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn a_locked_directory_is_not_locked_twice() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(directory.path()).unwrap().is_none());
        drop(first);
        assert!(lock(directory.path()).unwrap().is_some());
        assert!(lock(&directory.path().join("gone")).unwrap().is_none());
    }
}
