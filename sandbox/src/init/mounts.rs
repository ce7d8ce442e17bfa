//! /sys, and what the user wants mounted.

use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, mkdirat, symlinkat};
use rustix::mount::MountAttrFlags;

use super::target::{STRICT, is_directory, open_beneath};
use super::{Helper, mount};
use crate::error::{Context as _, Error, Result};
use crate::spawn::CgroupMount;
use crate::spec::{Mount, MountKind, Network};
use crate::sys::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// A mount that waits for its target.
pub(super) struct Prepared<'a> {
    target: &'a Path,
    mount: OwnedFd,
    directory: bool,
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
    };
    if restrictions != 0 {
        mount::restrict(&mount, true, restrictions)
            .cannot(|| format!("restrict the mount of {}", wanted.target.display()))?;
    }
    Ok(Prepared { target: &wanted.target, mount, directory })
}

impl Helper {
    /// Puts the user's mounts in their places.
    pub(super) fn mount_wanted(
        &mut self,
        root: &OwnedFd,
        prepared: Vec<Prepared<'_>>,
    ) -> Result<()> {
        for Prepared { target, mount, directory } in prepared {
            let place = self.target(root, target, directory)?;
            mount::attach(&mount, &place).cannot(|| format!("mount {}", target.display()))?;
        }
        Ok(())
    }

    /// Mounts /sys, read-only.
    pub(super) fn sys(&mut self, root: &OwnedFd, network: Network) -> Result<OwnedFd> {
        let place = self.builtin(root, "sys")?;
        let readonly = mount::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
        let sys = match mount::create("sysfs", &[], readonly) {
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
pub(super) fn show_cgroups(sys: &OwnedFd, cgroups: &[CgroupMount]) -> rustix::io::Result<()> {
    let place =
        open_beneath(sys, Path::new("fs/cgroup"), OFlags::PATH | OFlags::DIRECTORY, STRICT)?;
    let readonly = mount::PLAIN | MountAttrFlags::MOUNT_ATTR_RDONLY;
    if let [CgroupMount { controllers }] = cgroups
        && controllers.is_empty()
    {
        return mount::attach(&mount::create("cgroup2", &[], readonly)?, &place);
    }
    let directory = mount::create("tmpfs", &[("mode", "755")], mount::PLAIN)?;
    mount::attach(&directory, &place)?;
    for CgroupMount { controllers } in cgroups.iter().filter(|mount| !mount.controllers.is_empty())
    {
        let name = controllers.join(",");
        mkdirat(&directory, name.as_str(), Mode::from_raw_mode(0o755))?;
        if controllers.len() > 1 {
            for controller in controllers {
                symlinkat(name.as_str(), &directory, controller.as_str())?;
            }
        }
        let options: Vec<(&str, &str)> =
            controllers.iter().map(|controller| (controller.as_str(), "")).collect();
        let place =
            open_beneath(&directory, Path::new(&name), OFlags::PATH | OFlags::DIRECTORY, STRICT)?;
        mount::attach(&mount::create("cgroup", &options, readonly)?, &place)?;
    }
    mount::restrict(&directory, false, MOUNT_ATTR_RDONLY).map_err(|_| rustix::io::Errno::IO)
}
