//! Profiles: our own text form and the JSON form of docker and podman.

use serde::Deserialize;

use super::syscalls::Arch;
use crate::caps;
use crate::error::{Error, Result};

/// What the kernel does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Log,
    Errno(u16),
    Trace(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// Returns the value that a filter returns for it.
    pub(crate) fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::Trace(message) => libc::SECCOMP_RET_TRACE | u32::from(message),
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// How an argument is compared, as 64-bit numbers without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// The argument's bits under this mask are equal.
    Masked(u64),
}

/// A condition on one argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) argument: u8,
    pub(crate) comparison: Comparison,
    pub(crate) value: u64,
}

/// What happens to some calls when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule<'a> {
    pub(crate) names: Vec<&'a str>,
    pub(crate) action: Action,
    pub(crate) conditions: Vec<Condition>,
}

/// A profile for given capabilities and a given machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile<'a> {
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule<'a>>,
    pub(crate) architectures: Vec<Arch>,
    pub(crate) log: bool,
    pub(crate) speculation: bool,
}

/// Returns moby's default profile.
pub(crate) fn default(capabilities: u64, native: Arch) -> Profile<'static> {
    parse_text(include_str!("default.txt"), capabilities, native)
        .expect("a test parses default.txt")
}

fn parse_text(text: &'static str, capabilities: u64, native: Arch) -> Option<Profile<'static>> {
    let mut profile = Profile {
        default: Action::Errno(1),
        rules: Vec::with_capacity(128),
        architectures: native.family().to_vec(),
        log: false,
        speculation: false,
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (line, when) = line.split_once(" ; ").unwrap_or((line, ""));
        let (calls, comparison) = line.split_once(" : ").unwrap_or((line, ""));
        let mut words = calls.split(' ');
        let first = words.next()?;
        if first == "default" {
            profile.default = action(words.next()?)?;
            continue;
        }
        if !applies(when, capabilities, native)? {
            continue;
        }
        let conditions =
            if comparison.is_empty() { Vec::new() } else { vec![condition(comparison)?] };
        profile.rules.push(Rule { names: words.collect(), action: action(first)?, conditions });
    }
    Some(profile)
}

fn action(word: &str) -> Option<Action> {
    match word.split_once('=') {
        None => (word == "allow").then_some(Action::Allow),
        Some(("errno", number)) => number.parse().ok().map(Action::Errno),
        Some(_) => None,
    }
}

fn applies(conditions: &str, capabilities: u64, native: Arch) -> Option<bool> {
    for word in conditions.split_ascii_whitespace() {
        let (key, value) = word.split_once('=')?;
        let holds = match key {
            "cap" => capabilities & caps::bit(value)? != 0,
            "nocap" => capabilities & caps::bit(value)? == 0,
            "arch" => value.split('|').any(|name| name == native.go_name()),
            _ => return None,
        };
        if !holds {
            return Some(false);
        }
    }
    Some(true)
}

fn condition(text: &str) -> Option<Condition> {
    let mut words = text.split(' ');
    let argument = words.next()?.parse().ok()?;
    let operator = words.next()?;
    let value = words.next()?.parse().ok()?;
    let comparison = match operator {
        "==" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        masked => Comparison::Masked(masked.strip_prefix('&')?.strip_suffix("==")?.parse().ok()?),
    };
    Some(Condition { argument, comparison, value })
}

/// A profile as docker and podman read it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    default_action: &'a str,
    default_errno_ret: Option<u16>,
    #[serde(default, borrow)]
    arch_map: Vec<JsonArch<'a>>,
    #[serde(default, borrow)]
    architectures: Vec<&'a str>,
    #[serde(default, borrow)]
    flags: Vec<&'a str>,
    #[serde(default, borrow)]
    syscalls: Vec<JsonRule<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonArch<'a> {
    architecture: &'a str,
    #[serde(default, borrow)]
    sub_architectures: Option<Vec<&'a str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonRule<'a> {
    #[serde(default, borrow)]
    names: Vec<&'a str>,
    #[serde(borrow)]
    name: Option<&'a str>,
    action: &'a str,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<JsonCondition>>,
    #[serde(default, borrow)]
    includes: Option<JsonWhen<'a>>,
    #[serde(default, borrow)]
    excludes: Option<JsonWhen<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonCondition {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize)]
struct JsonWhen<'a> {
    #[serde(default, borrow)]
    arches: Option<Vec<&'a str>>,
    #[serde(default, borrow)]
    caps: Option<Vec<&'a str>>,
}

impl JsonWhen<'_> {
    fn has_arch(&self, native: Arch) -> bool {
        self.arches.iter().flatten().any(|name| *name == native.go_name())
    }

    fn names_arch(&self) -> bool {
        self.arches.as_ref().is_some_and(|list| !list.is_empty())
    }
}

/// Parses the JSON form.
pub(crate) fn parse_json(text: &str, capabilities: u64, native: Arch) -> Result<Profile<'_>> {
    let json: Json<'_> = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the seccomp profile cannot be read: {error}")))?;
    let holds = |cap: &&str| caps::bit(cap).is_some_and(|bit| capabilities & bit != 0);
    let mut rules = Vec::new();
    for rule in json.syscalls {
        // As moby: every included capability must be there, no excluded one may be.
        let included = rule.includes.as_ref().is_none_or(|when| {
            (!when.names_arch() || when.has_arch(native)) && when.caps.iter().flatten().all(&holds)
        });
        let excluded = rule
            .excludes
            .as_ref()
            .is_some_and(|when| when.has_arch(native) || when.caps.iter().flatten().any(&holds));
        if !included || excluded {
            continue;
        }
        let conditions =
            rule.args.unwrap_or_default().iter().map(json_condition).collect::<Result<_>>()?;
        let mut names = rule.names;
        names.extend(rule.name);
        rules.push(Rule { names, action: json_action(rule.action, rule.errno_ret)?, conditions });
    }
    let listed: Vec<&str> = json
        .arch_map
        .iter()
        .filter(|entry| entry.architecture == native.scmp_name())
        .flat_map(|entry| entry.sub_architectures.iter().flatten().copied())
        .chain(json.architectures)
        .collect();
    // A profile that lists nothing is for every architecture of the machine.
    let architectures = native
        .family()
        .iter()
        .copied()
        .filter(|arch| *arch == native || listed.is_empty() || listed.contains(&arch.scmp_name()))
        .collect();
    if let Some(flag) = json.flags.iter().find(|flag| !FLAGS.contains(flag)) {
        return Err(Error::invalid(format!(
            "the seccomp profile has a flag {flag:?} that is not supported"
        )));
    }
    Ok(Profile {
        default: json_action(json.default_action, json.default_errno_ret)?,
        rules,
        architectures,
        log: json.flags.contains(&"SECCOMP_FILTER_FLAG_LOG"),
        speculation: json.flags.contains(&"SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
    })
}

/// The flags of a profile. `TSYNC` is about other threads, of which there are
/// none when the filter is installed.
const FLAGS: [&str; 3] =
    ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"];

fn json_action(name: &str, number: Option<u16>) -> Result<Action> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_ERRNO" => Action::Errno(number.unwrap_or(1)),
        "SCMP_ACT_TRACE" => Action::Trace(number.unwrap_or(1)),
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => {
            return Err(Error::invalid(format!(
                "the seccomp profile has an action {other:?} that is not supported"
            )));
        }
    })
}

fn json_condition(json: &JsonCondition) -> Result<Condition> {
    let (comparison, value) = match json.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, json.value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, json.value),
        "SCMP_CMP_LT" => (Comparison::Less, json.value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, json.value),
        "SCMP_CMP_GT" => (Comparison::Greater, json.value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, json.value),
        // Here the first value is the mask and the second what is compared.
        "SCMP_CMP_MASKED_EQ" => (Comparison::Masked(json.value), json.value_two),
        other => {
            return Err(Error::invalid(format!(
                "the seccomp profile has an unknown comparison {other:?}"
            )));
        }
    };
    if json.index > 5 {
        return Err(Error::invalid(format!(
            "the seccomp profile compares argument {}, calls have six",
            json.index
        )));
    }
    Ok(Condition { argument: json.index, comparison, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_parses_for_every_machine() {
        for native in [Arch::X86_64, Arch::Aarch64] {
            for capabilities in [0, caps::ALL] {
                let profile =
                    parse_text(include_str!("default.txt"), capabilities, native).unwrap();
                assert!(profile.rules.len() > 40, "{} rules", profile.rules.len());
            }
        }
    }

    #[test]
    fn conditions_of_a_json_profile_are_applied() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[
              {"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":[],"includes":{},"excludes":{}},
              {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}],"excludes":{"caps":["CAP_SYS_ADMIN"]}},
              {"names":["cacheflush"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["arm64"]}}]}"#;
        let names = |capabilities| -> Vec<String> {
            let profile = parse_json(text, capabilities, Arch::X86_64).unwrap();
            profile
                .rules
                .iter()
                .flat_map(|rule| rule.names.iter().map(ToString::to_string))
                .collect()
        };
        assert_eq!(names(0), ["read", "write", "clone"]);
        assert_eq!(names(caps::ALL), ["read", "write", "mount"]);
        let profile = parse_json(text, 0, Arch::X86_64).unwrap();
        assert_eq!(profile.architectures, [Arch::X86_64, Arch::X86]);
        assert_eq!(profile.rules[1].conditions[0].comparison, Comparison::Masked(2_114_060_288));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let error = |text| parse_json(text, 0, Arch::X86_64).unwrap_err().to_string();
        insta::assert_snapshot!(error("{"), @"the seccomp profile cannot be read: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(error(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_NEW"]}"#), @r#"the seccomp profile has a flag "SECCOMP_FILTER_FLAG_NEW" that is not supported"#);
        insta::assert_snapshot!(error(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#), @r#"the seccomp profile has an action "SCMP_ACT_NOTIFY" that is not supported"#);
    }
}
