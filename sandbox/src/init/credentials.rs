//! Who the process is and what it may do.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets as KernelSets, configure_capability_in_ambient_set,
};

use super::Helper;
use super::target::open_in_root;
use crate::bundle::{CapabilitySets, Credentials};
use crate::caps;
use crate::error::{Context as _, Error, Result};
use crate::spawn::Plan;
use crate::spec::Rlimit;
use crate::sys;
use crate::user::{self, FILE_BYTES_MAX, Identity};

/// Finds out who `user` is in the image.
pub(super) fn identify(root: &OwnedFd, plan: &Plan) -> Result<Identity> {
    let passwd = read_text(root, "/etc/passwd")?;
    let group = read_text(root, "/etc/group")?;
    user::resolve(&plan.process.user, &plan.process.groups, &passwd, &group)
}

/// Returns who a process is that a bundle names in numbers. Only its home is
/// looked up, and only where it is wanted; whatever is wrong with the image's
/// file, it is `/` then.
pub(super) fn identify_own(root: &OwnedFd, plan: &Plan, own: &Credentials) -> Identity {
    let named = plan.process.env.iter().any(|entry| entry.starts_with("HOME="));
    let home = if named {
        None
    } else {
        read_text(root, "/etc/passwd")
            .and_then(|passwd| user::resolve(&own.uid.to_string(), &[], &passwd, ""))
            .map(|found| found.home)
            .ok()
    };
    Identity {
        uid: own.uid,
        gid: own.gid,
        groups: own.groups.clone(),
        home: home.unwrap_or_else(|| "/".to_owned()),
    }
}

/// Reads a small text file of the image; one that is missing is empty.
///
/// It is the image's: it may be a FIFO that blocks, endless, or a link out.
fn read_text(root: &OwnedFd, path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_in_root(root, Path::new(path), flags) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        other => other.cannot(|| format!("open {path} of the container"))?,
    };
    let stat = fstat(&file).cannot(|| format!("look at {path} of the container"))?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Error::invalid(format!("{path} of the container is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .cannot(|| format!("read {path} of the container"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::invalid(format!(
            "{path} of the container is larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sets the OOM killer's adjustment, where one is asked for.
pub(super) fn adjust_oom_score(adjustment: Option<i32>) -> Result<()> {
    let Some(adjustment) = adjustment else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", adjustment.to_string())
        .cannot(|| format!("set the OOM score adjustment to {adjustment}"))
}

impl Helper {
    /// Sets resource limits: those asked for must work, defaults are lowered
    /// to what the host allows.
    pub(super) fn set_rlimits(&mut self, limits: &[Rlimit]) -> Result<()> {
        for limit in limits {
            let number = limit.resource.number();
            let wanted = [limit.soft, limit.hard];
            let what = || format!("set the limit {}", limit.resource.name());
            match sys::set_rlimit(number, wanted) {
                Err(_) if !limit.required => {
                    let [_, ceiling] = sys::get_rlimit(number).cannot(what)?;
                    let lowered = wanted.map(|value| lower(value, ceiling));
                    sys::set_rlimit(number, lowered).cannot(what)?;
                    let shown = ceiling.map_or("unlimited".to_owned(), |value| value.to_string());
                    self.warnings.push(format!(
                        "the host does not allow the default limit {}: lowered to {shown}",
                        limit.resource.name()
                    ));
                }
                other => other.cannot(what)?,
            }
        }
        Ok(())
    }
}

/// Returns the lower of two limits, where none is unlimited.
fn lower(value: Option<u64>, ceiling: Option<u64>) -> Option<u64> {
    match (value, ceiling) {
        (Some(value), Some(ceiling)) => Some(value.min(ceiling)),
        (value, ceiling) => value.or(ceiling),
    }
}

/// Becomes the user, keeping the capabilities for the moment.
pub(super) fn change_user(identity: &Identity, capabilities: u64) -> Result<()> {
    // While the set may still be changed: what the process can ever have.
    for number in 0..u64::BITS {
        let bit = 1u64 << number;
        if capabilities & bit != 0 || bit > caps::ALL {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(
            bit,
        )) {
            // A capability that is newer than the kernel.
            Err(Errno::INVAL) => {}
            other => other.cannot(|| "limit the capabilities")?,
        }
    }
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match rustix::thread::set_thread_groups(&groups) {
        // With a single mapped id the kernel refuses to drop groups at all.
        Err(Errno::PERM) if setgroups_denied() => {}
        other => other.map_err(|error| explain_id("groups", 0, error))?,
    }
    rustix::thread::set_keep_capabilities(true).cannot(|| "keep the capabilities")?;
    let gid = Gid::from_raw(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(|error| explain_id("group", identity.gid, error))?;
    let uid = Uid::from_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)
        .map_err(|error| explain_id("user", identity.uid, error))
}

fn setgroups_denied() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}

fn explain_id(kind: &str, id: u32, error: Errno) -> Error {
    let what = if error == Errno::INVAL {
        format!(
            "become {kind} {id}: it is not mapped in this user namespace (see /etc/subuid and /etc/subgid)"
        )
    } else {
        format!("become {kind} {id}")
    };
    Error::Setup { what, source: error.into() }
}

/// Gives up every capability that is not wanted, installs the filter, and
/// forbids new privileges where asked.
///
/// Installing a filter takes `CAP_SYS_ADMIN` unless new privileges are
/// forbidden, so that one capability stays until the exec. The exec computes
/// the sets anew from the bounding set, which no longer has it.
pub(super) fn drop_privileges(plan: &Plan, identity: &Identity) -> Result<()> {
    let held =
        rustix::thread::capabilities(None).cannot(|| "read the capabilities")?.permitted.bits();
    let filtered = !plan.filter.is_empty();
    let no_new_privileges = plan.process.security.no_new_privileges;
    let for_filter = if filtered && !no_new_privileges { caps::sys_admin() } else { 0 };
    let keep = |bits: u64| CapabilitySet::from_bits_retain(bits & held);
    let wanted = match &plan.own {
        Some(own) => own.credentials.capabilities,
        // A user that is not root has none after the exec, and none before it.
        None => {
            let effective = if identity.uid == 0 { plan.capabilities } else { 0 };
            CapabilitySets { effective, permitted: effective, ..CapabilitySets::default() }
        }
    };
    if let Some(domain) = plan.own.as_ref().and_then(|own| own.credentials.personality) {
        sys::set_personality(domain).cannot(|| "set the execution domain")?;
    }
    let ambient = wanted.ambient & wanted.permitted & wanted.inheritable;
    let sets = KernelSets {
        effective: keep(wanted.effective | for_filter),
        permitted: keep(wanted.permitted | wanted.effective | for_filter),
        inheritable: keep(wanted.inheritable),
    };
    // Inheritable sets that are empty unless asked for empty the ambient set
    // with them (CVE-2022-29162).
    rustix::thread::set_capabilities(None, sets).cannot(|| "drop capabilities")?;
    for bit in (0..u64::BITS).map(|number| 1u64 << number).filter(|bit| ambient & held & bit != 0) {
        configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(bit), true)
            .cannot(|| "set the ambient capabilities")?;
    }
    if no_new_privileges {
        rustix::thread::set_no_new_privs(true).cannot(|| "forbid new privileges")?;
    }
    if filtered {
        sys::install_seccomp(&plan.filter, plan.filter_log, plan.filter_speculation)
            .cannot(|| "install the system call filter")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_limit_wins_and_none_is_unlimited() {
        assert_eq!(lower(Some(5), Some(3)), Some(3));
        assert_eq!(lower(Some(2), Some(3)), Some(2));
        assert_eq!(lower(None, Some(3)), Some(3));
        assert_eq!(lower(Some(5), None), Some(5));
        assert_eq!(lower(None, None), None);
    }
}
