//! Device rules of a runtime configuration: the last one that fits decides.

use serde::{Deserialize, Serialize};

use super::devices::{exit, jump, jump_if_set, jump_unless_equal, load_context, result};
use crate::sys::DeviceInstruction;

/// One rule (runtime-spec, `config-linux.md`, "Allowed Device List").
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeviceRule {
    /// Whether it lets through or refuses.
    pub allow: bool,
    /// `a` for all, `c` or `b`; none is all.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The major number; none or negative is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// The minor number; none or negative is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Of `r`, `w` and `m` (make); none is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// Kinds of devices, as `struct bpf_cgroup_dev_ctx` numbers them.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// What every container may use beside its rules: it may make any node, and
/// has the usual devices, as with runc.
const ALWAYS: [(&str, i64, i64, &str); 10] = [
    ("c", -1, -1, "m"),
    ("b", -1, -1, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, -1, "rwm"),
];

/// A rule in numbers.
struct Parsed {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

/// Returns the rules with those that always hold behind them.
pub(super) fn complete(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let always = ALWAYS.map(|(kind, major, minor, access)| DeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major: Some(major),
        minor: Some(minor),
        access: Some(access.to_owned()),
    });
    rules.iter().cloned().chain(always).collect()
}

impl DeviceRule {
    fn parse(&self) -> Result<Parsed, String> {
        let kind = match self.kind.as_deref() {
            None | Some("" | "a") => None,
            Some("b") => Some(BLOCK),
            Some("c" | "u") => Some(CHARACTER),
            Some(other) => return Err(format!("{other:?} is not a kind of devices")),
        };
        let number = |value: Option<i64>| match value.filter(|value| *value >= 0) {
            None => Ok(None),
            Some(value) => i32::try_from(value)
                .map(Some)
                .map_err(|_| format!("{value} is not a device number")),
        };
        let mut access = 0;
        for letter in
            self.access.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm").chars()
        {
            access |= match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                other => return Err(format!("{other:?} is not an access to devices")),
            };
        }
        Ok(Parsed {
            allow: self.allow,
            kind,
            major: number(self.major)?,
            minor: number(self.minor)?,
            access,
        })
    }
}

/// Returns what is written for v1, as the file and its content.
pub(super) fn v1(rules: &[DeviceRule]) -> Result<Vec<(&'static str, String)>, String> {
    rules.iter().map(v1_rule).collect()
}

fn v1_rule(rule: &DeviceRule) -> Result<(&'static str, String), String> {
    let Parsed { allow, kind, major, minor, access } = rule.parse()?;
    let file = if allow { "devices.allow" } else { "devices.deny" };
    let shown = |number: Option<i32>| number.map_or("*".to_owned(), |number| number.to_string());
    let kind = match kind {
        // The kernel takes `a` for everything, whatever stands behind it.
        None if major.is_none() && minor.is_none() && access == 7 => return Ok((file, "a".into())),
        None => return Err("a rule for all kinds of devices cannot name one".into()),
        Some(BLOCK) => 'b',
        Some(_) => 'c',
    };
    let letters: String = [('r', 2), ('w', 4), ('m', 1)]
        .iter()
        .filter(|(_, bit)| access & bit != 0)
        .map(|(letter, _)| letter)
        .collect();
    Ok((file, format!("{kind} {}:{} {letters}", shown(major), shown(minor))))
}

/// Returns the program for v2, in which the last rule comes first.
pub(super) fn v2(rules: &[DeviceRule]) -> Result<Vec<DeviceInstruction>, String> {
    let mut program = load_context();
    for rule in rules.iter().rev() {
        let Parsed { allow, kind, major, minor, access } = rule.parse()?;
        let mut checks: Vec<Box<dyn Fn(i16) -> DeviceInstruction>> = Vec::new();
        if let Some(kind) = kind {
            checks.push(Box::new(move |to| jump_unless_equal(2, kind, to)));
        }
        if let Some(major) = major {
            checks.push(Box::new(move |to| jump_unless_equal(4, major, to)));
        }
        if let Some(minor) = minor {
            checks.push(Box::new(move |to| jump_unless_equal(5, minor, to)));
        }
        if access != 7 {
            if allow {
                // Anything asked for beyond it: not this rule.
                checks.push(Box::new(move |to| jump_if_set(3, !access & 7, to)));
            } else {
                // Nothing asked for of it: neither.
                checks.push(Box::new(move |_| jump_if_set(3, access, 1)));
                checks.push(Box::new(jump));
            }
        }
        let length = checks.len();
        for (index, check) in checks.into_iter().enumerate() {
            let to = i16::try_from(length - index - 1 + 2).map_err(|_| "too many rules")?;
            program.push(check(to));
        }
        program.extend([result(i32::from(allow)), exit()]);
    }
    // As v1 before any rule.
    program.extend([result(1), exit()]);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::super::devices::run;
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule {
            allow,
            kind: Some(kind.to_owned()),
            major: Some(major),
            minor: Some(minor),
            access: Some(access.to_owned()),
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = complete(&[
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "c", 10, 229, "rw"),
            rule(true, "b", 8, -1, "rwm"),
            rule(false, "b", 8, 1, "w"),
        ]);
        let program = v2(&rules).unwrap();
        let (make, read, write) = (1, 2, 4);
        for (expected, block, access, major, minor) in [
            (true, false, read | write, 1, 3),
            (true, false, read | write, 136, 9),
            (true, false, make, 7, 7),
            (false, false, make | read, 7, 7),
            (true, false, read | write, 10, 229),
            (false, false, read, 10, 228),
            (true, true, read | write, 8, 0),
            (true, true, read, 8, 1),
            (false, true, read | write, 8, 1),
            (false, true, read, 9, 0),
            (false, true, read, 1, 3),
        ] {
            assert_eq!(
                run(&program, block, access, major, minor),
                expected,
                "{block} {access} {major}:{minor}"
            );
        }
    }

    #[test]
    fn v1_is_told_rule_by_rule() {
        let rules = [rule(false, "a", -1, -1, "rwm"), rule(true, "c", 10, -1, "rw")];
        let expected =
            [("devices.deny", "a".to_owned()), ("devices.allow", "c 10:* rw".to_owned())];
        assert_eq!(v1(&rules).unwrap(), expected);
        let bare: DeviceRule = serde_json::from_str(r#"{"allow":false}"#).unwrap();
        assert_eq!(v1(&[bare]).unwrap(), [("devices.deny", "a".to_owned())]);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            rule(true, "x", 1, 1, "r"),
            rule(true, "c", 1, 1, "q"),
            rule(true, "c", 1 << 40, 1, "r"),
        ] {
            assert!(v2(std::slice::from_ref(&wrong)).is_err(), "accepted {wrong:?}");
            assert!(v1(&[wrong]).is_err());
        }
        assert!(v1(&[rule(true, "a", 1, 1, "r")]).is_err());
    }
}
