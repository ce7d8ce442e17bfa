//! What a sandbox is made of, as plain values.
//!
//! A [`Spec`] says everything the helper needs to know; nothing in it is an
//! open descriptor and nothing in it has been done yet. Host paths
//! (`lowers`, bind sources) are resolved in the mount namespace of the
//! caller, targets and everything that comes from an image (`cwd`, `user`,
//! the command) strictly beneath the root of the sandbox.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::dns::Resolver;

/// A sandbox to be started by [`crate::spawn`].
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The file system the process will see as `/`.
    pub root: Root,
    /// What is mounted on top of the root, beside /proc, /dev and /sys.
    ///
    /// Mounts are made in the order of the depth of their targets, and in the
    /// given order where the depth is the same.
    pub mounts: Vec<Mount>,
    /// The network the processes are in.
    pub network: Network,
    /// The host name inside, or none to keep that of the host.
    pub hostname: Option<String>,
    /// The first process.
    pub process: Process,
    /// The control group, or none for that of the caller.
    pub cgroup: Option<CgroupSpec>,
    /// Whether nothing of /proc, /sys and devices is hidden or protected.
    ///
    /// Capabilities and the system call filter are the process's own
    /// ([`Security`]).
    pub privileged: bool,
    /// Whether the sandbox is killed when the thread that started it ends.
    ///
    /// The kernel ties this to the *thread*: whoever sets it must wait on the
    /// thread that called [`crate::spawn`].
    pub die_with_parent: bool,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// A stack of directories, merged by overlayfs.
    Overlay {
        /// Read-only directories, topmost first.
        lowers: Vec<PathBuf>,
        /// The directory that takes the changes; none makes the root read-only.
        upper: Option<PathBuf>,
        /// Overlayfs' own directory, empty and on the file system of `upper`.
        work: Option<PathBuf>,
        /// Whether the root is mounted read-only although there is an upper.
        readonly: bool,
        /// Whether changes need not survive a crash of the machine.
        ///
        /// Saves every sync; the work directory cannot be used again.
        volatile: bool,
    },
    /// One plain directory, bind-mounted.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// One plain directory, entered with `chroot(2)`, without any namespace:
    /// for where none are to be had, such as a container of docker.
    ///
    /// Nothing is mounted, so `mounts` must be empty and `network` that of the
    /// host. The process sees the caller's other processes, and may not change
    /// its root again or make device nodes.
    Chroot {
        /// The directory.
        path: PathBuf,
    },
}

/// Something mounted inside the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The absolute path inside the sandbox. Created when the lookup fails.
    pub target: PathBuf,
    /// What is mounted there.
    pub kind: MountKind,
}

/// The kinds of mounts a user can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// The absolute path on the host; must exist.
        source: PathBuf,
        /// Whether it cannot be written through this mount (recursively).
        readonly: bool,
        /// Whether mounts below the source come along.
        recursive: bool,
    },
    /// A new, empty tmpfs.
    Tmpfs {
        /// The limit in bytes; none is half of the machine's memory.
        size_bytes: Option<u64>,
        /// The permission bits of its root.
        mode: u32,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// A file or directory of a stack of directories, found beneath the root
    /// of the stack as if that were `/`: no link leads out of it.
    Tree {
        /// Read-only directories, topmost first. A single one without
        /// `writable` is not copied on writing: what is written stays in it.
        lowers: Vec<PathBuf>,
        /// Overlayfs' upper and work directory, which take what is written.
        writable: Option<(PathBuf, PathBuf)>,
        /// An empty directory of the caller's, to mount the stack at where it
        /// is more than one directory.
        place: PathBuf,
        /// What is mounted: a path in the stack, `/` for all of it.
        path: PathBuf,
        /// Whether it cannot be written.
        readonly: bool,
    },
    /// A read-only file that exists only in memory.
    File {
        /// What is in it.
        content: SecretBytes,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Bytes that nobody but the sandbox may see: they are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretBytes(Vec<u8>);

impl SecretBytes {
    /// Takes the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// The network of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// The network namespace of the caller.
    Host,
    /// A network namespace of its own with only the loopback device, up.
    None,
    /// A network namespace of its own that is joined to bridges.
    Bridged {
        /// Its devices beside the loopback device. The first one with a
        /// gateway leads out.
        links: Vec<Link>,
        /// Who answers questions about names at [`crate::dns::ADDRESS`]; none
        /// leaves them to whoever the sandbox asks.
        resolver: Option<Box<Resolver>>,
    },
    /// The network namespace of a process that runs.
    Shared {
        /// Its process id.
        pid: u32,
        /// When it started, see [`crate::Running`].
        start_time: u64,
    },
}

/// A network device of a sandbox, joined to a bridge in the caller's network
/// namespace. It ends with the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name inside.
    pub name: String,
    /// The name of its other end, which nothing else there may have.
    pub host_name: String,
    /// The index of the bridge.
    pub bridge: u32,
    /// The hardware address inside.
    pub mac: [u8; 6],
    /// The address inside.
    pub address: Ipv4Addr,
    /// How many leading bits of the address are the network's.
    pub prefix: u8,
    /// The way out, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// The size of the largest packet in bytes.
    pub mtu: u32,
}

/// A process in a sandbox: the first one, or one that joins later.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// The command and its arguments. A command without `/` is searched in
    /// the `PATH` of `env`.
    pub args: Vec<String>,
    /// The environment as `NAME=value`. `HOME` is added from the passwd file
    /// when it is absent.
    pub env: Vec<String>,
    /// The working directory; created when it is missing and the process is
    /// the first of its sandbox.
    pub cwd: PathBuf,
    /// Who runs it, in the words of an image config: empty, `name`, `uid`,
    /// `name:group`, `uid:gid` …
    pub user: String,
    /// Supplementary groups beside those of the group file: names or ids.
    pub groups: Vec<String>,
    /// Whether standard input, output and error are a new pseudo-terminal.
    pub terminal: bool,
    /// The first size of the terminal, as rows and columns.
    pub terminal_size: Option<(u16, u16)>,
    /// Whether the helper stays as process 1, forwards signals and reaps.
    pub init: bool,
    /// Resource limits beside those inherited from the caller.
    pub rlimits: Vec<Rlimit>,
    /// The OOM killer's adjustment, or none to keep the caller's.
    pub oom_score_adj: Option<i32>,
    /// What the process may do.
    pub security: Security,
}

impl Default for Process {
    /// Returns a process of root in `/` without command or environment.
    fn default() -> Self {
        Self {
            args: Vec::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: String::new(),
            groups: Vec::new(),
            terminal: false,
            terminal_size: None,
            init: false,
            rlimits: Vec::new(),
            oom_score_adj: None,
            security: Security::default(),
        }
    }
}

/// What a process may do.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Security {
    /// Capabilities beside moby's default fourteen, `CAP_` optional, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities taken away, `CAP_` optional, or `ALL`.
    pub cap_drop: Vec<String>,
    /// The system call filter.
    pub seccomp: Seccomp,
    /// Whether setuid bits and file capabilities have no effect.
    pub no_new_privileges: bool,
}

/// The choice of a system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Seccomp {
    /// Moby's default profile.
    #[default]
    Default,
    /// No filter.
    Unconfined,
    /// A profile in the JSON form that docker and podman read.
    Json(String),
}

/// One resource limit (`setrlimit(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force; none is unlimited.
    pub soft: Option<u64>,
    /// The highest value the process may raise `soft` to; none is unlimited.
    pub hard: Option<u64>,
    /// Whether the start fails when the host does not allow the limit.
    ///
    /// Otherwise the limit is a default: it is lowered to what the host
    /// allows, with a warning.
    pub required: bool,
}

macro_rules! resources {
    ($($variant:ident $name:literal $number:literal $doc:literal;)*) => {
        /// What an [`Rlimit`] limits.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Resource {
            $(#[doc = $doc] $variant,)*
        }

        impl Resource {
            /// Every resource.
            pub const ALL: &[Resource] = &[$(Resource::$variant,)*];

            /// Returns the lower-case name that `--ulimit` uses.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Resource::$variant => $name,)* }
            }

            /// Returns the kernel's number, the same on x86 and arm.
            pub(crate) fn number(self) -> u32 {
                match self { $(Resource::$variant => $number,)* }
            }
        }
    };
}

resources! {
    Cpu "cpu" 0 "Processor time in seconds.";
    FileSize "fsize" 1 "Size of a file in bytes.";
    Data "data" 2 "Size of the data segment in bytes.";
    Stack "stack" 3 "Size of the stack in bytes.";
    Core "core" 4 "Size of a core file in bytes.";
    ResidentSet "rss" 5 "Resident memory in bytes; without effect.";
    Processes "nproc" 6 "Processes of the user.";
    OpenFiles "nofile" 7 "Open descriptors.";
    LockedMemory "memlock" 8 "Locked memory in bytes.";
    AddressSpace "as" 9 "Address space in bytes.";
    Locks "locks" 10 "File locks.";
    PendingSignals "sigpending" 11 "Queued signals.";
    MessageQueue "msgqueue" 12 "Bytes in POSIX message queues.";
    Nice "nice" 13 "Highest priority, as 20 minus the nice value.";
    RealtimePriority "rtprio" 14 "Highest realtime priority.";
    RealtimeTime "rttime" 15 "Realtime processor time in microseconds.";
}

/// A control group of the sandbox's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CgroupSpec {
    /// The name of its directory, beneath the caller's own control group.
    pub name: String,
    /// Where it is made instead: a path from the top of the tree, made when
    /// it is missing.
    pub parent: Option<PathBuf>,
    /// Whether memory is to be accounted for where the host can, limit or not:
    /// see [`crate::Sandboxed::memory_peak`].
    pub account_memory: bool,
    /// Whether it is to be frozen and thawed where the host can: see
    /// [`crate::cgroup::freeze`].
    pub freezer: bool,
    /// What its processes may use together.
    pub limits: Limits,
}

/// What the processes of a sandbox may use together.
///
/// A limit that the host cannot enforce is an error: all of these were asked
/// for, nothing is set by default.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Limits {
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together in bytes; negative is unlimited swap. None is
    /// twice the memory, as with docker.
    pub memory_swap_bytes: Option<i64>,
    /// Processors, as a fraction: 1.5 is one and a half.
    pub cpus: Option<f64>,
    /// The weight against other groups in docker's unit, 2 to 262144, where
    /// 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Processes and threads; zero or negative is unlimited.
    pub pids: Option<i64>,
}

impl Spec {
    /// Returns a spec that runs `args` in `root`: host network, no mounts, no
    /// control group, killed with its parent.
    #[must_use]
    pub fn new(root: Root, args: Vec<String>) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            network: Network::Host,
            hostname: None,
            process: Process { args, ..Process::default() },
            cgroup: None,
            privileged: false,
            die_with_parent: true,
        }
    }
}
