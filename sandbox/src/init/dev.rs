//! /dev: a small tmpfs with the nodes that programs expect.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::target::{STRICT, is_device, open_beneath};
use super::{Helper, mount};
use crate::error::{Context as _, Error, Result};
use crate::spawn::Plan;

/// The device nodes: name, major, minor.
pub(super) const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The links, as runtimes make them.
pub(super) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The size of /dev/shm, as with docker.
const SHM_BYTES: &str = "67108864";

/// The host's device nodes, for where none can be made.
pub(super) struct HostNodes(Option<OwnedFd>);

impl HostNodes {
    /// Opens the host's /dev while it can still be seen.
    pub(super) fn open() -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self(rustix::fs::open("/dev", flags, Mode::empty()).ok())
    }

    /// Binds a node of the host to a file in `directory`.
    fn bind(&self, directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
        self.bind_at(name, directory, name)
    }

    /// Binds the host's `/dev/<node>` to a new file `name` in `directory`.
    pub(super) fn bind_at(
        &self,
        node: &str,
        directory: &OwnedFd,
        name: &str,
    ) -> rustix::io::Result<()> {
        let host = self.0.as_ref().ok_or(Errno::NOENT)?;
        let node = open_beneath(host, Path::new(node), OFlags::PATH, STRICT)?;
        let node = mount::clone_of(&node)?;
        mount::attach(&node, &create_file(directory, name)?)
    }
}

/// Makes an empty file to mount on, and opens it.
pub(super) fn create_file(directory: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::from_raw_mode(0o666))?;
    open_beneath(directory, Path::new(name), OFlags::PATH, STRICT)
}

impl Helper {
    /// Mounts /dev and what is in it; returns its `null`, known to be genuine.
    pub(super) fn dev(
        &mut self,
        root: &OwnedFd,
        host: &HostNodes,
        plan: &Plan,
        covered: &dyn Fn(&str) -> bool,
    ) -> Result<OwnedFd> {
        let place = self.builtin(root, "dev")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        let dev = mount::create("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)
            .cannot(|| "mount /dev")?;
        let dev = mount::over(&place, dev)?;
        make_nodes(&dev, host)?;
        for (name, destination) in LINKS {
            symlinkat(destination, &dev, name).cannot(|| format!("make /dev/{name}"))?;
        }
        let pts = directory(&dev, "pts")?;
        let pts = mount::over(&pts, devpts()?)?;
        if !covered("/dev/shm") {
            let shm = directory(&dev, "shm")?;
            let mount =
                mount::create("tmpfs", &[("mode", "1777"), ("size", SHM_BYTES)], mount::PLAIN)
                    .cannot(|| "mount /dev/shm")?;
            mount::over(&shm, mount)?;
        }
        if !covered("/dev/mqueue") {
            let queues = directory(&dev, "mqueue")?;
            match mount::create("mqueue", &[], mount::PLAIN) {
                Ok(mount) => drop(mount::over(&queues, mount)?),
                // A kernel without POSIX message queues.
                Err(Errno::NODEV) => {}
                Err(error) => return Err(error).cannot(|| "mount /dev/mqueue"),
            }
        }
        if plan.process.terminal {
            self.open_console(&dev, &pts, plan)?;
        }
        let null = open_beneath(&dev, Path::new("null"), OFlags::PATH, STRICT)
            .cannot(|| "open /dev/null")?;
        Ok(null)
    }
}

fn make_nodes(dev: &OwnedFd, host: &HostNodes) -> Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in NODES {
        let made = mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor));
        match made {
            // In a user namespace: the host's node is bound instead.
            Err(Errno::PERM) => host.bind(dev, name),
            other => other,
        }
        .cannot(|| format!("make /dev/{name}"))?;
        if !is_device(dev, name, major, minor).cannot(|| format!("look at /dev/{name}"))? {
            return Err(Error::invalid(format!(
                "/dev/{name} of the host is not the device {major}:{minor}"
            )));
        }
    }
    Ok(())
}

fn devpts() -> Result<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match mount::create("devpts", &options, attributes) {
        // Group 5 (tty) is not mapped where a user has a single id.
        Err(Errno::INVAL) => mount::create("devpts", &options[..3], attributes),
        other => other,
    }
    .cannot(|| "mount /dev/pts")
}

fn directory(dev: &OwnedFd, name: &str) -> Result<OwnedFd> {
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).cannot(|| format!("make /dev/{name}"))?;
    open_beneath(dev, Path::new(name), OFlags::PATH | OFlags::DIRECTORY, STRICT)
        .cannot(|| format!("open /dev/{name}"))
}
