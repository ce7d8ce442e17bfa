//! What the caller has decided and the helper carries out.

use std::path::PathBuf;

use crate::bundle::{Bundle, Credentials};
use crate::spec::{Mount, Network, Process, Root};
use crate::sys::SeccompInstruction;
use crate::wire::{wire_enum, wire_struct};

/// The helper's instructions.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Which sandbox the process is in.
    pub(crate) enter: Enter,
    /// The process. Its `security` has been turned into the fields below.
    pub(crate) process: Process,
    /// Whether it is killed when the caller ends.
    pub(crate) die_with_parent: bool,
    /// Whether nothing is executed: the helper stays until it is killed.
    pub(crate) holds: bool,
    /// The files of control groups that the process writes itself to.
    pub(crate) attach: Vec<PathBuf>,
    /// The capabilities that remain, as a bit set.
    pub(crate) capabilities: u64,
    /// The system call filter; empty is none.
    pub(crate) filter: Vec<SeccompInstruction>,
    /// Whether the filter logs what it refuses.
    pub(crate) filter_log: bool,
    /// Whether the filter leaves speculation mitigations off.
    pub(crate) filter_speculation: bool,
    /// What a process of a bundle has beside that.
    pub(crate) own: Option<Own>,
}

/// What a process of a bundle has beside what every process has.
#[derive(Debug, Default)]
pub(crate) struct Own {
    /// Who it is; the plan's capabilities are the bounding set.
    pub(crate) credentials: Credentials,
    /// Whether the first descriptor given is a gate to wait at.
    pub(crate) gated: bool,
    /// How many descriptors, the last ones given, become 3, 4, ….
    pub(crate) preserved: u32,
}

/// Which sandbox a process is in.
#[derive(Debug)]
pub(crate) enum Enter {
    /// A new one, whose namespaces the helper was born in. Where it shares the
    /// network of a process, the pidfd of that one is sent before the plan.
    New {
        /// The root file system.
        root: Root,
        /// What the user wants mounted.
        mounts: Vec<Mount>,
        /// The network.
        network: Network,
        /// The host name.
        hostname: Option<String>,
        /// The control group file systems to show.
        cgroups: Vec<CgroupMount>,
        /// Whether the devices controller guards device nodes.
        devices_guarded: bool,
        /// Whether nothing is hidden or protected.
        privileged: bool,
    },
    /// A new one, as a bundle says. Its sources and namespaces are given as
    /// descriptors: the root, each bind mount in order, each namespace with a
    /// path in order.
    Bundle {
        /// What it says.
        bundle: Box<Bundle>,
        /// The control group file systems to show, and where the groups are.
        cgroups: Vec<(CgroupMount, PathBuf)>,
    },
    /// None: a plain directory that becomes its root.
    Chroot {
        /// The directory.
        root: PathBuf,
    },
    /// One that runs; the pidfd of its first process is sent before the plan.
    Join {
        /// The process id of its first process.
        pid: u32,
    },
}

/// One control group file system inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CgroupMount {
    /// The controllers of a v1 hierarchy, as mount options; empty for v2.
    pub(crate) controllers: Vec<String>,
}

wire_struct!(Plan {
    enter,
    process,
    die_with_parent,
    holds,
    attach,
    capabilities,
    filter,
    filter_log,
    filter_speculation,
    own,
});
wire_struct!(Own { credentials, gated, preserved });
wire_enum!(Enter {
    0 => New { root, mounts, network, hostname, cgroups, devices_guarded, privileged },
    1 => Join { pid },
    2 => Chroot { root },
    3 => Bundle { bundle, cgroups },
});
wire_struct!(CgroupMount { controllers });
