//! What the RUN steps of a build have in common.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use oci::Digest;
use store::Lease;

use super::agent::Started;
use super::options::RunOptions;
use crate::error::{IoContext as _, Result};

/// The host name of every build sandbox, as BuildKit has it.
pub(super) const HOSTNAME: &str = "buildkitsandbox";
const HOSTS: &str = "127.0.0.1\tlocalhost buildkitsandbox\n\
                     ::1\tlocalhost ip6-localhost ip6-loopback\n";

/// What is made once for a build, when the first RUN needs it.
#[derive(Debug, Default)]
pub(in crate::solve) struct Shared {
    common: OnceLock<Common>,
    extracted: Mutex<BTreeMap<(Digest, usize), Slot>>,
    pub(super) agents: Started,
}

/// Files that are there, or that one thread writes while others wait.
type Slot = Arc<Mutex<Option<Extracted>>>;

/// Files of a build context on disk.
#[derive(Clone, Debug)]
pub(super) struct Extracted {
    pub(super) path: PathBuf,
    /// A file that was not what its digest says when it was copied.
    pub(super) changed: Option<PathBuf>,
}

impl Shared {
    /// Returns the common files, made in the lease's scratch space on first use.
    pub(super) fn common(&self, lease: &Lease, options: &RunOptions) -> Result<&Common> {
        if let Some(common) = self.common.get() {
            return Ok(common);
        }
        let made = Common::create(lease, options)?;
        // Two at once make two, and agree on one; both go with the lease.
        Ok(self.common.get_or_init(|| made))
    }

    /// Returns the files of this digest, written by `write` on first use.
    pub(super) fn extracted(
        &self,
        key: (Digest, usize),
        write: impl FnOnce() -> Result<Extracted>,
    ) -> Result<Extracted> {
        let slot = {
            let mut known = self.extracted.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(key).or_default())
        };
        // Others that want the same wait here, those that want something else do not.
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = &*slot {
            return Ok(found.clone());
        }
        let made = write()?;
        *slot = Some(made.clone());
        Ok(made)
    }
}

/// What the names of all control groups of builds begin with.
const GROUP_PREFIX: &str = "rbuild-";

/// Whether a control group has a name of [`Common::group_of`]: anything else that begins
/// like one is somebody's own, such as a `--cgroup-parent` that another build uses.
fn is_group(name: &str) -> bool {
    let parts = name.strip_prefix(GROUP_PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(group, step)| {
        group.len() == 12
            && group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && step.parse::<usize>().is_ok()
    })
}

/// The files and directories that every RUN of a build sees.
#[derive(Debug)]
pub(super) struct Common {
    /// A directory with nothing but mount points. As the lowest of all layers it makes
    /// them exist everywhere, so that making them leaves no trace in the layer.
    pub(super) stubs: PathBuf,
    pub(super) hosts: PathBuf,
    pub(super) resolv_conf: PathBuf,
    pub(super) directory: PathBuf,
    /// What the names of this build's control groups have in common.
    group: String,
}

impl Common {
    fn create(lease: &Lease, options: &RunOptions) -> Result<Self> {
        // What a killed build has left.
        if let Err(error) = sandbox::cgroup::sweep_at(is_group, options.cgroup_parent.as_deref()) {
            tracing::debug!(%error, "old control groups are left to the next build");
        }
        let directory = lease.scratch("sandbox")?;
        let stubs = directory.join("stubs");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))
            .doing("change", &directory)?;
        fs::create_dir(&stubs).doing("create", &stubs)?;
        let usual = [
            ("", true),
            ("proc", true),
            ("dev", true),
            ("sys", true),
            ("etc/hosts", false),
            ("etc/resolv.conf", false),
        ];
        make_stubs(&stubs, &usual.map(|(path, is_directory)| (path.into(), is_directory)))?;
        let hosts = directory.join("hosts");
        fs::write(&hosts, hosts_text(&options.hosts)).doing("write", &hosts)?;
        let resolv_conf = directory.join("resolv.conf");
        // A machine without a name server is one without; the build may not need any.
        let servers = fs::read("/etc/resolv.conf").unwrap_or_default();
        fs::write(&resolv_conf, servers).doing("write", &resolv_conf)?;
        for path in [&hosts, &resolv_conf] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).doing("change", path)?;
        }
        // A lease's name is nobody else's, also across containers that share groups.
        let group = Digest::sha256(directory.as_os_str().as_encoded_bytes()).short();
        Ok(Self { stubs, hosts, resolv_conf, directory, group })
    }

    /// Returns the name of a step's control group.
    pub(super) fn group_of(&self, step: usize) -> String {
        format!("{GROUP_PREFIX}{}-{step}", self.group)
    }

    /// Returns a new directory for a step's own use.
    pub(super) fn own(&self, step: usize, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{step}-{name}"));
        fs::create_dir(&path).doing("create", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).doing("change", &path)?;
        Ok(path)
    }
}

fn hosts_text(hosts: &[(String, IpAddr)]) -> String {
    let mut text = HOSTS.to_owned();
    for (name, address) in hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// Makes empty files and directories at these paths (relative, without links) of a new
/// lowest layer.
pub(super) fn make_stubs(root: &Path, stubs: &[(PathBuf, bool)]) -> Result<()> {
    // Whatever the caller's umask is, an image sees the usual modes.
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing("change", path)
    };
    for (path, is_directory) in stubs {
        let directories = if *is_directory { Some(path.as_path()) } else { path.parent() };
        let mut current = root.to_owned();
        mode(&current, 0o755)?;
        for name in directories.into_iter().flatten() {
            current.push(name);
            match fs::create_dir(&current) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).doing("create", &current);
                }
                _ => mode(&current, 0o755)?,
            }
        }
        let full = root.join(path);
        if !is_directory && !full.exists() {
            fs::write(&full, "").doing("create", &full)?;
            mode(&full, 0o644)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_added_below_the_usual_ones() {
        let hosts = [
            ("db".to_owned(), "10.0.0.1".parse().unwrap()),
            ("db".to_owned(), "::2".parse().unwrap()),
        ];
        let text = hosts_text(&hosts);
        assert_eq!(text.strip_prefix(HOSTS).unwrap(), "10.0.0.1\tdb\n::2\tdb\n");
        assert_eq!(hosts_text(&[]), HOSTS);
    }

    #[test]
    fn only_groups_of_steps_are_taken_for_such() {
        assert!(is_group("rbuild-7ee976c0270b-2") && is_group("rbuild-000000000000-17"));
        for name in [
            "rbuild-ci",
            "rbuild-test-5834",
            "rbuild-7ee976c0270b",
            "rbuild-7ee976c0270b-",
            "rbuild-7ee976c0270b-2-3",
            "rbuild-7EE976C0270B-2",
            "rrun-7ee976c0270b-2",
        ] {
            assert!(!is_group(name), "{name}");
        }
    }
}
