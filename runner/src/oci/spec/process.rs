//! The process of a configuration.

use sandbox::bundle::{CapabilitySets, Credentials, has_apparmor};
use sandbox::{CAPABILITIES, Resource, Rlimit, Seccomp, Security};

use super::super::error::{Error, Result};
use super::config::{Capabilities, Linux, Process};

/// The number that stands for "unlimited".
const UNLIMITED: u64 = u64::MAX;

/// The highest id: the kernel uses 2^32-1 as "no id".
const ID_MAX: u32 = u32::MAX - 1;

/// Returns a process for the sandbox, with the container's filter.
///
/// # Errors
///
/// When something makes no sense or is not supported.
pub fn process(process: &Process, linux: &Linux) -> Result<sandbox::Process> {
    refuse_unsupported(process)?;
    if process.args.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("process.args must not be empty"));
    }
    if !process.cwd.is_absolute() {
        return Err(Error::invalid(format!(
            "process.cwd must be an absolute path, and is {:?}",
            process.cwd
        )));
    }
    let seccomp = match &linux.seccomp {
        None => Seccomp::Unconfined,
        Some(profile) => Seccomp::Json(profile.get().to_owned()),
    };
    Ok(sandbox::Process {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        user: String::new(),
        groups: Vec::new(),
        terminal: process.terminal,
        terminal_size: process
            .console_size
            .map(|size| (size.height, size.width))
            .filter(|size| *size != (0, 0)),
        init: false,
        rlimits: process
            .rlimits
            .iter()
            .map(|limit| rlimit(&limit.kind, limit.soft, limit.hard))
            .collect::<Result<_>>()?,
        oom_score_adj: process.oom_score_adj,
        security: Security {
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            seccomp,
            no_new_privileges: process.no_new_privileges,
        },
    })
}

/// Returns who a process is.
///
/// # Errors
///
/// When an id is out of range, a capability unknown, or a set not a part of
/// those it has to be a part of.
pub fn credentials(process: &Process, linux: &Linux) -> Result<Credentials> {
    let user = &process.user;
    let ids = [user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied());
    if let Some(id) = ids.into_iter().find(|id| *id > ID_MAX) {
        return Err(Error::invalid(format!("process.user has the id {id}, which is none")));
    }
    let personality = match &linux.personality {
        None => None,
        Some(personality) if !personality.flags.is_empty() => {
            return Err(Error::invalid("linux.personality.flags are not supported"));
        }
        Some(personality) => Some(match personality.domain.as_str() {
            "LINUX" => 0x0000,
            "LINUX32" => 0x0008,
            other => {
                return Err(Error::invalid(format!(
                    "linux.personality.domain {other:?} is not supported"
                )));
            }
        }),
    };
    Ok(Credentials {
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: user.umask,
        capabilities: process.capabilities.as_ref().map(sets).transpose()?.unwrap_or_default(),
        personality,
        apparmor: apparmor(process.apparmor_profile.as_deref(), has_apparmor)?,
    })
}

/// Returns the AppArmor profile, which must not be ignored where there is no
/// AppArmor.
fn apparmor(profile: Option<&str>, is_there: impl Fn() -> bool) -> Result<Option<String>> {
    match profile {
        None | Some("" | "unconfined") => Ok(None),
        Some(profile) if is_there() => Ok(Some(profile.to_owned())),
        Some(profile) => Err(Error::invalid(format!(
            "process.apparmorProfile is {profile:?}, and the host has no AppArmor"
        ))),
    }
}

fn refuse_unsupported(process: &Process) -> Result<()> {
    let named = |name: &Option<String>| {
        name.as_ref().is_some_and(|name| !name.is_empty() && name != "unconfined")
    };
    for (field, asked) in [
        ("selinuxLabel", named(&process.selinux_label)),
        ("scheduler", process.scheduler.is_some()),
        ("ioPriority", process.io_priority.is_some()),
        ("execCPUAffinity", process.exec_cpu_affinity.is_some()),
    ] {
        if asked {
            return Err(Error::invalid(format!("process.{field} is not supported yet")));
        }
    }
    Ok(())
}

fn rlimit(kind: &str, soft: u64, hard: u64) -> Result<Rlimit> {
    let lower = kind.strip_prefix("RLIMIT_").unwrap_or(kind).to_ascii_lowercase();
    let resource = Resource::ALL.iter().copied().find(|resource| resource.name() == lower);
    let resource = resource
        .ok_or_else(|| Error::invalid(format!("process.rlimits has an unknown limit {kind:?}")))?;
    if soft > hard {
        return Err(Error::invalid(format!("{kind} has a soft limit above the hard one")));
    }
    let value = |number: u64| (number != UNLIMITED).then_some(number);
    Ok(Rlimit { resource, soft: value(soft), hard: value(hard), required: true })
}

fn sets(capabilities: &Capabilities) -> Result<CapabilitySets> {
    let (permitted, inheritable) = (set(&capabilities.permitted)?, set(&capabilities.inheritable)?);
    let sets = CapabilitySets {
        bounding: set(&capabilities.bounding)?,
        effective: set(&capabilities.effective)?,
        permitted,
        inheritable,
        // What is not in both of the others the kernel does not give. Configurations ask for it
        // all the same, those that `crun spec` writes among them, and other runtimes leave it out.
        ambient: set(&capabilities.ambient)? & permitted & inheritable,
    };
    let missing = sets.effective & !permitted;
    if missing != 0 {
        let first = CAPABILITIES
            .iter()
            .find(|name| CapabilitySets::bit(name).is_some_and(|bit| bit & missing != 0));
        return Err(Error::invalid(format!(
            "process.capabilities.effective has CAP_{}, which permitted has not",
            first.unwrap_or(&"?")
        )));
    }
    Ok(sets)
}

/// Returns the bits of names.
fn set(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |set, name| {
        CapabilitySets::bit(name)
            .map(|bit| set | bit)
            .ok_or_else(|| Error::invalid(format!("unknown capability {name:?}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(sandbox::Process, Credentials)> {
        let parsed: Process = super::super::parse_process(json.as_bytes())?;
        let linux = Linux::default();
        Ok((process(&parsed, &linux)?, credentials(&parsed, &linux)?))
    }

    #[test]
    fn a_process_is_taken_as_it_is() {
        let (process, credentials) = read(
            r#"{"args":["sh","-c","x"],"cwd":"/","env":["A=b"],"user":{"uid":1,"gid":2,"additionalGids":[3],"umask":18},
                "capabilities":{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL"],"effective":["CAP_KILL"]},
                "rlimits":[{"type":"RLIMIT_NOFILE","soft":10,"hard":18446744073709551615}],"consoleSize":{"height":5,"width":9}}"#,
        )
        .unwrap();
        assert_eq!(process.terminal_size, Some((5, 9)));
        let limit =
            Rlimit { resource: Resource::OpenFiles, soft: Some(10), hard: None, required: true };
        assert_eq!(process.rlimits, [limit]);
        assert_eq!((credentials.uid, credentials.gid, credentials.umask), (1, 2, Some(18)));
        assert_eq!(credentials.groups, [3]);
        assert_eq!(credentials.capabilities.bounding, 1 << 5 | 1);
        assert_eq!(credentials.capabilities.effective, 1 << 5);
    }

    /// As `crun spec` writes it.
    #[test]
    fn ambient_capabilities_that_are_not_inheritable_are_left_out() {
        let (_, credentials) = read(
            r#"{"args":["x"],"cwd":"/","capabilities":{"permitted":["CAP_KILL","CAP_CHOWN"],
                "inheritable":["CAP_CHOWN"],"ambient":["CAP_KILL","CAP_CHOWN"]}}"#,
        )
        .unwrap();
        assert_eq!(credentials.capabilities.ambient, 1);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let error = |json: &str| read(json).unwrap_err().to_string();
        insta::assert_snapshot!(error(r#"{"cwd":"/"}"#), @"process.args must not be empty");
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"x"}"#), @r#"process.cwd must be an absolute path, and is "x""#);
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"/","user":{"uid":4294967295}}"#), @"process.user has the id 4294967295, which is none");
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_X","soft":1,"hard":1}]}"#), @r#"process.rlimits has an unknown limit "RLIMIT_X""#);
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"/","capabilities":{"bounding":["CAP_NONE"]}}"#), @r#"unknown capability "CAP_NONE""#);
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"/","capabilities":{"permitted":["CAP_CHOWN"],"effective":["CAP_KILL"]}}"#), @"process.capabilities.effective has CAP_KILL, which permitted has not");
        insta::assert_snapshot!(error(r#"{"args":["x"],"cwd":"/","selinuxLabel":"x"}"#), @"process.selinuxLabel is not supported yet");
    }

    #[test]
    fn a_profile_is_taken_only_where_it_can_be_in_force() {
        let profile = |name, there| apparmor(name, || there).map_err(|error| error.to_string());
        assert_eq!(profile(Some("docker-default"), true), Ok(Some("docker-default".to_owned())));
        insta::assert_snapshot!(profile(Some("docker-default"), false).unwrap_err(), @r#"process.apparmorProfile is "docker-default", and the host has no AppArmor"#);
        for name in [None, Some(""), Some("unconfined")] {
            assert_eq!(profile(name, false), Ok(None));
        }
    }
}
