//! Why a host does not let users have namespaces, and what helps.

use std::fs;
use std::io;

use super::refused;
use crate::error::Error;

/// What this host says about itself.
#[derive(Debug, Default)]
struct Host {
    apparmor_restricts: bool,
    namespaces_max: Option<u64>,
    debian_switch_off: bool,
    filtered: bool,
}

impl Host {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let status = read("/proc/self/status").unwrap_or_default();
        Self {
            apparmor_restricts: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
                .as_deref()
                == Some("1"),
            namespaces_max: read("/proc/sys/user/max_user_namespaces")
                .and_then(|text| text.parse().ok()),
            debian_switch_off: read("/proc/sys/kernel/unprivileged_userns_clone").as_deref()
                == Some("0"),
            filtered: status.lines().any(|line| line == "Seccomp:\t2"),
        }
    }
}

/// Explains why a user namespace, or the first use of it, was denied.
pub(super) fn denied(error: &io::Error) -> Error {
    explain(&Host::look(), error)
}

fn explain(host: &Host, error: &io::Error) -> Error {
    if host.namespaces_max == Some(0) {
        return refused(
            "they are switched off (user.max_user_namespaces is 0)",
            "as root: sysctl -w user.max_user_namespaces=15000",
        );
    }
    if host.debian_switch_off {
        return refused(
            "ordinary users must not have them (kernel.unprivileged_userns_clone is 0)",
            "as root: sysctl -w kernel.unprivileged_userns_clone=1",
        );
    }
    if host.apparmor_restricts {
        return refused(
            "AppArmor restricts them to programs with a profile (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give this program a profile with `userns,`",
        );
    }
    if host.filtered {
        return refused(
            format!("a system call filter denies them, as in a container of docker ({error})"),
            "start the outer container with --security-opt seccomp=unconfined, or build with --isolation=chroot",
        );
    }
    refused(error.to_string(), "run the program as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_remedy() {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let hint = |host: Host| match explain(&host, &error) {
            Error::Rootless { hint, .. } => hint,
            other => panic!("{other}"),
        };
        let none = Host::default;
        assert!(
            hint(Host { apparmor_restricts: true, ..none() })
                .contains("apparmor_restrict_unprivileged_userns=0")
        );
        assert!(hint(Host { namespaces_max: Some(0), ..none() }).contains("max_user_namespaces"));
        assert!(
            hint(Host { debian_switch_off: true, ..none() })
                .contains("unprivileged_userns_clone=1")
        );
        assert!(hint(Host { filtered: true, ..none() }).contains("seccomp=unconfined"));
        assert_eq!(hint(none()), "run the program as root");
    }
}
