//! `config.json` as it is written (runtime-spec, `config.md`).
//!
//! Fields that are not known are left out: a newer specification may have
//! more. Fields that would be known but are not supported are kept, so that
//! [`super::translate`] can refuse them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use sandbox::cgroup::Resources;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A runtime configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The version of the specification.
    pub oci_version: String,
    /// The root file system.
    pub root: Option<Root>,
    /// The command.
    pub process: Option<Process>,
    /// The host name.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// What is mounted.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Programs of the engine.
    #[serde(default)]
    pub hooks: Hooks,
    /// What the engine notes.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(default)]
    pub linux: Linux,
}

/// The root file system.
#[derive(Clone, Debug, Deserialize)]
pub struct Root {
    /// The directory, from the bundle unless absolute.
    pub path: PathBuf,
    /// Whether it cannot be written.
    #[serde(default)]
    pub readonly: bool,
}

/// A process: the container's, or one that `exec` is given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether its streams are a pseudo-terminal.
    pub terminal: bool,
    /// The terminal's first size.
    pub console_size: Option<ConsoleSize>,
    /// Who it is.
    pub user: User,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// The environment.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// What it may do.
    pub capabilities: Option<Capabilities>,
    /// Its limits.
    pub rlimits: Vec<Rlimit>,
    /// Whether set-user-id bits have no effect.
    pub no_new_privileges: bool,
    /// How soon it is killed for want of memory.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile it is confined by.
    pub apparmor_profile: Option<String>,
    /// Not supported yet.
    pub selinux_label: Option<String>,
    /// Not supported yet.
    pub scheduler: Option<serde_json::Value>,
    /// Not supported yet.
    pub io_priority: Option<serde_json::Value>,
    /// Not supported yet.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<serde_json::Value>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// The user id inside.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
    /// The mask of new files.
    pub umask: Option<u32>,
    /// Other groups.
    pub additional_gids: Vec<u32>,
}

/// Capabilities by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// What can ever be had.
    pub bounding: Vec<String>,
    /// What is in force.
    pub effective: Vec<String>,
    /// What may be put in force.
    pub permitted: Vec<String>,
    /// What is kept for programs that ask for it.
    pub inheritable: Vec<String>,
    /// What is kept for all programs.
    pub ambient: Vec<String>,
}

/// A resource limit.
#[derive(Clone, Debug, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The highest value it may be raised to.
    pub hard: u64,
    /// The limit.
    pub soft: u64,
}

/// Something mounted.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where.
    pub destination: PathBuf,
    /// The type of the file system.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What.
    #[serde(default)]
    pub source: String,
    /// How.
    #[serde(default)]
    pub options: Vec<String>,
    /// The user ids of files.
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// The group ids of files.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
}

/// A range of ids.
#[derive(Clone, Debug, Deserialize)]
pub struct IdMapping {
    /// The first one inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// The first one outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Programs of the engine by the moment they are executed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// As `create_runtime`, before it.
    pub prestart: Vec<Hook>,
    /// When the namespaces are there.
    pub create_runtime: Vec<Hook>,
    /// Then, in the namespaces.
    pub create_container: Vec<Hook>,
    /// Before the command is executed, in the root.
    pub start_container: Vec<Hook>,
    /// After it was.
    pub poststart: Vec<Hook>,
    /// After the container was deleted.
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Clone, Debug, Deserialize)]
pub struct Hook {
    /// The program.
    pub path: PathBuf,
    /// Its arguments with its name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds.
    pub timeout: Option<u64>,
}

/// What only Linux has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// The user ids of a user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// The group ids of a user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters.
    pub sysctl: BTreeMap<String, String>,
    /// What it may use.
    pub resources: Option<Resources>,
    /// Where its control groups are.
    pub cgroups_path: Option<PathBuf>,
    /// Its namespaces.
    pub namespaces: Vec<Namespace>,
    /// Its device nodes.
    pub devices: Vec<Device>,
    /// The system call filter.
    pub seccomp: Option<Box<RawValue>>,
    /// How its mounts propagate.
    pub rootfs_propagation: Option<String>,
    /// Paths that are covered.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly_paths: Vec<PathBuf>,
    /// The clocks of a time namespace.
    pub time_offsets: BTreeMap<String, TimeOffset>,
    /// The execution domain.
    pub personality: Option<Personality>,
    /// Not supported yet.
    pub mount_label: Option<String>,
    /// Not supported yet.
    pub intel_rdt: Option<serde_json::Value>,
    /// Not supported yet.
    pub net_devices: BTreeMap<String, serde_json::Value>,
    /// Not supported yet.
    pub memory_policy: Option<serde_json::Value>,
}

/// A namespace.
#[derive(Clone, Debug, Deserialize)]
pub struct Namespace {
    /// `pid`, `network`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The file of one that exists.
    pub path: Option<PathBuf>,
}

/// A device node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Where.
    pub path: PathBuf,
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The major number.
    #[serde(default)]
    pub major: i64,
    /// The minor number.
    #[serde(default)]
    pub minor: i64,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// What a clock is ahead.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(default)]
#[derive(Default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

/// An execution domain.
#[derive(Clone, Debug, Deserialize)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None are defined.
    #[serde(default)]
    pub flags: Vec<String>,
}
