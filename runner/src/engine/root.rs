//! The files of a container as it sees them, whether it runs or not.
//!
//! A running container's root is that of its first process. For one that does
//! not run, a sandbox is made in which nothing is executed: its mounts are the
//! container's, and are in no other mount namespace. Either way everything is
//! done from here, beneath one descriptor, and no program of the container's is
//! asked to help.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use sandbox::{Network, Sandboxed};

use super::Engine;
use super::containers::Container;
use super::error::{Error, IoContext as _, Result};
use super::ownership::Ownership;
use super::state::Status;

/// Links lead to their place in the root, links of procfs nowhere.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// How often the kernel is asked again that was disturbed by renames.
const ATTEMPTS: u32 = 128;

/// The root directory of a container.
#[derive(Debug)]
pub struct ContainerRoot {
    fd: OwnedFd,
    /// What makes it be there, if the container does not run: ends first.
    _held: Option<Sandboxed>,
    _ownership: Option<Ownership>,
}

impl Engine {
    /// Opens the root directory of a container, with everything that is mounted
    /// in it.
    ///
    /// # Errors
    ///
    /// When somebody is just starting or removing it, and when its root cannot
    /// be made.
    pub fn open_root(&self, container: &Container) -> Result<ContainerRoot> {
        if let Status::Running(running) = container.status()? {
            let gone = || Error::NotRunning { container: container.config.name.to_string() };
            let process = running.process()?.ok_or_else(gone)?;
            let fd = open_root_of(process.pid())?;
            // The number may have become another process' before it was opened.
            running.process()?.ok_or_else(gone)?;
            return Ok(ContainerRoot { fd, _held: None, _ownership: None });
        }
        let ownership = container
            .own()?
            .ok_or_else(|| Error::StillRunning { container: container.config.name.to_string() })?;
        let mut spec = self.describe_again(container)?;
        spec.network = Network::None;
        spec.cgroup = None;
        let held = sandbox::hold(&spec).map_err(Error::Sandbox)?;
        let fd = open_root_of(held.pid().cast_signed())?;
        Ok(ContainerRoot { fd, _held: Some(held), _ownership: Some(ownership) })
    }
}

fn open_root_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, &path, flags, Mode::empty()).doing("open", Path::new(&path))
}

impl ContainerRoot {
    /// Opens a path in the container, following its links inside it.
    ///
    /// # Errors
    ///
    /// As openat2(2).
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        for _ in 0..ATTEMPTS {
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), IN_ROOT) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return Ok(opened?),
            }
        }
        Err(Errno::AGAIN.into())
    }
}

impl AsFd for ContainerRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
