//! From rules to a classic BPF program.
//!
//! ```text
//! load architecture ── x86-64 ──► load number ── ≥ 0x40000000 ──► tree of x32
//!                   │                          └────────────────► tree of x86-64
//!                   ├─ x86 ─────► load number ──────────────────► tree of x86
//!                   └─ other ───► kill
//! tree: binary search over ranges of numbers with the same decision; a leaf
//!       returns an action or checks arguments, rule by rule
//! ```

use std::collections::BTreeMap;

use super::profile::{Action, Comparison, Condition, Profile, Rule};
use super::syscalls::{Arch, X32_BIT, newest, number};
use crate::error::{Error, Result};
use crate::sys::SeccompInstruction;

/// The kernel's limit on the length of a filter.
const INSTRUCTIONS_MAX: usize = 4096;

// Instruction codes of classic BPF, and offsets into `struct seccomp_data`.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const ENOSYS: u16 = 38;

type Code = Vec<SeccompInstruction>;

fn step(code: u16, value: u32) -> SeccompInstruction {
    SeccompInstruction { code, jump_true: 0, jump_false: 0, value }
}

/// Compiles a profile.
///
/// # Errors
///
/// When the program is longer than the kernel accepts.
pub(crate) fn compile(profile: &Profile<'_>) -> Result<Code> {
    let (mut x86_64, mut x86, mut x32, mut aarch64) = (None, None, None, None);
    for arch in &profile.architectures {
        let code = tree(&ranges(profile, *arch));
        match arch {
            Arch::X86_64 => x86_64 = Some(code),
            Arch::X86 => x86 = Some(code),
            Arch::X32 => x32 = Some(code),
            Arch::Aarch64 => aarch64 = Some(code),
        }
    }
    let kill = || vec![step(RETURN, Action::KillProcess.value())];
    let mut program = vec![step(LOAD, ARCHITECTURE)];
    if let Some(code) = x86_64 {
        // x32 where it is not wanted is an unknown architecture.
        let code = split(JUMP_GREATER_OR_EQUAL, X32_BIT, x32.unwrap_or_else(kill), code);
        append_arch(&mut program, Arch::X86_64, code);
    }
    for (arch, code) in [(Arch::X86, x86), (Arch::Aarch64, aarch64)] {
        if let Some(code) = code {
            append_arch(&mut program, arch, code);
        }
    }
    program.extend(kill());
    if program.len() > INSTRUCTIONS_MAX {
        return Err(Error::invalid(format!(
            "the seccomp profile needs {} instructions, the kernel takes {INSTRUCTIONS_MAX}",
            program.len()
        )));
    }
    Ok(program)
}

/// Appends the tree of an architecture, skipped by calls of another one.
fn append_arch(program: &mut Code, arch: Arch, tree: Code) {
    let mut body = vec![step(LOAD, NUMBER)];
    body.extend(tree);
    program.push(SeccompInstruction {
        code: JUMP_EQUAL,
        jump_true: 1,
        jump_false: 0,
        value: arch.audit(),
    });
    program.push(step(JUMP, offset(body.len())));
    program.extend(body);
}

fn offset(length: usize) -> u32 {
    u32::try_from(length).expect("a program has at most some thousand instructions")
}

/// What is decided about one number: rules with conditions in order, then an
/// action.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision<'a> {
    checks: Vec<(&'a [Condition], Action)>,
    action: Action,
}

/// Returns the decisions by the first number of each range.
fn ranges<'a>(profile: &'a Profile<'_>, arch: Arch) -> Vec<(u32, Decision<'a>)> {
    let plain = |action| Decision { checks: Vec::new(), action };
    let beyond = match profile.default {
        Action::Errno(_) => Action::Errno(ENOSYS),
        other => other,
    };
    let mut numbers: BTreeMap<u32, Decision<'a>> = BTreeMap::new();
    for Rule { names, action, conditions } in &profile.rules {
        for name in names {
            // Names that this architecture does not have need no rule.
            let Some(number) = number(name, arch) else { continue };
            let decision = numbers.entry(number).or_insert_with(|| plain(profile.default));
            if conditions.is_empty() {
                decision.action = *action;
            } else {
                decision.checks.push((conditions, *action));
            }
        }
    }
    for decision in numbers.values_mut() {
        // Checks that only say what is said anyway.
        let action = decision.action;
        if decision.checks.iter().all(|(_, other)| *other == action) {
            decision.checks.clear();
        }
    }
    let mut ranges: Vec<(u32, Decision<'a>)> = Vec::new();
    let mut add = |start: u32, decision: Decision<'a>| {
        if ranges.last().is_none_or(|(_, last)| *last != decision) {
            ranges.push((start, decision));
        }
    };
    let mut next = 0;
    for (number, decision) in numbers {
        if number > next || next == 0 && number > 0 {
            add(next, plain(profile.default));
        }
        add(number, decision);
        next = number + 1;
    }
    let newest = newest(arch);
    if next <= newest {
        add(next, plain(profile.default));
    }
    add(newest + 1, plain(beyond));
    ranges
}

/// Emits a binary search; every path ends in a return.
fn tree(ranges: &[(u32, Decision<'_>)]) -> Code {
    match ranges {
        [] => Vec::new(),
        [(_, decision)] => leaf(decision),
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            split(JUMP_GREATER_OR_EQUAL, right[0].0, tree(right), tree(left))
        }
    }
}

/// Emits a comparison of the accumulator with two ways on.
fn split(code: u16, value: u32, when_true: Code, when_false: Code) -> Code {
    let mut program = Vec::with_capacity(when_true.len() + when_false.len() + 2);
    match u8::try_from(when_false.len()) {
        Ok(jump_true) => program.push(SeccompInstruction { code, jump_true, jump_false: 0, value }),
        // Conditional jumps reach 255 instructions, the plain jump any number.
        Err(_) => {
            program.push(SeccompInstruction { code, jump_true: 0, jump_false: 1, value });
            program.push(step(JUMP, offset(when_false.len())));
        }
    }
    program.extend(when_false);
    program.extend(when_true);
    program
}

fn leaf(decision: &Decision<'_>) -> Code {
    let mut code = Vec::new();
    for (conditions, action) in &decision.checks {
        code.extend(check(conditions, *action));
    }
    code.push(step(RETURN, decision.action.value()));
    code
}

/// Where a jump inside a check leads.
#[derive(Clone, Copy)]
enum To {
    Next,
    /// The condition holds: on with the one after it.
    Holds,
    /// It does not: on with the next rule.
    Fails,
}

/// Emits `if all conditions hold, return the action`.
fn check(conditions: &[Condition], action: Action) -> Code {
    let parts: Vec<Vec<(u16, u32, To, To)>> = conditions.iter().map(condition).collect();
    let end: usize = parts.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Code::new();
    for part in parts {
        let after = code.len() + part.len();
        for (instruction, value, when_true, when_false) in part {
            let here = code.len() + 1;
            let jump = |to| {
                let distance = match to {
                    To::Next => 0,
                    To::Holds => after - here,
                    To::Fails => end - here,
                };
                u8::try_from(distance).expect("six conditions have fewer than 255 instructions")
            };
            code.push(SeccompInstruction {
                code: instruction,
                jump_true: jump(when_true),
                jump_false: jump(when_false),
                value,
            });
        }
    }
    code.push(step(RETURN, action.value()));
    code
}

/// Emits one comparison of 64 bits as two of 32. Both architectures are
/// little-endian: the low half of an argument comes first.
fn condition(condition: &Condition) -> Vec<(u16, u32, To, To)> {
    let low_at = ARGUMENTS + u32::from(condition.argument) * 8;
    let (high, low) = halves(condition.value);
    let load = |at: u32| (LOAD, at, To::Next, To::Next);
    let (first, second): (Vec<_>, _) = match condition.comparison {
        Comparison::Equal => {
            (vec![(JUMP_EQUAL, high, To::Next, To::Fails)], (JUMP_EQUAL, low, To::Holds, To::Fails))
        }
        Comparison::NotEqual => {
            (vec![(JUMP_EQUAL, high, To::Next, To::Holds)], (JUMP_EQUAL, low, To::Fails, To::Holds))
        }
        Comparison::Greater => {
            (more(high, To::Holds, To::Fails), (JUMP_GREATER, low, To::Holds, To::Fails))
        }
        Comparison::GreaterOrEqual => {
            (more(high, To::Holds, To::Fails), (JUMP_GREATER_OR_EQUAL, low, To::Holds, To::Fails))
        }
        Comparison::Less => {
            (more(high, To::Fails, To::Holds), (JUMP_GREATER_OR_EQUAL, low, To::Fails, To::Holds))
        }
        Comparison::LessOrEqual => {
            (more(high, To::Fails, To::Holds), (JUMP_GREATER, low, To::Fails, To::Holds))
        }
        Comparison::Masked(mask) => {
            let (mask_high, mask_low) = halves(mask);
            return vec![
                load(low_at + 4),
                (AND, mask_high, To::Next, To::Next),
                (JUMP_EQUAL, high & mask_high, To::Next, To::Fails),
                load(low_at),
                (AND, mask_low, To::Next, To::Next),
                (JUMP_EQUAL, low & mask_low, To::Holds, To::Fails),
            ];
        }
    };
    let mut code = vec![load(low_at + 4)];
    code.extend(first);
    code.extend([load(low_at), second]);
    code
}

/// Emits the comparison of the high halves: decided when they differ.
fn more(high: u32, greater: To, less: To) -> Vec<(u16, u32, To, To)> {
    vec![(JUMP_GREATER, high, greater, To::Next), (JUMP_EQUAL, high, To::Next, less)]
}

#[expect(clippy::cast_possible_truncation, reason = "takes the two halves of a number")]
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::interpret::{Call, run};
    use super::super::profile::{self, parse_json};
    use super::*;
    use crate::caps;

    fn default(capabilities: u64) -> Code {
        compile(&profile::default(capabilities, Arch::X86_64)).unwrap()
    }

    fn decide(program: &Code, arch: Arch, name: &str, arguments: &[u64]) -> u32 {
        let number = number(name, arch).unwrap_or_else(|| panic!("no {name}"));
        run(program, &Call::new(arch, number, arguments))
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
    const NOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;

    #[test]
    fn the_default_profile_decides_as_mobys() {
        let docker = caps::resolve(&[], &[]).unwrap();
        let program = default(docker);
        let table: &[(&str, &[u64], u32)] = &[
            ("read", &[], ALLOW),
            ("openat2", &[], ALLOW),
            ("execve", &[], ALLOW),
            ("mount", &[], EPERM),
            ("unshare", &[], EPERM),
            ("keyctl", &[], EPERM),
            ("bpf", &[], EPERM),
            ("kexec_load", &[], EPERM),
            ("chroot", &[], ALLOW),
            ("ptrace", &[], ALLOW),
            ("clone3", &[], NOSYS),
            ("clone", &[0x11], ALLOW),
            ("clone", &[0x1000_0000 | 17], EPERM),
            ("clone", &[0x0002_0000], EPERM),
            ("socket", &[2], ALLOW),
            ("socket", &[37], ALLOW),
            ("socket", &[38], EPERM),
            ("socket", &[39], ALLOW),
            ("socket", &[40], EPERM),
            ("socket", &[41], ALLOW),
            ("personality", &[0], ALLOW),
            ("personality", &[8], ALLOW),
            ("personality", &[0x2_0000], ALLOW),
            ("personality", &[0xffff_ffff], ALLOW),
            ("personality", &[0x4_0000], EPERM),
            ("personality", &[0xffff_ffff_ffff_ffff], EPERM),
        ];
        for (name, arguments, expected) in table {
            for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
                assert_eq!(
                    decide(&program, arch, name, arguments),
                    *expected,
                    "{name} {arguments:?} on {arch:?}"
                );
            }
        }
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let call = Call::new(arch, newest(arch) + 1, &[]);
            assert_eq!(run(&program, &call), NOSYS, "a call that is newer than the table");
        }
        let foreign = Call::new(Arch::Aarch64, 63, &[]);
        assert_eq!(run(&program, &foreign), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let program = default(caps::ALL);
        for name in ["mount", "unshare", "clone3", "bpf", "settimeofday", "kcmp"] {
            assert_eq!(decide(&program, Arch::X86_64, name, &[]), ALLOW, "{name}");
        }
        assert_eq!(decide(&program, Arch::X86_64, "clone", &[0x1000_0000]), ALLOW);
        assert_eq!(decide(&program, Arch::X86_64, "kexec_load", &[]), EPERM);
    }

    #[test]
    fn the_default_program_is_short() {
        let length = default(caps::resolve(&[], &[]).unwrap()).len();
        assert!(length < 1000, "{length} instructions");
    }

    proptest! {
        /// The program agrees with the comparisons as the profile states them.
        #[test]
        fn comparisons_are_those_of_64_bit_numbers(
            value in prop_oneof![any::<u64>(), 0u64..4, (0u64..4).prop_map(|n| n << 32)],
            argument in prop_oneof![any::<u64>(), 0u64..4, (0u64..4).prop_map(|n| n << 32)],
            mask: u64,
        ) {
            let table = [
                ("EQ", argument == value), ("NE", argument != value),
                ("LT", argument < value), ("LE", argument <= value),
                ("GT", argument > value), ("GE", argument >= value),
                ("MASKED_EQ", argument & mask == value & mask),
            ];
            for (operator, holds) in table {
                let (first, second) = if operator == "MASKED_EQ" { (mask, value) } else { (value, 0) };
                let text = format!(
                    r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":2,"value":{first},"valueTwo":{second},"op":"SCMP_CMP_{operator}"}}]}}]}}"#
                );
                let program = compile(&parse_json(&text, 0, Arch::X86_64).unwrap()).unwrap();
                let decided = decide(&program, Arch::X86_64, "read", &[9, 9, argument]);
                prop_assert_eq!(decided == ALLOW, holds, "{} {:#x} {:#x} {:#x}", operator, argument, value, mask);
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold_and_any_rule_is_enough() {
        let text = r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":7,"args":[
                {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":5,"op":"SCMP_CMP_EQ"}]}]}"#;
        let program = compile(&parse_json(text, 0, Arch::X86_64).unwrap()).unwrap();
        let kill = libc::SECCOMP_RET_KILL_PROCESS;
        for (arguments, expected) in [
            ([1, 2], libc::SECCOMP_RET_ERRNO | 7),
            ([1, 3], kill),
            ([2, 2], kill),
            ([5, 2], libc::SECCOMP_RET_LOG),
        ] {
            assert_eq!(
                decide(&program, Arch::X86_64, "read", &arguments),
                expected,
                "{arguments:?}"
            );
        }
    }
}
