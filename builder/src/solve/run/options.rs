//! What a build's command line says about its RUN steps.

use std::net::IpAddr;
use std::path::PathBuf;

use sandbox::{Limits, Rlimit};

use super::agent::Agents;
use super::secret::Secrets;

/// The surroundings of every RUN of a build.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// `--secret`.
    pub secrets: Secrets,
    /// `--ssh`.
    pub agents: Agents,
    /// `--add-host`: names and their addresses, in order.
    pub hosts: Vec<(String, IpAddr)>,
    /// `--shm-size`: the size of /dev/shm.
    pub shm_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Rlimit>,
    /// `--cgroup-parent`: where the control groups of steps are made.
    pub cgroup_parent: Option<PathBuf>,
    /// `--memory` and `--cpus`: what a step may use.
    pub limits: Limits,
}

impl RunOptions {
    /// Returns what enters the keys of all RUN steps: as with BuildKit the names of hosts
    /// and not their addresses, and nothing that only makes a step slower or fail.
    #[must_use]
    pub fn key(&self) -> Vec<String> {
        let Self { secrets: _, agents: _, hosts, shm_bytes, ulimits, cgroup_parent, limits: _ } =
            self;
        let hosts = hosts.iter().map(|(name, _)| format!("host {name}"));
        let shm = shm_bytes.iter().map(|bytes| format!("shm {bytes}"));
        let ulimits = ulimits.iter().map(|limit| {
            format!("ulimit {} {:?} {:?}", limit.resource.name(), limit.soft, limit.hard)
        });
        let parent = cgroup_parent.iter().map(|path| format!("cgroup {}", path.display()));
        hosts.chain(shm).chain(ulimits).chain(parent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::run::secret::SecretSource;

    #[test]
    fn a_key_knows_what_a_step_can_see_and_no_secret() {
        let usual = RunOptions::default();
        assert_eq!(usual.key(), [""; 0]);
        let host = |address: &str| RunOptions {
            hosts: vec![("db".into(), address.parse().unwrap())],
            ..RunOptions::default()
        };
        assert_eq!(host("1.2.3.4").key(), host("::1").key(), "addresses do not count");
        assert_eq!(host("1.2.3.4").key(), ["host db"]);
        let mut secret = RunOptions::default();
        secret.secrets.insert("id", SecretSource::File("/s".into()));
        secret.limits.memory_bytes = Some(64 << 20);
        assert_eq!(secret.key(), [""; 0]);
        let shm = RunOptions { shm_bytes: Some(1), ..RunOptions::default() };
        assert_eq!(shm.key(), ["shm 1"]);
    }
}
