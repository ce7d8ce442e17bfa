//! /sys, and what the user wants mounted.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, mkdirat, symlinkat, unlinkat};
use rustix::mount::MountAttrFlags;

use super::target::{STRICT, is_directory, open_beneath, open_in_root};
use super::{Helper, dev, mount, root};
use crate::error::{Context as _, Error, Result};
use crate::spawn::CgroupMount;
use crate::spec::{Mount, MountKind, Network, SecretBytes};
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// A mount that waits for its target.
pub(super) struct Prepared<'a> {
    target: &'a Path,
    source: Source<'a>,
}

enum Source<'a> {
    /// A detached mount.
    Mount { mount: OwnedFd, directory: bool },
    /// A file that is made when there is a place in memory for it.
    File { content: &'a SecretBytes, mode: u32, uid: u32, gid: u32 },
}

/// Refuses targets that would take the sandbox apart.
pub(super) fn check_targets(mounts: &[Mount]) -> Result<()> {
    for Mount { target, .. } in mounts {
        let shown = target.display();
        if !target.is_absolute() {
            return Err(Error::invalid(format!("the mount point {shown} is not an absolute path")));
        }
        if target.components().any(|part| part == Component::ParentDir) {
            return Err(Error::invalid(format!("the mount point {shown} must not contain ..")));
        }
        if target.components().count() < 2 || target.starts_with("/proc") {
            return Err(Error::invalid(format!("cannot mount on {shown}")));
        }
    }
    Ok(())
}

/// Opens all sources as detached mounts, outer targets before inner ones.
pub(super) fn open_sources(mounts: &[Mount], nodev: bool) -> Result<Vec<Prepared<'_>>> {
    let mut ordered: Vec<&Mount> = mounts.iter().collect();
    ordered.sort_by_key(|mount| mount.target.components().count());
    ordered.into_iter().map(|mount| prepare(mount, nodev)).collect()
}

fn prepare(wanted: &Mount, nodev: bool) -> Result<Prepared<'_>> {
    let mut restrictions = if nodev { MOUNT_ATTR_NODEV } else { 0 };
    let (mount, directory) = match &wanted.kind {
        MountKind::Bind { source, readonly, recursive } => {
            let what = || format!("mount {} of the host", source.display());
            if !source.is_absolute() {
                return Err(Error::invalid(format!(
                    "the source {} is not an absolute path",
                    source.display()
                )));
            }
            let mount = mount::clone_path(source, *recursive).cannot(what)?;
            let directory = is_directory(&mount).cannot(what)?;
            if *readonly {
                restrictions |= MOUNT_ATTR_RDONLY;
            }
            (mount, directory)
        }
        MountKind::Tmpfs { size_bytes, mode, readonly } => {
            let mode = format!("{:o}", mode & 0o7777);
            let size = size_bytes.map(|size| size.to_string());
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            let mount = mount::create("tmpfs", &options, attributes).cannot(|| "make a tmpfs")?;
            if *readonly {
                restrictions |= MOUNT_ATTR_RDONLY;
            }
            (mount, true)
        }
        MountKind::Tree { lowers, writable, place, path, readonly } => {
            restrictions |= MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;
            if *readonly {
                restrictions |= MOUNT_ATTR_RDONLY;
            }
            let mount = part_of(lowers, writable.as_ref(), place, path)?;
            let directory = is_directory(&mount).cannot(|| "look at a mount")?;
            (mount, directory)
        }
        MountKind::File { content, mode, uid, gid } => {
            let source = Source::File { content, mode: *mode, uid: *uid, gid: *gid };
            return Ok(Prepared { target: &wanted.target, source });
        }
    };
    if restrictions != 0 {
        mount::restrict(&mount, true, restrictions)
            .cannot(|| format!("restrict the mount of {}", wanted.target.display()))?;
    }
    Ok(Prepared { target: &wanted.target, source: Source::Mount { mount, directory } })
}

/// Clones what is at `path` in a stack of directories as a detached mount. The
/// path is resolved beneath the stack's root and what was found is mounted, so
/// that nobody who changes the stack meanwhile can lead it elsewhere
/// (CVE-2024-23651).
fn part_of(
    lowers: &[PathBuf],
    writable: Option<&(PathBuf, PathBuf)>,
    place: &Path,
    path: &Path,
) -> Result<OwnedFd> {
    let what = || format!("mount {} of another root", path.display());
    let root = match (lowers, writable) {
        ([directory], None) => root::open(directory)?,
        (lowers, writable) => {
            let overlay = root::Overlay {
                lowers,
                upper: writable.map(|(upper, _)| upper.as_path()),
                work: writable.map(|(_, work)| work.as_path()),
                volatile: true,
            };
            overlay.mount(Some(place))?
        }
    };
    let found = open_in_root(&root, path, OFlags::PATH).cannot(what)?;
    mount::clone_of(&found).cannot(what)
}

/// Files that exist only in memory: until they are mounted they have names in
/// the sandbox's own /dev.
pub(super) struct Files {
    dev: OwnedFd,
    names: Vec<String>,
}

/// Makes the files that exist only in memory.
pub(super) fn make_files(root: &OwnedFd, prepared: &mut [Prepared<'_>]) -> Result<Files> {
    let dev = open_beneath(root, Path::new("dev"), OFlags::PATH | OFlags::DIRECTORY, STRICT)
        .cannot(|| "open /dev")?;
    let mut files = Files { dev, names: Vec::new() };
    for Prepared { target, source } in prepared {
        if let Source::File { content, mode, uid, gid } = source {
            let mount = files
                .make(content, *mode, (*uid, *gid))
                .cannot(|| format!("make the file for {}", target.display()))?;
            *source = Source::Mount { mount, directory: false };
        }
    }
    Ok(files)
}

impl Files {
    fn make(
        &mut self,
        content: &SecretBytes,
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> io::Result<OwnedFd> {
        let name = format!(".memory-{}", self.names.len());
        let file = dev::create_file(&self.dev, &name)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW;
        let writer = open_beneath(&self.dev, Path::new(&name), flags, STRICT)?;
        self.names.push(name);
        let mut writer = fs::File::from(writer);
        writer.write_all(content.expose())?;
        // The owner first: changing it takes set-user-id bits away.
        rustix::fs::fchown(&writer, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(&writer, Mode::from_raw_mode(mode & 0o7777))?;
        let mount = mount::clone_of(&file)?;
        let attributes =
            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
        mount::restrict(&mount, false, attributes)?;
        Ok(mount)
    }

    /// Takes the names away, now that the mounts hold the files. (The kernel
    /// does not mount what has no name.)
    pub(super) fn hide(self) -> Result<()> {
        for name in &self.names {
            unlinkat(&self.dev, name.as_str(), AtFlags::empty()).cannot(|| "hide a file")?;
        }
        Ok(())
    }
}

impl Helper {
    /// Puts the user's mounts in their places.
    pub(super) fn mount_wanted(
        &mut self,
        root: &OwnedFd,
        prepared: Vec<Prepared<'_>>,
    ) -> Result<()> {
        for Prepared { target, source } in prepared {
            let Source::Mount { mount, directory } = source else {
                return Err(Error::invalid("a file was to be mounted before it was made"));
            };
            let place = self.target(root, target, directory)?;
            mount::attach(&mount, &place).cannot(|| format!("mount {}", target.display()))?;
        }
        Ok(())
    }

    /// Mounts /sys, read-only unless told otherwise.
    pub(super) fn sys(
        &mut self,
        root: &OwnedFd,
        network: &Network,
        writable: bool,
    ) -> Result<OwnedFd> {
        let place = self.builtin(root, "sys")?;
        let sys = match mount::create("sysfs", &[], attributes(writable)) {
            // In a user namespace sysfs belongs to the network namespace's
            // owner: with the host's network it can only be shown.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                let host = mount::clone_path(Path::new("/sys"), true)
                    .cannot(|| "mount /sys of the host")?;
                let plain =
                    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
                mount::restrict(&host, true, plain).cannot(|| "make /sys read-only")?;
                tracing::trace!(?network, "showing /sys of the host");
                host
            }
            other => other.cannot(|| "mount /sys")?,
        };
        mount::over(&place, sys)
    }
}

/// Mounts the control groups at /sys/fs/cgroup as far as the sandbox has some.
pub(super) fn show_cgroups(
    sys: &OwnedFd,
    cgroups: &[CgroupMount],
    writable: bool,
) -> rustix::io::Result<()> {
    let place =
        open_beneath(sys, Path::new("fs/cgroup"), OFlags::PATH | OFlags::DIRECTORY, STRICT)?;
    if let [group] = cgroups
        && group.controllers.is_empty()
    {
        return mount::attach(&cgroup_filesystem(group, writable)?, &place);
    }
    let source = |group: &CgroupMount| cgroup_filesystem(group, writable);
    show_cgroup_trees(&place, cgroups, |group| group, source, true)
}

/// Mounts the trees of v1 as directories of a tmpfs.
pub(super) fn show_cgroup_trees<T>(
    place: &OwnedFd,
    cgroups: &[T],
    group: impl Fn(&T) -> &CgroupMount,
    source: impl Fn(&T) -> rustix::io::Result<OwnedFd>,
    readonly: bool,
) -> rustix::io::Result<()> {
    let directory = mount::create("tmpfs", &[("mode", "755")], mount::PLAIN)?;
    mount::attach(&directory, place)?;
    for entry in cgroups.iter().filter(|entry| !group(entry).controllers.is_empty()) {
        let controllers = &group(entry).controllers;
        let name = controllers.join(",");
        mkdirat(&directory, name.as_str(), Mode::from_raw_mode(0o755))?;
        if controllers.len() > 1 {
            for controller in controllers {
                symlinkat(name.as_str(), &directory, controller.as_str())?;
            }
        }
        let place =
            open_beneath(&directory, Path::new(&name), OFlags::PATH | OFlags::DIRECTORY, STRICT)?;
        mount::attach(&source(entry)?, &place)?;
    }
    if !readonly {
        return Ok(());
    }
    mount::restrict(&directory, false, MOUNT_ATTR_RDONLY).map_err(|_| rustix::io::Errno::IO)
}

/// Makes the file system of a tree, whose root is that of the namespace.
pub(super) fn cgroup_filesystem(
    group: &CgroupMount,
    writable: bool,
) -> rustix::io::Result<OwnedFd> {
    if group.controllers.is_empty() {
        return mount::create("cgroup2", &[], attributes(writable));
    }
    let options: Vec<(&str, &str)> =
        group.controllers.iter().map(|controller| (controller.as_str(), "")).collect();
    mount::create("cgroup", &options, attributes(writable))
}

/// Returns what a file system of the kernel's own is mounted with.
fn attributes(writable: bool) -> MountAttrFlags {
    if writable { mount::PLAIN } else { mount::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY }
}
