//! What a container uses, in the form of runc's `events`.

use sandbox::cgroup::Placed;
use serde_json::{Value, json};

/// Returns what the control groups have counted.
pub(super) fn stats(groups: &Placed) -> Value {
    let mut data = json!({
        "cpu": if groups.is_v1("cpu") { cpu_v1(groups) } else { cpu_v2(groups) },
        "memory": if groups.is_v1("memory") { memory_v1(groups) } else { memory_v2(groups) },
        "pids": pids(groups),
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    });
    if let Some(entries) = block_io(groups) {
        data["blkio"] = entries;
    }
    data
}

fn number(groups: &Placed, controller: &str, file: &str) -> Option<u64> {
    groups.read(controller, file)?.trim().parse().ok()
}

/// Reads lines of the form `name number`.
fn counts(groups: &Placed, controller: &str, file: &str) -> Vec<(String, u64)> {
    let text = groups.read(controller, file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name.to_owned(), count.trim().parse().ok()?)))
        .collect()
}

fn find(counts: &[(String, u64)], name: &str) -> u64 {
    counts.iter().find(|(key, _)| key == name).map_or(0, |(_, count)| *count)
}

fn cpu_v1(groups: &Placed) -> Value {
    let per_cpu: Vec<u64> = groups
        .read("cpuacct", "cpuacct.usage_percpu")
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|text| text.parse().ok())
        .collect();
    let stat = counts(groups, "cpu", "cpu.stat");
    json!({
        "usage": {
            "total": number(groups, "cpuacct", "cpuacct.usage").unwrap_or(0),
            "percpu": per_cpu,
            "kernel": number(groups, "cpuacct", "cpuacct.usage_sys").unwrap_or(0),
            "user": number(groups, "cpuacct", "cpuacct.usage_user").unwrap_or(0),
        },
        "throttling": {
            "periods": find(&stat, "nr_periods"),
            "throttledPeriods": find(&stat, "nr_throttled"),
            "throttledTime": find(&stat, "throttled_time"),
        },
    })
}

/// The file counts microseconds, and runc's form nanoseconds.
fn cpu_v2(groups: &Placed) -> Value {
    let stat = counts(groups, "cpu", "cpu.stat");
    json!({
        "usage": {
            "total": find(&stat, "usage_usec") * 1000,
            "kernel": find(&stat, "system_usec") * 1000,
            "user": find(&stat, "user_usec") * 1000,
        },
        "throttling": {
            "periods": find(&stat, "nr_periods"),
            "throttledPeriods": find(&stat, "nr_throttled"),
            "throttledTime": find(&stat, "throttled_usec") * 1000,
        },
    })
}

fn memory_v1(groups: &Placed) -> Value {
    let entry = |prefix: &str| {
        let read = |name: &str| number(groups, "memory", &format!("{prefix}.{name}")).unwrap_or(0);
        json!({
            "limit": read("limit_in_bytes"),
            "usage": read("usage_in_bytes"),
            "max": read("max_usage_in_bytes"),
            "failcnt": read("failcnt"),
        })
    };
    let raw = counts(groups, "memory", "memory.stat");
    json!({
        "cache": find(&raw, "cache"),
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn memory_v2(groups: &Placed) -> Value {
    let read = |file: &str| number(groups, "memory", file);
    // `max` is no number: as much as there is.
    let limit = |file: &str| read(file).unwrap_or(u64::MAX);
    let raw = counts(groups, "memory", "memory.stat");
    let events = counts(groups, "memory", "memory.events");
    json!({
        "cache": find(&raw, "file"),
        "usage": {
            "limit": limit("memory.max"),
            "usage": read("memory.current").unwrap_or(0),
            "max": read("memory.peak").unwrap_or(0),
            "failcnt": find(&events, "max"),
        },
        "swap": {
            "limit": limit("memory.swap.max"),
            "usage": read("memory.swap.current").unwrap_or(0),
            "failcnt": 0,
        },
        "raw": raw.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

fn pids(groups: &Placed) -> Value {
    json!({
        "current": number(groups, "pids", "pids.current").unwrap_or(0),
        // `max` is no number: there is no limit.
        "limit": number(groups, "pids", "pids.max").unwrap_or(0),
    })
}

/// Reads `major:minor Operation bytes` (v1) or `major:minor rbytes=… wbytes=…`.
fn block_io(groups: &Placed) -> Option<Value> {
    let v1 = groups.is_v1("blkio");
    let text = if v1 {
        groups.read("blkio", "blkio.throttle.io_service_bytes")?
    } else {
        groups.read("io", "io.stat")?
    };
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|word| word.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        let mut add = |operation: &str, value: &str| {
            if let Ok(value) = value.parse::<u64>() {
                entries.push(json!({
                    "major": major, "minor": minor, "op": operation, "value": value
                }));
            }
        };
        if v1 {
            if let (Some(operation), Some(value)) = (words.next(), words.next()) {
                add(operation, value);
            }
        } else {
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "rbytes" => add("Read", value),
                    "wbytes" => add("Write", value),
                    _ => {}
                }
            }
        }
    }
    Some(json!({"ioServiceBytesRecursive": entries}))
}
