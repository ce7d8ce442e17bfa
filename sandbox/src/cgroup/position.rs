//! Where a process is in each control group tree.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::V1_TASKS;
use crate::error::{Context as _, Error, Result};

/// The position of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The v1 trees.
    pub(super) v1: Vec<Tree>,
    /// The v2 tree.
    pub(super) v2: Option<Tree>,
}

/// One tree, and the place of the process in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    /// Its v1 controllers; named trees like `name=systemd` are left out.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The directory of the process.
    pub(super) own: PathBuf,
}

impl Position {
    /// Reads the position of the calling process.
    pub(super) fn own() -> Result<Self> {
        Self::of("self")
    }

    /// Reads the position of another process.
    pub(super) fn of(process: &str) -> Result<Self> {
        let read = |path: String| fs::read_to_string(&path).cannot(|| format!("read {path}"));
        Ok(Self::parse(
            &read(format!("/proc/{process}/cgroup"))?,
            &read("/proc/self/mountinfo".into())?,
        ))
    }

    /// Combines `/proc/PID/cgroup` with `/proc/PID/mountinfo` (`proc(5)`).
    pub(super) fn parse(cgroup: &str, mountinfo: &str) -> Self {
        let mut position = Self { v1: Vec::new(), v2: None };
        let mounts: Vec<Mount<'_>> = mountinfo.lines().filter_map(Mount::parse).collect();
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if controllers.is_empty() {
                // The last mount in the file is the one on top.
                let mount = mounts.iter().rev().find(|mount| mount.kind == "cgroup2");
                position.v2 = mount.and_then(|mount| mount.tree(&[], path));
            } else if !controllers.starts_with("name=") {
                let controllers: Vec<&str> = controllers.split(',').collect();
                let mount = mounts.iter().rev().find(|mount| {
                    mount.kind == "cgroup"
                        && controllers
                            .iter()
                            .all(|name| mount.options.split(',').any(|o| o == *name))
                });
                position.v1.extend(mount.and_then(|mount| mount.tree(&controllers, path)));
            }
        }
        position
    }

    /// Returns the position of a process that were in the group `parent`, a path
    /// from the top of each tree.
    ///
    /// # Errors
    ///
    /// When the path would lead out of the tree.
    pub(super) fn at(mut self, parent: &Path) -> Result<Self> {
        let below = parent.strip_prefix("/").unwrap_or(parent);
        if below.components().any(|part| !matches!(part, Component::Normal(_))) {
            let what = format!("{} is not a path of control groups", parent.display());
            return Err(Error::invalid(what));
        }
        for tree in self.v1.iter_mut().chain(&mut self.v2) {
            tree.own = tree.mount.join(below);
        }
        Ok(self)
    }

    /// Returns the v1 tree of a controller.
    pub(super) fn v1_tree(&self, controller: &str) -> Option<&Tree> {
        self.v1.iter().find(|tree| tree.controllers.iter().any(|name| name == controller))
    }

    /// Returns every directory in which groups of this process may have been
    /// made: its own ones, and in the v2 tree their ancestors.
    pub(super) fn parents(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let v1: Vec<PathBuf> = self.v1.iter().map(|tree| tree.own.clone()).collect();
        let v2: Vec<PathBuf> = self.v2.iter().flat_map(Tree::ancestors).collect();
        v1.into_iter().chain(v2)
    }
}

impl Tree {
    /// Returns the own directory and those above it, up to the mount.
    pub(super) fn ancestors(&self) -> Vec<PathBuf> {
        self.own
            .ancestors()
            .take_while(|path| path.starts_with(&self.mount))
            .map(Path::to_path_buf)
            .collect()
    }
}

struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let kind = right.next().filter(|kind| kind.starts_with("cgroup"))?;
        let mut left = left.split(' ').skip(3);
        Some(Self {
            root: unescape(left.next()?),
            point: unescape(left.next()?),
            kind,
            options: right.nth(1).unwrap_or(""),
        })
    }

    /// Returns the tree with the directory of `path`, when this mount shows it.
    fn tree(&self, controllers: &[&str], path: &str) -> Option<Tree> {
        let below = Path::new(path).strip_prefix(&self.root).ok()?;
        // Outside of a cgroup namespace's root, paths begin with `/..`.
        if below.components().any(|part| part == Component::ParentDir) {
            return None;
        }
        let controllers = controllers.iter().map(ToString::to_string).collect();
        let own =
            if below.as_os_str().is_empty() { self.point.clone() } else { self.point.join(below) };
        Some(Tree { controllers, mount: self.point.clone(), own })
    }
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(text: &str) -> PathBuf {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}

/// Returns the files a process of the caller is written to in order to be
/// where process `pid` is. Trees in which both are in one place are left out.
pub(crate) fn attach_files_of(pid: u32) -> Result<Vec<PathBuf>> {
    let (own, other) = (Position::own()?, Position::of(&pid.to_string())?);
    let files = |position: Position| {
        let v1 = position.v1.into_iter().map(|tree| tree.own.join(V1_TASKS));
        v1.chain(position.v2.into_iter().map(|tree| tree.own.join("cgroup.procs")))
    };
    let here: Vec<PathBuf> = files(own).collect();
    Ok(files(other).filter(|path| !here.contains(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 /outer /sys/fs/cgroup/devices rw,relatime shared:9 master:3 - cgroup cgroup rw,devices
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_hybrid_host_has_a_place_in_every_tree() {
        let cgroup = "9:name=systemd:/x\n5:devices:/outer/in:ner\n4:memory:/a/b\n1:cpu,cpuacct:/\n7:blkio:/\n0::/\n";
        let position = Position::parse(cgroup, HYBRID_MOUNTS);
        let own =
            |controller| position.v1_tree(controller).map(|tree| tree.own.display().to_string());
        assert_eq!(own("memory").as_deref(), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(own("cpuacct").as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(own("devices").as_deref(), Some("/sys/fs/cgroup/devices/in:ner"));
        assert_eq!(own("blkio"), None, "not mounted");
        assert_eq!(position.v2.unwrap().own, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn a_v2_host_has_one_tree() {
        let mounts = "25 22 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let position = Position::parse("0::/user.slice/user-0.slice/session-1.scope\n", mounts);
        assert!(position.v1.is_empty());
        let tree = position.v2.as_ref().unwrap();
        assert_eq!(tree.own, Path::new("/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope"));
        assert_eq!(tree.ancestors().len(), 4);
        assert_eq!(position.parents().last().unwrap(), Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn another_parent_is_found_from_the_top_and_never_above_it() {
        let cgroup = "4:memory:/a/b\n0::/\n";
        let position = Position::parse(cgroup, HYBRID_MOUNTS).at(Path::new("/ci/jobs")).unwrap();
        let own = &position.v1_tree("memory").unwrap().own;
        assert_eq!(own, Path::new("/sys/fs/cgroup/memory/ci/jobs"));
        assert_eq!(position.v2.unwrap().own, Path::new("/sys/fs/cgroup/unified/ci/jobs"));
        for parent in ["../x", "/a/../../x", "a/./../x"] {
            let position = Position::parse(cgroup, HYBRID_MOUNTS);
            assert!(position.at(Path::new(parent)).is_err(), "accepted {parent}");
        }
    }

    #[test]
    fn places_that_are_not_visible_are_left_out() {
        let mounts = "36 31 0:33 /outer /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n";
        assert!(Position::parse("5:devices:/other\n", mounts).v1.is_empty());
        assert!(Position::parse("5:devices:/outer/../x\n", mounts).v1.is_empty());
        assert_eq!(unescape(r"/a\040b\134c\9"), Path::new(r"/a b\c\9"));
    }
}
