//! From what a container is to the sandbox it runs in.

use std::fs;
use std::path::{Path, PathBuf};

use sandbox::{
    CgroupSpec, Limits, Mount, MountKind, Network, Process, Resource, Rlimit, Root, Seccomp,
    Security, Spec,
};

use super::cgroup;
use super::config::{Config, LimitsConfig, SecurityConfig};
use super::error::{Error, IoContext as _, Result};
use super::options::{
    Capability, Cpus, MountRequest, NetworkMode, SeccompChoice, SwapLimit, Ulimit,
};

/// The largest seccomp profile that is read; moby's has 20 KiB.
const MAX_PROFILE_BYTES: u64 = 4 << 20;

/// Describes the sandbox of a container in `dir`, whose root is made of
/// `lowers` (topmost first). `mounts` are those of the container's own files
/// and volumes; what the user asked for is added.
///
/// # Errors
///
/// When the source of a bind mount is missing, or a profile cannot be read.
pub fn describe(
    dir: &Path,
    config: &Config,
    lowers: Vec<PathBuf>,
    mut mounts: Vec<Mount>,
) -> Result<Spec> {
    for request in &config.mounts {
        mounts.extend(mount(request)?);
    }
    Ok(Spec {
        root: Root::Overlay {
            lowers,
            upper: Some(dir.join("upper")),
            work: Some(dir.join("work")),
            readonly: config.read_only,
            // What goes away with the container needs no syncing.
            volatile: config.remove,
        },
        mounts,
        network: match config.network {
            NetworkMode::Host => Network::Host,
            // What it is joined to is known when it starts: see `connect`.
            NetworkMode::None | NetworkMode::Container(_) | NetworkMode::Named(_) => Network::None,
        },
        hostname: Some(config.hostname.clone()),
        process: process(config)?,
        cgroup: Some(CgroupSpec {
            name: cgroup::name(&config.id),
            limits: limits(&config.limits)?,
            freezer: true,
            ..CgroupSpec::default()
        }),
        privileged: false,
        die_with_parent: true,
    })
}

/// Describes a container's first process; one that joins it later differs in
/// what runs, not in what it may do.
///
/// # Errors
///
/// When the seccomp profile cannot be read.
pub fn process(config: &Config) -> Result<Process> {
    Ok(Process {
        args: config.process.args.clone(),
        env: config.process.env.clone(),
        cwd: PathBuf::from(&config.process.cwd),
        user: config.process.user.clone(),
        groups: Vec::new(),
        terminal: config.process.terminal,
        terminal_size: None,
        init: config.process.init,
        rlimits: config.limits.ulimits.iter().map(rlimit).collect::<Result<_>>()?,
        oom_score_adj: None,
        security: security(&config.security)?,
    })
}

fn mount(request: &MountRequest) -> Result<Option<Mount>> {
    Ok(match request {
        MountRequest::Bind(bind) => {
            if !bind.source.exists() {
                if !bind.create_source {
                    return Err(Error::Invalid {
                        what: format!("the bind source {} does not exist", bind.source.display()),
                    });
                }
                fs::create_dir_all(&bind.source).doing("create", &bind.source)?;
            }
            Some(Mount {
                target: bind.target.clone(),
                kind: MountKind::Bind {
                    source: bind.source.clone(),
                    readonly: bind.readonly,
                    recursive: true,
                },
            })
        }
        MountRequest::Tmpfs(tmpfs) => Some(Mount {
            target: tmpfs.target.clone(),
            kind: MountKind::Tmpfs {
                size_bytes: tmpfs.size.map(|size| size.0),
                mode: tmpfs.mode.unwrap_or(0o1777),
                readonly: tmpfs.readonly,
            },
        }),
        // These are directories of ours: see `volume`.
        MountRequest::Volume(_) | MountRequest::Named(_) => None,
    })
}

/// Describes what a container may use up.
///
/// # Errors
///
/// When a number is larger than any machine.
pub(crate) fn limits(config: &LimitsConfig) -> Result<Limits> {
    let signed = |bytes: u64| {
        i64::try_from(bytes).map_err(|_| Error::Invalid { what: format!("{bytes} is too much") })
    };
    Ok(Limits {
        memory_bytes: config.memory.map(|memory| memory.0),
        memory_swap_bytes: match config.memory_swap {
            None => None,
            Some(SwapLimit::Unlimited) => Some(-1),
            Some(SwapLimit::Total(total)) => Some(signed(total.0)?),
        },
        cpus: config.cpus.map(Cpus::as_f64),
        cpu_shares: None,
        pids: config.pids.0.map(i64::from),
    })
}

fn rlimit(limit: &Ulimit) -> Result<Rlimit> {
    let resource = Resource::ALL.iter().copied().find(|known| known.name() == limit.resource);
    let resource = resource.ok_or_else(|| Error::Invalid {
        what: format!("the resource {} cannot be limited", limit.resource),
    })?;
    Ok(Rlimit { resource, soft: limit.soft, hard: limit.hard, required: true })
}

fn security(config: &SecurityConfig) -> Result<Security> {
    let names = |list: &[Capability]| list.iter().map(|c| c.as_str().to_owned()).collect();
    Ok(Security {
        cap_add: names(&config.cap_add),
        cap_drop: names(&config.cap_drop),
        seccomp: match &config.seccomp {
            SeccompChoice::Default => Seccomp::Default,
            SeccompChoice::Unconfined => Seccomp::Unconfined,
            SeccompChoice::File(path) => Seccomp::Json(read_profile(path)?),
        },
        no_new_privileges: config.no_new_privileges,
    })
}

fn read_profile(path: &Path) -> Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_PROFILE_BYTES).read_to_string(&mut text))
        .doing("read the seccomp profile", path)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_of_the_sandbox_can_be_limited() {
        for known in Resource::ALL {
            let name = known.name();
            let limit: Ulimit = format!("{name}=1:2").parse().unwrap();
            let rlimit = rlimit(&limit).unwrap();
            assert_eq!(
                (rlimit.resource.name(), rlimit.soft, rlimit.hard, rlimit.required),
                (name, Some(1), Some(2), true)
            );
        }
    }

    #[test]
    fn a_missing_bind_source_is_made_only_for_volumes() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("a/b");
        let asked =
            MountRequest::from_mount(&format!("type=bind,target=/x,source={}", source.display()));
        assert!(mount(&asked.unwrap()).unwrap_err().to_string().contains("does not exist"));
        let asked = MountRequest::from_volume(&format!("{}:/x", source.display())).unwrap();
        assert!(mount(&asked).unwrap().is_some());
        assert!(source.is_dir());
    }
}
