//! What a runtime configuration allows a container to use
//! (runtime-spec, `config-linux.md`, "Control groups"), as it is written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rules::DeviceRule;

/// `linux.resources` of a runtime configuration; also what `update` is given.
///
/// Zero means "not set" where the kernel has no use for a zero, as engines
/// write it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Which device nodes may be used, the last rule that fits decides.
    pub devices: Vec<DeviceRule>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Processes and threads.
    pub pids: Option<Pids>,
    /// Disks.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Marks of network packets.
    pub network: Option<Network>,
    /// Remote memory access, by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of cgroup v2 as they are.
    pub unified: BTreeMap<String, String>,
}

/// Memory in bytes; -1 is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The most there is.
    pub limit: Option<i64>,
    /// What is given back first when memory is short.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// Network buffers of the kernel (v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// How readily memory is swapped, 0 to 100 (v1).
    pub swappiness: Option<u64>,
    /// Whether processes wait instead of being killed (v1).
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// The weight against other groups, where 1024 is usual.
    pub shares: Option<u64>,
    /// Microseconds in each period; negative is unlimited.
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    pub burst: Option<u64>,
    /// The period in microseconds.
    pub period: Option<u64>,
    /// Microseconds for realtime processes (v1).
    pub realtime_runtime: Option<i64>,
    /// The period of those (v1).
    pub realtime_period: Option<u64>,
    /// Which processors, as a list.
    pub cpus: Option<String>,
    /// Which memory nodes, as a list.
    pub mems: Option<String>,
    /// Whether the group runs only when nothing else does.
    pub idle: Option<i64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Pids {
    /// How many; zero or negative is unlimited.
    pub limit: i64,
}

/// Disks.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// The weight against other groups, 10 to 1000.
    pub weight: Option<u16>,
    /// The weight against groups inside (v1, old schedulers); refused.
    pub leaf_weight: Option<u16>,
    /// Weights by device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes each second.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes each second.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Operations each second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Operations each second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// A weight for one device.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightDevice {
    /// The device's major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// The weight.
    pub weight: Option<u16>,
}

/// A rate for one device.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct ThrottleDevice {
    /// The device's major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
    /// How much each second.
    pub rate: u64,
}

/// A limit on huge pages.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// The size of the pages, for instance `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Marks of network packets (v1).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Network {
    /// The class of packets.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// Priorities by network device.
    pub priorities: Vec<InterfacePriority>,
}

/// The priority of packets of one network device.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct InterfacePriority {
    /// The device.
    pub name: String,
    /// The priority.
    pub priority: u32,
}

/// Remote memory access of one device.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}
