//! The files of the controllers that say what [`Resources`] say.

use std::fmt;

use super::limits::weight;
use super::resources::{
    BlockIo, Cpu, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};

/// The period over which processor time is counted, the kernel's default.
const PERIOD_US: u64 = 100_000;

/// One file to be written. Of several names the first that exists is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) controller: String,
    pub(super) files: Vec<String>,
    pub(super) value: String,
    /// Whether a host without the file is fine: the value is the usual one.
    pub(super) optional: bool,
}

/// Collects what is to be written.
struct Writes(Vec<Write>);

impl Writes {
    fn add(&mut self, controller: &str, file: &str, value: impl fmt::Display) {
        self.0.push(Write {
            controller: controller.to_owned(),
            files: vec![file.to_owned()],
            value: value.to_string(),
            optional: false,
        });
    }

    /// Adds a number where one is given, which zero is not.
    fn number<T: Default + PartialEq + fmt::Display>(
        &mut self,
        controller: &str,
        file: &str,
        value: Option<T>,
    ) {
        if let Some(value) = value.filter(|value| *value != T::default()) {
            self.add(controller, file, value);
        }
    }

    /// Makes what was added last dispensable.
    fn optional(&mut self) {
        if let Some(last) = self.0.last_mut() {
            last.optional = true;
        }
    }

    fn or(&mut self, file: &str) {
        if let Some(last) = self.0.last_mut() {
            last.files.push(file.to_owned());
        }
    }
}

/// Returns what is to be written, in order, or what cannot be said on a host
/// with controllers of this kind.
pub(super) fn writes(
    resources: &Resources,
    is_v2: impl Fn(&str) -> bool,
) -> Result<Vec<Write>, String> {
    let mut writes = Writes(Vec::new());
    if let Some(cpu) = &resources.cpu {
        // Before processes of the group count on them.
        for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                writes.add("cpuset", file, value);
            }
        }
        if is_v2("cpu") { cpu_v2(cpu, &mut writes)? } else { cpu_v1(cpu, &mut writes) }
    }
    if let Some(memory) = &resources.memory {
        if is_v2("memory") {
            memory_v2(memory, &mut writes)?;
        } else {
            memory_v1(memory, &mut writes);
        }
    }
    if let Some(Pids { limit }) = resources.pids {
        writes.add("pids", "pids.max", if limit > 0 { limit.to_string() } else { "max".into() });
        if limit <= 0 {
            writes.optional();
        }
    }
    if let Some(block_io) = &resources.block_io {
        if is_v2("io") { io_v2(block_io, &mut writes)? } else { io_v1(block_io, &mut writes)? }
    }
    for HugepageLimit { page_size, limit } in &resources.hugepage_limits {
        if page_size.is_empty() || !page_size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("{page_size:?} is not a size of huge pages"));
        }
        let end = if is_v2("hugetlb") { "max" } else { "limit_in_bytes" };
        writes.add("hugetlb", &format!("hugetlb.{page_size}.{end}"), limit);
    }
    network(resources.network.as_ref(), &is_v2, &mut writes)?;
    for (device, Rdma { hca_handles, hca_objects }) in &resources.rdma {
        let shown = |value: Option<u32>| value.map_or("max".to_owned(), |value| value.to_string());
        let value = format!(
            "{device} hca_handle={} hca_object={}",
            shown(*hca_handles),
            shown(*hca_objects)
        );
        writes.add("rdma", "rdma.max", value);
    }
    for (file, value) in &resources.unified {
        let Some((controller, _)) = file.split_once('.').filter(|_| !file.contains('/')) else {
            return Err(format!("{file:?} is not a file of a control group"));
        };
        if controller != "cgroup" && !is_v2(controller) {
            return Err(format!("{file} is of cgroup v2, where this host has no {controller}"));
        }
        writes.add(controller, file, value);
    }
    Ok(writes.0)
}

fn memory_v1(memory: &Memory, writes: &mut Writes) {
    writes.number("memory", "memory.limit_in_bytes", memory.limit);
    writes.number("memory", "memory.memsw.limit_in_bytes", memory.swap);
    if memory.swap == Some(-1)
        || memory.swap.is_some() && memory.swap == memory.limit.map(|limit| limit * 2)
    {
        // What the kernel does anyway where it does not account for swap.
        writes.optional();
    }
    writes.number("memory", "memory.soft_limit_in_bytes", memory.reservation);
    writes.number("memory", "memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp);
    if let Some(swappiness) = memory.swappiness {
        writes.add("memory", "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer == Some(true) {
        writes.add("memory", "memory.oom_control", 1);
    }
}

fn memory_v2(memory: &Memory, writes: &mut Writes) -> Result<(), String> {
    let shown = |value: i64| if value < 0 { "max".to_owned() } else { value.to_string() };
    if memory.swappiness.is_some() || memory.disable_oom_killer == Some(true) {
        return Err("cgroup v2 has no swappiness, and cannot disable the OOM killer".into());
    }
    if memory.kernel_tcp.is_some_and(|limit| limit > 0) {
        return Err("cgroup v2 does not limit network buffers by themselves".into());
    }
    let limit = memory.limit.filter(|limit| *limit != 0);
    if let Some(limit) = limit {
        writes.add("memory", "memory.max", shown(limit));
    }
    match (memory.swap.filter(|swap| *swap != 0), limit) {
        (None, Some(-1)) | (Some(-1), _) => {
            writes.add("memory", "memory.swap.max", "max");
            writes.optional();
        }
        (None, _) => {}
        (Some(swap), Some(limit)) if limit > 0 && swap >= limit => {
            writes.add("memory", "memory.swap.max", swap - limit);
        }
        (Some(_), Some(_)) => {
            return Err("memory and swap together must not be less than memory".into());
        }
        (Some(_), None) => return Err("a limit on swap needs one on memory".into()),
    }
    if let Some(reservation) = memory.reservation.filter(|value| *value != 0) {
        writes.add("memory", "memory.low", shown(reservation));
    }
    Ok(())
}

fn cpu_v1(cpu: &Cpu, writes: &mut Writes) {
    writes.number("cpu", "cpu.shares", cpu.shares);
    writes.number("cpu", "cpu.cfs_period_us", cpu.period);
    writes.number("cpu", "cpu.cfs_quota_us", cpu.quota.map(|quota| quota.max(-1)));
    writes.number("cpu", "cpu.cfs_burst_us", cpu.burst);
    writes.number("cpu", "cpu.rt_period_us", cpu.realtime_period);
    writes.number("cpu", "cpu.rt_runtime_us", cpu.realtime_runtime);
    writes.number("cpu", "cpu.idle", cpu.idle);
}

fn cpu_v2(cpu: &Cpu, writes: &mut Writes) -> Result<(), String> {
    if cpu.realtime_period.is_some_and(|value| value > 0)
        || cpu.realtime_runtime.is_some_and(|value| value > 0)
    {
        return Err("cgroup v2 does not limit realtime processes".into());
    }
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        writes.add("cpu", "cpu.weight", weight(shares));
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let shown =
            quota.filter(|quota| *quota > 0).map_or("max".into(), |quota| quota.to_string());
        writes.add("cpu", "cpu.max", format!("{shown} {}", period.unwrap_or(PERIOD_US)));
    }
    writes.number("cpu", "cpu.max.burst", cpu.burst);
    writes.number("cpu", "cpu.idle", cpu.idle);
    Ok(())
}

fn io_v1(io: &BlockIo, writes: &mut Writes) -> Result<(), String> {
    refuse_leaf_weight(io)?;
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        writes.add("blkio", "blkio.bfq.weight", weight);
        writes.or("blkio.weight");
    }
    for WeightDevice { major, minor, weight } in &io.weight_device {
        let Some(weight) = weight else { continue };
        writes.add("blkio", "blkio.bfq.weight_device", format!("{major}:{minor} {weight}"));
        writes.or("blkio.weight_device");
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &io.throttle_write_iops_device),
    ] {
        for ThrottleDevice { major, minor, rate } in devices {
            writes.add("blkio", file, format!("{major}:{minor} {rate}"));
        }
    }
    Ok(())
}

fn io_v2(io: &BlockIo, writes: &mut Writes) -> Result<(), String> {
    refuse_leaf_weight(io)?;
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(format!("a weight of {weight} is not 10 to 1000"));
        }
        // From 10…1000 to 1…10000, as runc does.
        let other = 1 + (u32::from(weight) - 10) * 9999 / 990;
        writes.add("io", "io.weight", format!("default {other}"));
    }
    for WeightDevice { major, minor, weight } in &io.weight_device {
        let Some(weight) = weight else { continue };
        writes.add("io", "io.bfq.weight", format!("{major}:{minor} {weight}"));
    }
    for (key, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        for ThrottleDevice { major, minor, rate } in devices {
            writes.add("io", "io.max", format!("{major}:{minor} {key}={rate}"));
        }
    }
    Ok(())
}

fn refuse_leaf_weight(io: &BlockIo) -> Result<(), String> {
    match io.leaf_weight {
        None | Some(0) => Ok(()),
        Some(_) => Err("no disk scheduler of today knows leafWeight".into()),
    }
}

fn network(
    network: Option<&Network>,
    is_v2: &impl Fn(&str) -> bool,
    writes: &mut Writes,
) -> Result<(), String> {
    let Some(network) = network else { return Ok(()) };
    let asked = network.class_id.is_some_and(|id| id != 0) || !network.priorities.is_empty();
    if asked && (is_v2("net_cls") || is_v2("net_prio")) {
        return Err("cgroup v2 does not mark network packets".into());
    }
    writes.number("net_cls", "net_cls.classid", network.class_id);
    for InterfacePriority { name, priority } in &network.priorities {
        writes.add("net_prio", "net_prio.ifpriomap", format!("{name} {priority}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(json: &str, v2: bool) -> Result<Vec<String>, String> {
        let resources: Resources = serde_json::from_str(json).unwrap();
        let shown = |write: Write| format!("{}={}", write.files.join("|"), write.value);
        Ok(writes(&resources, |_| v2)?.into_iter().map(shown).collect())
    }

    const ALL: &str = r#"{
        "memory":{"limit":67108864,"swap":134217728,"reservation":1048576},
        "cpu":{"shares":2048,"quota":50000,"period":100000,"cpus":"0-1","mems":"0"},
        "pids":{"limit":32},
        "blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1000}]},
        "hugepageLimits":[{"pageSize":"2MB","limit":0}]}"#;

    #[test]
    fn v1_files() {
        assert_eq!(
            files(ALL, false).unwrap(),
            [
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "cpu.shares=2048",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=134217728",
                "memory.soft_limit_in_bytes=1048576",
                "pids.max=32",
                "blkio.bfq.weight|blkio.weight=500",
                "blkio.throttle.read_bps_device=8:0 1000",
                "hugetlb.2MB.limit_in_bytes=0",
            ]
        );
    }

    #[test]
    fn v2_files() {
        assert_eq!(
            files(ALL, true).unwrap(),
            [
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "cpu.weight=174",
                "cpu.max=50000 100000",
                "memory.max=67108864",
                "memory.swap.max=67108864",
                "memory.low=1048576",
                "pids.max=32",
                "io.weight=default 4950",
                "io.max=8:0 rbps=1000",
                "hugetlb.2MB.max=0",
            ]
        );
        assert_eq!(
            files(r#"{"unified":{"memory.high":"1000"},"memory":{"limit":-1}}"#, true).unwrap(),
            ["memory.max=max", "memory.swap.max=max", "memory.high=1000"]
        );
    }

    #[test]
    fn zeroes_of_engines_are_not_limits() {
        let zeroes = r#"{"memory":{"limit":0,"disableOOMKiller":false},"cpu":{"shares":0,"quota":0},"blockIO":{"weight":0}}"#;
        for v2 in [false, true] {
            assert_eq!(files(zeroes, v2).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn what_a_host_cannot_do_is_refused() {
        for (json, v2) in [
            (r#"{"unified":{"memory.high":"1"}}"#, false),
            (r#"{"unified":{"../memory.high":"1"}}"#, true),
            (r#"{"unified":{"high":"1"}}"#, true),
            (r#"{"memory":{"swappiness":10}}"#, true),
            (r#"{"memory":{"swap":10}}"#, true),
            (r#"{"memory":{"limit":10,"swap":5}}"#, true),
            (r#"{"cpu":{"realtimeRuntime":10}}"#, true),
            (r#"{"network":{"classID":10}}"#, true),
            (r#"{"blockIO":{"leafWeight":10}}"#, false),
            (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, false),
        ] {
            assert!(files(json, v2).is_err(), "accepted {json}");
        }
    }
}
