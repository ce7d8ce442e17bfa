//! Building a new sandbox around the helper.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{fchdir, pivot_root};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::{Helper, dev, masks, mount, mounts, root};
use crate::caps;
use crate::dns::Sockets;
use crate::error::{Context as _, Error, Result};
use crate::netlink;
use crate::spawn::{Enter, Message, Plan};
use crate::spec::Network;
use crate::sys;

/// Writes the process to its control groups, before it starts anything: `0` is
/// whoever writes.
pub(super) fn attach(files: &[PathBuf]) -> Result<()> {
    for file in files {
        OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut procs| procs.write_all(b"0"))
            .cannot(|| format!("enter the control group {}", file.display()))?;
    }
    Ok(())
}

impl Helper {
    /// Mounts everything, makes the root the root, and returns it.
    /// `shared` is the process whose network it is to be in.
    pub(super) fn build(&mut self, plan: &Plan, shared: Option<&OwnedFd>) -> Result<OwnedFd> {
        let Enter::New {
            root: spec,
            mounts: wanted,
            network,
            hostname,
            cgroups,
            devices_guarded,
            privileged,
        } = &plan.enter
        else {
            return Err(Error::invalid("a new sandbox needs a root"));
        };
        // Before /sys is mounted, which shows the devices of a namespace.
        enter_network(network, shared)?;
        if let Network::Bridged { resolver: Some(_), .. } = network {
            let Sockets { udp, tcp } = Sockets::open()?;
            for socket in [OwnedFd::from(udp), OwnedFd::from(tcp)] {
                self.channel.send(&Message::Socket(socket)).cannot(|| "hand out a socket")?;
            }
        }
        // What the host mounts later must not arrive here, nor ours there.
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .cannot(|| "make the mounts private")?;
        // Sources are host paths: they are opened before the host's tree is covered.
        let nodev = !devices_guarded
            && !privileged
            && plan.capabilities & caps::bit("MKNOD").unwrap_or(0) != 0
            && is_host_root();
        let mut prepared = mounts::open_sources(wanted, nodev)?;
        let host = dev::HostNodes::open();
        let root = root::mount(spec, nodev)?;
        mounts::check_targets(wanted)?;
        let covered = |path: &str| wanted.iter().any(|mount| mount.target.as_os_str() == path);

        let proc = self.builtin(&root.fd, "proc")?;
        let proc = mount::over(&proc, mount::proc()?)?;
        let sys =
            if covered("/sys") { None } else { Some(self.sys(&root.fd, network, *privileged)?) };
        let null = self.dev(&root.fd, &host, plan, &covered)?;
        // Before the user's mounts, one of which may cover /dev.
        let files = mounts::make_files(&root.fd, &mut prepared)?;
        self.mount_wanted(&root.fd, prepared)?;
        files.hide()?;
        if !privileged {
            masks::apply(&proc, sys.as_ref(), &null)?;
        }
        // Inside the groups by now: this is where the namespace's root is. Without
        // groups it only hides where on the host this runs.
        match nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP) {
            Err(_) if cgroups.is_empty() => {}
            other => other.cannot(|| "create a control group namespace")?,
        }
        if let (Some(sys), false) = (&sys, cgroups.is_empty()) {
            // Programs look there for their limits; none depends on it.
            mounts::show_cgroups(sys, cgroups, *privileged).ok();
        }
        if root.readonly {
            sys::mount_setattr(root.fd.as_fd(), false, sys::MOUNT_ATTR_RDONLY)
                .cannot(|| "make the root read-only")?;
        }
        if let Some(hostname) = hostname {
            rustix::system::sethostname(hostname.as_bytes())
                .cannot(|| format!("set the host name {hostname:?}"))?;
        }
        pivot(&root.fd)?;
        super::open_root()
    }
}

/// Enters the network namespace where it is another's, and sets up one that is
/// new.
fn enter_network(network: &Network, shared: Option<&OwnedFd>) -> Result<()> {
    let links = match network {
        Network::Host => return Ok(()),
        Network::Shared { .. } => {
            let shared = shared.ok_or_else(|| Error::invalid("no network to join was given"))?;
            return move_into_thread_name_spaces(shared.as_fd(), ThreadNameSpaceType::NETWORK)
                .cannot(|| "join the network of the other container");
        }
        Network::None => &[][..],
        Network::Bridged { links, .. } => links,
    };
    sys::loopback_up().cannot(|| "bring the loopback device up")?;
    netlink::configure(links)?;
    // As docker has it: nobody else's ports or sockets are in here. Where /proc
    // cannot be written, only ordinary users notice.
    for (name, value) in [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0 2147483647")]
    {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).ok();
    }
    Ok(())
}

/// Exchanges the root of the mount namespace and lets go of the old one.
pub(super) fn pivot(root: &OwnedFd) -> Result<()> {
    fchdir(root).cannot(|| "enter the new root")?;
    // The old root lands on top of the new one, where it can be taken away
    // without needing a directory for it.
    match pivot_root(".", ".") {
        Ok(()) => unmount(".", UnmountFlags::DETACH).cannot(|| "detach the old root")?,
        Err(rustix::io::Errno::INVAL) => {
            // The host runs from an initramfs, which cannot be pivoted.
            rustix::mount::mount_move(".", "/").cannot(|| "move the new root to /")?;
            rustix::process::chroot(".").cannot(|| "change the root directory")?;
        }
        Err(error) => return Err(error).cannot(|| "pivot to the new root"),
    }
    rustix::process::chdir("/").cannot(|| "enter the new root")
}

/// Returns whether user id 0 here is that of the host. Elsewhere the kernel
/// itself keeps device nodes from being of use.
fn is_host_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_ascii_whitespace();
    words.next() == Some("0") && words.next() == Some("0") && words.next() == Some("4294967295")
}
