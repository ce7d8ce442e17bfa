//! Holding everything in a group still, and letting it go on.
//!
//! v2 has a file for it in every group, v1 a controller, `freezer`, for which
//! a group is made where [`crate::CgroupSpec::freezer`] asks for it.
//!
//! A v1 group that is frozen cannot even be killed: whoever kills thaws.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::create::write;
use super::position::{Position, Tree};
use crate::error::{Context as _, Error, Result};

/// How long freezing may take. A process that waits for a disk or a network
/// file system cannot be frozen before it goes on.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes the group `name` that `process` is in; returns when nothing in it
/// runs any more.
///
/// # Errors
///
/// When the host cannot do it, or not in time: everything goes on then.
pub fn freeze(process: u32, name: &str) -> Result<()> {
    let freezer = Freezer::of(process, name)?.ok_or_else(|| {
        Error::invalid("the host has no freezer for this container, so it cannot be paused")
    })?;
    freezer.freeze()
}

/// Lets the group `name` that `process` is in go on. One that is not frozen,
/// or cannot be, or has ended meanwhile, is fine.
///
/// # Errors
///
/// When the kernel refuses.
pub fn thaw(process: u32, name: &str) -> Result<()> {
    let freezer = match Freezer::of(process, name) {
        Err(Error::Setup { source, .. }) if is_gone(&source) => return Ok(()),
        found => found?,
    };
    match freezer.as_ref().map(|freezer| (freezer, freezer.set(false))) {
        None | Some((_, Ok(()))) => Ok(()),
        Some((_, Err(error))) if is_gone(&error) => Ok(()),
        Some((freezer, result)) => result.cannot(|| format!("thaw {}", freezer.group().display())),
    }
}

/// Whether a process has ended, or its group was removed, just now.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH))
}

/// Returns whether the group `name` that `process` is in is frozen.
#[must_use]
pub fn is_frozen(process: u32, name: &str) -> bool {
    matches!(Freezer::of(process, name), Ok(Some(freezer)) if freezer.is_frozen().unwrap_or(false))
}

/// The directory of a group that can be frozen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Freezer {
    V1(PathBuf),
    V2(PathBuf),
}

impl Freezer {
    /// Finds the group by one of its processes: its name alone does not tell
    /// where it is, and no other group may be frozen by mistake.
    fn of(process: u32, name: &str) -> Result<Option<Self>> {
        Ok(Self::at(&Position::of(&process.to_string())?, name))
    }

    fn at(position: &Position, name: &str) -> Option<Self> {
        // The process may have made groups of its own inside.
        let group = |tree: &Tree| {
            let named = |path: &PathBuf| path.file_name().is_some_and(|last| last == name);
            tree.ancestors().into_iter().find(named)
        };
        let v1 = position.v1_tree("freezer").and_then(group).map(Self::V1);
        v1.or_else(|| position.v2.as_ref().and_then(group).map(Self::V2))
    }

    /// Freezes the group; returns when nothing in it runs any more.
    pub(super) fn freeze(&self) -> Result<()> {
        let what = || format!("freeze {}", self.group().display());
        let begin = Instant::now();
        loop {
            self.set(true).cannot(what)?;
            if self.is_frozen().cannot(what)? {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                self.set(false).cannot(what)?;
                return Err(io::Error::from(io::ErrorKind::TimedOut)).cannot(what);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn group(&self) -> &Path {
        match self {
            Self::V1(group) | Self::V2(group) => group,
        }
    }

    pub(super) fn set(&self, frozen: bool) -> io::Result<()> {
        match (self, frozen) {
            (Self::V1(group), true) => write(&group.join("freezer.state"), "FROZEN"),
            (Self::V1(group), false) => write(&group.join("freezer.state"), "THAWED"),
            (Self::V2(group), true) => write(&group.join("cgroup.freeze"), "1"),
            (Self::V2(group), false) => write(&group.join("cgroup.freeze"), "0"),
        }
    }

    pub(super) fn is_frozen(&self) -> io::Result<bool> {
        Ok(match self {
            // FREEZING until the last process has stopped.
            Self::V1(group) => fs::read_to_string(group.join("freezer.state"))?.trim() == "FROZEN",
            Self::V2(group) => {
                super::count_of(&fs::read_to_string(group.join("cgroup.events"))?, "frozen") == 1
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 25 0:30 / /cg/freezer rw - cgroup cgroup rw,freezer\n";
    const V2: &str = "26 25 0:26 / /cg/unified rw - cgroup2 cgroup2 rw\n";

    /// `rrun kill` failed now and then: the container was faster.
    #[test]
    fn what_has_ended_needs_no_thawing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        thaw(child.id(), "rrun-none").unwrap();
        let missing = Freezer::V1("/sys/fs/cgroup/no-such-group".into());
        assert!(is_gone(&missing.set(false).unwrap_err()));
        assert!(!is_gone(&io::Error::from_raw_os_error(libc::EACCES)));
    }

    #[test]
    fn only_the_group_of_that_name_is_frozen() {
        let find =
            |cgroup: &str, mounts: &str| Freezer::at(&Position::parse(cgroup, mounts), "box");
        let hybrid = format!("{V1}{V2}");
        let v1 = Some(Freezer::V1("/cg/freezer/a/box".into()));
        let v2 = Some(Freezer::V2("/cg/unified/a/box".into()));
        for (cgroup, mounts, expected) in [
            ("7:freezer:/a/box\n0::/\n", hybrid.as_str(), &v1),
            ("7:freezer:/a/box/inner\n", V1, &v1),
            ("0::/a/box\n", V2, &v2),
            ("0::/a/box/init.scope\n", V2, &v2),
            // Not frozen by mistake: what contains it, or is called alike.
            ("7:freezer:/a\n0::/\n", hybrid.as_str(), &None),
            ("0::/a/box2\n", V2, &None),
            ("", "", &None),
        ] {
            assert_eq!(&find(cgroup, mounts), expected, "{cgroup:?}");
        }
    }
}
