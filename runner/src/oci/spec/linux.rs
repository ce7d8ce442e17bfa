//! The Linux part of a configuration: namespaces, ids, devices, parameters.

use std::collections::BTreeMap;
use std::path::Path;

use sandbox::bundle::{
    ClockOffset, Device as Node, IdRange, Namespace, NamespaceKind, Propagation,
};

use super::super::error::{Error, Result};
use super::config::{Device, IdMapping, Linux};

/// The kinds of namespaces by their names.
pub const NAMESPACES: [(&str, NamespaceKind); 8] = [
    ("cgroup", NamespaceKind::Cgroup),
    ("ipc", NamespaceKind::Ipc),
    ("mount", NamespaceKind::Mount),
    ("network", NamespaceKind::Network),
    ("pid", NamespaceKind::Pid),
    ("time", NamespaceKind::Time),
    ("user", NamespaceKind::User),
    ("uts", NamespaceKind::Uts),
];

/// The kernel's limit on lines of an id map.
const RANGES_MAX: usize = 340;

/// Returns the namespaces.
pub(super) fn namespaces(linux: &Linux) -> Result<Vec<Namespace>> {
    let mut namespaces: Vec<Namespace> = Vec::new();
    for wanted in &linux.namespaces {
        let kind = NAMESPACES.iter().find(|(name, _)| *name == wanted.kind).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| {
            Error::invalid(format!("linux.namespaces has an unknown type {:?}", wanted.kind))
        })?;
        if namespaces.iter().any(|namespace| namespace.kind == kind) {
            return Err(Error::invalid(format!("linux.namespaces has {} twice", wanted.kind)));
        }
        let path = wanted.path.clone().filter(|path| !path.as_os_str().is_empty());
        if path.as_deref().is_some_and(|path| !path.is_absolute()) {
            return Err(Error::invalid(format!(
                "the path of the {} namespace must be absolute",
                wanted.kind
            )));
        }
        namespaces.push(Namespace { kind, path });
    }
    if !namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Mount) {
        return Err(Error::invalid("linux.namespaces must have a mount namespace"));
    }
    Ok(namespaces)
}

/// Returns ranges of ids.
pub(super) fn ranges(mappings: &[IdMapping]) -> Result<Vec<IdRange>> {
    if mappings.len() > RANGES_MAX {
        return Err(Error::invalid(format!("the kernel takes {RANGES_MAX} ranges of ids")));
    }
    let range = |mapping: &IdMapping| {
        let IdMapping { container_id, host_id, size } = *mapping;
        let fits = |first: u32| first.checked_add(size).is_some();
        if size == 0 || !fits(container_id) || !fits(host_id) {
            return Err(Error::invalid(format!(
                "the range of ids {container_id} {host_id} {size} makes no sense"
            )));
        }
        Ok(IdRange { inside: container_id, outside: host_id, count: size })
    };
    mappings.iter().map(range).collect()
}

/// Returns the clocks of a time namespace.
pub(super) fn clocks(linux: &Linux, has_namespace: bool) -> Result<Vec<ClockOffset>> {
    if !linux.time_offsets.is_empty() && !has_namespace {
        return Err(Error::invalid("linux.timeOffsets need a new time namespace"));
    }
    linux
        .time_offsets
        .iter()
        .map(|(clock, offset)| {
            if !matches!(clock.as_str(), "monotonic" | "boottime")
                || offset.nanosecs >= 1_000_000_000
            {
                return Err(Error::invalid(format!("linux.timeOffsets.{clock} makes no sense")));
            }
            let clock = clock.clone();
            Ok(ClockOffset { clock, seconds: offset.secs, nanoseconds: offset.nanosecs })
        })
        .collect()
}

/// Returns a device node.
pub(super) fn device(device: &Device) -> Result<Node> {
    let shown = device.path.display();
    if !device.path.is_absolute() {
        return Err(Error::invalid(format!("the device {shown} needs an absolute path")));
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => 'c',
        "b" => 'b',
        "p" => 'p',
        other => return Err(Error::invalid(format!("the device {shown} is of no kind {other:?}"))),
    };
    let number = |value: i64| {
        u32::try_from(value)
            .map_err(|_| Error::invalid(format!("the device {shown} has no number {value}")))
    };
    Ok(Node {
        path: device.path.clone(),
        kind,
        major: number(device.major)?,
        minor: number(device.minor)?,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

/// Returns how the root propagates.
pub(super) fn propagation(word: Option<&str>) -> Result<Option<Propagation>> {
    Ok(match word {
        None | Some("") => None,
        Some("private" | "rprivate") => Some(Propagation::Private),
        Some("slave" | "rslave") => Some(Propagation::Slave),
        Some("shared" | "rshared") => Some(Propagation::Shared),
        Some("unbindable" | "runbindable") => Some(Propagation::Unbindable),
        Some(other) => {
            return Err(Error::invalid(format!("linux.rootfsPropagation {other:?} is not known")));
        }
    })
}

/// Returns kernel parameters, each of which must belong to a namespace of the
/// container: others would be those of the host.
pub(super) fn sysctls(
    sysctl: &BTreeMap<String, String>,
    has: impl Fn(NamespaceKind) -> bool,
) -> Result<Vec<(String, String)>> {
    for name in sysctl.keys() {
        let dotted = name.replace('/', ".");
        let kind = match dotted.as_str() {
            "kernel.domainname" => NamespaceKind::Uts,
            "kernel.hostname" => {
                return Err(Error::invalid("kernel.hostname is what hostname is for"));
            }
            "kernel.msgmax"
            | "kernel.msgmnb"
            | "kernel.msgmni"
            | "kernel.sem"
            | "kernel.shmall"
            | "kernel.shmmax"
            | "kernel.shmmni"
            | "kernel.shm_rmid_forced" => NamespaceKind::Ipc,
            other if other.starts_with("fs.mqueue.") => NamespaceKind::Ipc,
            other if other.starts_with("net.") => NamespaceKind::Network,
            _ => {
                return Err(Error::invalid(format!(
                    "the kernel parameter {name} is not of a namespace"
                )));
            }
        };
        if dotted.split('.').any(str::is_empty) || Path::new(name).is_absolute() {
            return Err(Error::invalid(format!("{name:?} is not a kernel parameter")));
        }
        if !has(kind) {
            return Err(Error::invalid(format!(
                "the kernel parameter {name} needs a namespace of the container's own ({kind:?})"
            )));
        }
    }
    Ok(sysctl.iter().map(|(name, value)| (name.replace('/', "."), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_of_own_namespaces_are_set() {
        let check = |name: &str, kinds: &[NamespaceKind]| {
            let sysctl = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
            sysctls(&sysctl, |kind| kinds.contains(&kind)).is_ok()
        };
        let all = [NamespaceKind::Ipc, NamespaceKind::Network, NamespaceKind::Uts];
        for name in
            ["net.ipv4.ip_forward", "net/ipv4/ip_forward", "kernel.shmmax", "fs.mqueue.msg_max"]
        {
            assert!(check(name, &all), "refused {name}");
            assert!(!check(name, &[]), "accepted {name} of the host");
        }
        for name in ["kernel.core_pattern", "vm.swappiness", "net..x", "kernel.hostname", "/net/x"]
        {
            assert!(!check(name, &all), "accepted {name}");
        }
    }

    #[test]
    fn ranges_that_wrap_are_refused() {
        let range =
            |container_id, host_id, size| ranges(&[IdMapping { container_id, host_id, size }]);
        assert_eq!(range(0, 1000, 5).unwrap(), [IdRange { inside: 0, outside: 1000, count: 5 }]);
        assert!(range(0, 0, 0).is_err());
        assert!(range(0, u32::MAX, 2).is_err());
    }
}
