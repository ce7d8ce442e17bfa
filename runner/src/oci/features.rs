//! What this runtime can do (runtime-spec, `features.md`).

use sandbox::CAPABILITIES;
use serde_json::{Value, json};

use super::spec::{self, NAMESPACES};

/// Words of mount options that are understood.
const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec idmap lazytime \
    loud mand noatime nodev nodiratime noexec nolazytime nomand norelatime nostrictatime nosuid \
    nosymfollow private ratime rbind rdev rdiratime relatime rexec ridmap rnoatime rnodev \
    rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro \
    rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave \
    strictatime suid symfollow sync tmpcopyup unbindable";

/// Returns the description that engines read.
pub(super) fn features() -> Value {
    let namespaces: Vec<&str> = NAMESPACES.iter().map(|(name, _)| *name).collect();
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": spec::VERSION,
        "hooks": [
            "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
        ],
        "mountOptions": MOUNT_OPTIONS.split_ascii_whitespace().collect::<Vec<_>>(),
        "linux": {
            "namespaces": namespaces,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"
                ],
                "archs": if cfg!(target_arch = "aarch64") {
                    vec!["SCMP_ARCH_AARCH64"]
                } else {
                    vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"]
                },
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                    "SECCOMP_FILTER_FLAG_TSYNC"
                ],
                "supportedFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                    "SECCOMP_FILTER_FLAG_TSYNC"
                ]
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}}
        },
        "annotations": {},
        "potentiallyUnsafeConfigAnnotations": []
    })
}
