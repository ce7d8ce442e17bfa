//! Building what a bundle asks for around the helper.
//!
//! ```text
//! join, unshare, fork → mounts, devices → caller's hooks → our hooks → masks → pivot_root
//! ```

mod copy;
mod devices;
mod mounts;
mod paths;

pub(super) use paths::open_apparmor;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use nix::sched::CloneFlags;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Gid, Uid};

use super::{Helper, enter, mount};
use crate::bundle::{Bundle, Namespace, NamespaceKind, run_hooks};
use crate::error::{Context as _, Error, Result};
use crate::spawn::{CgroupMount, Message, Pause, Plan};
use crate::sys;

impl Helper {
    /// Builds it and returns the root; none in the process that only forked.
    pub(super) fn build_bundle(
        &mut self,
        plan: &Plan,
        bundle: &Bundle,
        cgroups: &[(CgroupMount, PathBuf)],
        given: Vec<OwnedFd>,
    ) -> Result<Option<OwnedFd>> {
        let mut sources = VecDeque::from(given);
        let paths = bundle.namespaces.iter().filter(|namespace| namespace.path.is_some());
        let joined: Vec<(&Namespace, OwnedFd)> = {
            let first = sources.len().checked_sub(paths.clone().count());
            let first = first.ok_or_else(|| Error::invalid("descriptors are missing"))?;
            paths.zip(sources.split_off(first)).collect()
        };
        if !self.enter_namespaces(plan, bundle, joined)? {
            return Ok(None);
        }
        if bundle.has_new(NamespaceKind::Network) {
            sys::loopback_up().cannot(|| "bring the loopback device up")?;
        }
        if let Some(name) = &bundle.hostname {
            rustix::system::sethostname(name.as_bytes())
                .cannot(|| format!("set the host name {name:?}"))?;
        }
        if let Some(name) = &bundle.domainname {
            sys::set_domain_name(name).cannot(|| format!("set the domain name {name:?}"))?;
        }
        if !bundle.has_new(NamespaceKind::Mount) {
            // The mounts are those of the namespace that was joined.
            self.pause_for_hooks(bundle)?;
            return super::open_root().map(Some);
        }
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
            .cannot(|| "make the mounts private")?;
        let source = sources.pop_front().ok_or_else(|| Error::invalid("no root was given"))?;
        let root = self.place_root(bundle, source)?;
        let late = self.mount_all(&root, bundle, cgroups, &mut sources)?;
        self.make_devices(&root, bundle)?;
        if plan.process.terminal {
            self.open_bundle_console(&root, plan)?;
        }
        paths::set_sysctls(&root, &bundle.sysctls)?;
        self.pause_for_hooks(bundle)?;
        run_hooks("createContainer", &bundle.create_container, &self.state)?;
        self.start_hooks.clone_from(&bundle.start_container);
        paths::protect(&root, &bundle.protected)?;
        paths::mask(&root, &bundle.masked)?;
        for (mount, target) in late {
            sys::mount_setattr(mount.as_fd(), false, sys::MOUNT_ATTR_RDONLY)
                .cannot(|| format!("make {} read-only", target.display()))?;
        }
        if bundle.readonly {
            sys::mount_setattr(root.as_fd(), false, sys::MOUNT_ATTR_RDONLY)
                .cannot(|| "make the root read-only")?;
        }
        enter::pivot(&root)?;
        if let Some(propagation) = bundle.propagation {
            sys::mount_change_attributes(root.as_fd(), false, 0, 0, propagation.flag())
                .cannot(|| "set how the root propagates")?;
        }
        super::open_root().map(Some)
    }

    /// Enters all namespaces. Returns false in a process that only forked.
    fn enter_namespaces(
        &mut self,
        plan: &Plan,
        bundle: &Bundle,
        mut joined: Vec<(&Namespace, OwnedFd)>,
    ) -> Result<bool> {
        let staged = bundle.is_staged();
        // First that of users: it decides over what may be done with the others.
        joined.sort_by_key(|(namespace, _)| namespace.kind != NamespaceKind::User);
        if bundle.has_new(NamespaceKind::User) {
            // Raising limits takes privileges that are gone afterwards.
            self.set_rlimits(&plan.process.rlimits)?;
            unshare(libc::CLONE_NEWUSER)?;
            self.pause(Pause::Unmapped)?;
            become_root()?;
        }
        for (namespace, file) in joined {
            let flag = CloneFlags::from_bits_retain(namespace.kind.flag());
            let path = namespace.path.as_deref().unwrap_or(std::path::Path::new(""));
            nix::sched::setns(&file, flag)
                .cannot(|| format!("join the namespace {}", path.display()))?;
            if namespace.kind == NamespaceKind::User {
                become_root()?;
            }
        }
        if staged {
            let new = bundle.namespaces.iter().filter(|namespace| namespace.path.is_none());
            let flags = new
                .filter(|n| !matches!(n.kind, NamespaceKind::User | NamespaceKind::Cgroup))
                .fold(0, |flags, namespace| flags | namespace.kind.flag());
            unshare(flags)?;
            if bundle.has_new(NamespaceKind::Time) {
                self.pause(Pause::Clocks)?;
            }
            if !self.fork()? {
                return Ok(false);
            }
        }
        if bundle.has_new(NamespaceKind::Cgroup) {
            // In its groups by now, which become the root.
            unshare(libc::CLONE_NEWCGROUP)?;
        }
        Ok(true)
    }

    /// Waits until the caller has done something; keeps the state it tells.
    fn pause(&mut self, why: Pause) -> Result<()> {
        self.channel.send(&Message::Paused(why)).cannot(|| "ask the caller")?;
        match self.channel.receive().cannot(|| "hear from the caller")? {
            Some(Message::Go(state)) => {
                self.state = state;
                Ok(())
            }
            _ => Err(Error::invalid("the caller has given up")),
        }
    }

    fn pause_for_hooks(&mut self, bundle: &Bundle) -> Result<()> {
        let ours = !bundle.create_container.is_empty() || !bundle.start_container.is_empty();
        if bundle.pauses || ours { self.pause(Pause::Mounted) } else { Ok(()) }
    }

    /// Puts the root somewhere in the tree; over its own directory where that
    /// can be reached, else over one that is not needed any more.
    fn place_root(&mut self, bundle: &Bundle, source: OwnedFd) -> Result<OwnedFd> {
        let place = super::root::open(&bundle.root)
            .or_else(|_| super::root::open(std::path::Path::new("/sys")))?;
        mount::over(&place, source)
    }
}

fn unshare(flags: i32) -> Result<()> {
    nix::sched::unshare(CloneFlags::from_bits_retain(flags)).cannot(|| "create namespaces")
}

/// Becomes root of the user namespace that was entered, all of whose
/// capabilities are there already.
fn become_root() -> Result<()> {
    let what = || "become root of the user namespace (is id 0 mapped?)";
    // Without the right to, there are none of the caller's that matter.
    rustix::thread::set_thread_groups(&[]).ok();
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).cannot(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).cannot(what)
}
