//! A RUN as a sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox::{CgroupSpec, Mount, MountKind, Network, Process, Root, Seccomp, Security, Spec};

use super::Place;
use super::common::{Common, HOSTNAME};
use super::mounts::Mounts;
use crate::dockerfile::{RunNetwork, RunSecurity};
use crate::error::{IoContext as _, Result};
use crate::plan::Run;

/// Describes the sandbox of a RUN.
pub(super) fn spec(run: &Run, place: &Place<'_>, common: &Common, found: &Mounts) -> Result<Spec> {
    let options = place.options;
    let mut lowers = place.lowers.clone();
    lowers.extend(found.stubs.clone());
    lowers.push(common.stubs.clone());
    let root = Root::Overlay {
        lowers,
        upper: Some(place.upper.clone()),
        work: Some(place.work.clone()),
        readonly: false,
        volatile: true,
    };
    let mut mounts = vec![
        read_only(&common.hosts, "/etc/hosts"),
        read_only(&common.resolv_conf, "/etc/resolv.conf"),
    ];
    if let Some((name, content)) = &run.script {
        let path = common.directory.join(format!("{}-script", place.step));
        fs::write(&path, content).doing("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).doing("change", &path)?;
        mounts.push(read_only(&path, &format!("/dev/pipes/{name}")));
    }
    if let Some(size) = options.shm_bytes {
        let kind = MountKind::Tmpfs { size_bytes: Some(size), mode: 0o1777, readonly: false };
        mounts.push(Mount { target: PathBuf::from("/dev/shm"), kind });
    }
    mounts.extend(found.mounts.iter().cloned());
    let is_insecure = run.security == RunSecurity::Insecure;
    let env = run.env.iter().chain(&run.hidden_env).chain(&found.env).cloned().collect();
    Ok(Spec {
        mounts,
        network: match run.network {
            RunNetwork::Default | RunNetwork::Host => Network::Host,
            RunNetwork::None => Network::None,
        },
        hostname: Some(HOSTNAME.to_owned()),
        process: Process {
            env,
            cwd: PathBuf::from(&run.cwd),
            user: run.user.clone(),
            args: run.args.clone(),
            rlimits: options.ulimits.clone(),
            security: if is_insecure { insecure() } else { Security::default() },
            ..Process::default()
        },
        cgroup: Some(CgroupSpec {
            name: common.group_of(place.step),
            parent: options.cgroup_parent.clone(),
            account_memory: true,
            freezer: false,
            limits: options.limits,
        }),
        privileged: is_insecure,
        ..Spec::new(root, Vec::new())
    })
}

/// Everything that root may do.
fn insecure() -> Security {
    Security {
        cap_add: vec!["ALL".to_owned()],
        seccomp: Seccomp::Unconfined,
        ..Security::default()
    }
}

fn read_only(source: &Path, target: &str) -> Mount {
    let kind = MountKind::Bind { source: source.to_owned(), readonly: true, recursive: false };
    Mount { target: PathBuf::from(target), kind }
}
