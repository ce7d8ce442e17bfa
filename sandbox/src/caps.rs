//! Capabilities by name, and moby's default set.

use crate::error::{Error, Result};

/// The kernel's names in the order of their numbers, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a process has unless told otherwise: moby's fourteen
/// (`daemon/pkg/oci/caps/defaults.go`).
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All capabilities that have a name here.
pub(crate) const ALL: u64 = (1 << NAMES.len()) - 1;

/// Returns the capability a process needs to install a filter.
pub(crate) fn sys_admin() -> u64 {
    bit("SYS_ADMIN").expect("is in the table")
}

/// Returns what a process could leave a `chroot(2)` with.
pub(crate) fn leaves_chroot() -> u64 {
    ["SYS_CHROOT", "MKNOD"].iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit)
}

/// Returns whether device nodes can be made with these capabilities.
pub(crate) fn contains_mknod(set: u64) -> bool {
    set & bit("MKNOD").expect("is in the table") != 0
}

/// Returns the bit of a capability, written with or without `CAP_` in any case.
pub(crate) fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|number| 1 << number)
}

/// Returns the set that results from the default, what is added and what is
/// dropped.
///
/// `ALL` stands for every capability. As with docker, a single capability wins
/// over `ALL` of the other list, and dropping wins over adding.
///
/// # Errors
///
/// When a name is not known.
pub(crate) fn resolve(add: &[String], drop: &[String]) -> Result<u64> {
    let (add, add_all) = parse(add)?;
    let (drop, drop_all) = parse(drop)?;
    let default = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |set, bit| set | bit);
    let base = match (add_all, drop_all) {
        (_, true) => 0,
        (true, false) => ALL,
        (false, false) => default,
    };
    Ok((base | add) & !drop)
}

fn parse(names: &[String]) -> Result<(u64, bool)> {
    let (mut set, mut all) = (0, false);
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            all = true;
        } else {
            set |=
                bit(name).ok_or_else(|| Error::invalid(format!("unknown capability {name:?}")))?;
        }
    }
    Ok((set, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> u64 {
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        resolve(&strings(add), &strings(drop)).unwrap()
    }

    #[test]
    fn lists_combine_as_with_docker() {
        // The well-known value of CapEff in a docker container.
        assert_eq!(set(&[], &[]), 0xa804_25fb);
        assert_eq!(set(&["SYS_ADMIN"], &[]), 0xa804_25fb | 1 << 21);
        assert_eq!(set(&["cap_sys_admin"], &["ALL"]), 1 << 21);
        assert_eq!(set(&["ALL"], &[]), 0x1ff_ffff_ffff);
        assert_eq!(set(&["ALL"], &["CAP_MKNOD"]), 0x1ff_ffff_ffff & !(1 << 27));
        assert_eq!(set(&[], &["all"]), 0);
        assert!(!contains_mknod(set(&[], &["MKNOD"])));
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = resolve(&["CAP_EVERYTHING".into()], &[]).unwrap_err();
        insta::assert_snapshot!(error, @r#"unknown capability "CAP_EVERYTHING""#);
    }
}
