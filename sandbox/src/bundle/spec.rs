//! What a bundle asks for, as plain values.

use std::path::PathBuf;

use crate::spec::Process;
use crate::wire::{wire_enum, wire_struct};

/// A process and everything around it, exactly as a runtime configuration
/// says: nothing is mounted, made or hidden that is not in here.
///
/// Host paths (`root`, sources, namespaces) are opened by the caller of
/// [`super::create`]; targets are resolved strictly beneath the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Bundle {
    /// The directory that becomes `/`.
    pub root: PathBuf,
    /// Whether it cannot be written.
    pub readonly: bool,
    /// How the root's mount propagates in the end; none is private.
    pub propagation: Option<Propagation>,
    /// The namespaces that are not those of the caller, each kind once.
    pub namespaces: Vec<Namespace>,
    /// The user ids of a new user namespace.
    pub uid_map: Vec<IdRange>,
    /// The group ids of a new user namespace.
    pub gid_map: Vec<IdRange>,
    /// The clocks of a new time namespace.
    pub clocks: Vec<ClockOffset>,
    /// What is mounted, in this order.
    pub mounts: Vec<BundleMount>,
    /// Device nodes beside the default ones.
    pub devices: Vec<Device>,
    /// Paths that are covered.
    pub masked: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub protected: Vec<PathBuf>,
    /// Kernel parameters by their names with dots.
    pub sysctls: Vec<(String, String)>,
    /// The host name.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Executed in the new namespaces, before the root is changed.
    pub create_container: Vec<Hook>,
    /// Executed in the new root, right before the command.
    pub start_container: Vec<Hook>,
    /// Whether the caller does something between the namespaces and the root
    /// (hooks of its own); implied by hooks above.
    pub pauses: bool,
    /// The command. Its `user`, `groups` and `security` lists are not used.
    pub process: Process,
    /// Who runs it.
    pub credentials: Credentials,
}

/// The kinds of namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamespaceKind {
    /// Users and capabilities.
    User,
    /// Process ids.
    Pid,
    /// Network devices.
    Network,
    /// Mounts.
    Mount,
    /// Inter-process communication.
    Ipc,
    /// Host and domain name.
    Uts,
    /// The root of control groups.
    Cgroup,
    /// Clocks.
    Time,
}

impl NamespaceKind {
    /// Returns the `CLONE_NEW…` flag.
    pub(crate) fn flag(self) -> i32 {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Network => libc::CLONE_NEWNET,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => 0x80,
        }
    }
}

/// One namespace that is not the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What it separates.
    pub kind: NamespaceKind,
    /// The file of one that exists; none is a new one.
    pub path: Option<PathBuf>,
}

/// A range of ids of a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub inside: u32,
    /// The first id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The maps of an idmapped mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdRange>,
    /// Group ids.
    pub gids: Vec<IdRange>,
    /// Whether mounts below are mapped, too.
    pub recursive: bool,
}

/// What a clock of a time namespace is ahead of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds beside them.
    pub nanoseconds: u32,
}

/// How mounts travel between a mount and its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// From the original to the copy.
    Slave,
    /// Both ways.
    Shared,
    /// Not at all, and it cannot be copied.
    Unbindable,
}

impl Propagation {
    /// Returns the `MS_…` flag.
    pub(crate) fn flag(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// One mount of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleMount {
    /// Where, as an absolute path inside.
    pub target: PathBuf,
    /// What.
    pub kind: BundleMountKind,
    /// `MOUNT_ATTR_…` bits to set on it.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
    /// Bits to set on it and on all mounts below.
    pub set_recursive: u64,
    /// Bits to clear there.
    pub clear_recursive: u64,
    /// How it propagates, and whether mounts below do, too.
    pub propagation: Option<(Propagation, bool)>,
}

/// What a bundle mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleMountKind {
    /// A file or directory of the host.
    Bind {
        /// The absolute path on the host.
        source: PathBuf,
        /// Whether mounts below the source come along.
        recursive: bool,
        /// How the ids of files are seen through it.
        ids: Option<IdMaps>,
    },
    /// A new file system.
    Filesystem {
        /// Its type, for instance `tmpfs`.
        kind: String,
        /// What it is called, or the device.
        source: String,
        /// Its own options; one without a value is a flag.
        options: Vec<(String, String)>,
        /// Whether what is at the target in the root is copied into it.
        copy_up: bool,
    },
    /// The control groups of the container, in the host's layout.
    Cgroups,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Where, as an absolute path inside.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: char,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// A program of an engine that is told the container's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program, as an absolute path.
    pub path: PathBuf,
    /// Its arguments, beginning with its name; none is the path alone.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// How many seconds it may take.
    pub timeout_seconds: Option<u64>,
}

/// Who a process is and what it may do, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The user id inside.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The mask of permission bits for new files; none is 022.
    pub umask: Option<u32>,
    /// The capability sets.
    pub capabilities: CapabilitySets,
    /// The execution domain (`personality(2)`).
    pub personality: Option<u32>,
    /// The AppArmor profile that the command is confined by.
    pub apparmor: Option<String>,
}

/// Capabilities as bit sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CapabilitySets {
    /// What can ever be had.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What is kept across an exec of a program that asks for it.
    pub inheritable: u64,
    /// What is kept across every exec.
    pub ambient: u64,
}

impl CapabilitySets {
    /// Returns the bit of a capability by its name, `CAP_` optional.
    #[must_use]
    pub fn bit(name: &str) -> Option<u64> {
        crate::caps::bit(name)
    }
}

wire_struct!(Bundle {
    root,
    readonly,
    propagation,
    namespaces,
    uid_map,
    gid_map,
    clocks,
    mounts,
    devices,
    masked,
    protected,
    sysctls,
    hostname,
    domainname,
    create_container,
    start_container,
    pauses,
    process,
    credentials,
});
wire_enum!(NamespaceKind {
    0 => User, 1 => Pid, 2 => Network, 3 => Mount, 4 => Ipc, 5 => Uts, 6 => Cgroup, 7 => Time,
});
wire_struct!(Namespace { kind, path });
wire_struct!(IdRange { inside, outside, count });
wire_struct!(IdMaps { uids, gids, recursive });
wire_struct!(ClockOffset { clock, seconds, nanoseconds });
wire_enum!(Propagation { 0 => Private, 1 => Slave, 2 => Shared, 3 => Unbindable });
wire_struct!(BundleMount { target, kind, set, clear, set_recursive, clear_recursive, propagation });
wire_enum!(BundleMountKind {
    0 => Bind { source, recursive, ids },
    1 => Filesystem { kind, source, options, copy_up },
    2 => Cgroups,
});
wire_struct!(Device { path, kind, major, minor, mode, uid, gid });
wire_struct!(Hook { path, args, env, timeout_seconds });
wire_struct!(Credentials { uid, gid, groups, umask, capabilities, personality, apparmor });
wire_struct!(CapabilitySets { bounding, effective, permitted, inheritable, ambient });
