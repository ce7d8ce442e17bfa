//! Which device nodes may be used.
//!
//! A container may make device nodes (`CAP_MKNOD` is in the default set), so
//! something has to keep it from reading the host's disk through one: the
//! devices controller of v1, or on v2 a BPF program. The list is moby's.

use crate::sys::DeviceInstruction;

/// Character devices that may be used: major and, where not any, minor.
const ALLOWED: [(i32, Option<i32>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pseudo-terminals
];

/// Returns what is written to `devices.allow` after everything was denied.
pub(super) fn v1_rules() -> Vec<String> {
    let devices = ALLOWED.iter().map(|(major, minor)| {
        let minor = minor.map_or("*".to_owned(), |minor| minor.to_string());
        format!("c {major}:{minor} rwm")
    });
    // Any node may be made; using it is what is guarded.
    ["c *:* m".to_owned(), "b *:* m".to_owned()].into_iter().chain(devices).collect()
}

/// Returns the program for v2. It finds `struct bpf_cgroup_dev_ctx` in r1:
/// type and access in one word, major, minor; and returns 1 to allow.
pub(super) fn v2_program() -> Vec<DeviceInstruction> {
    const CHARACTER: i32 = 2;
    const MAKE: i32 = 1;
    let mut program = load_context();
    // Making a node and nothing else: allowed.
    program.extend([jump_unless_equal(3, MAKE, 2), result(1), exit()]);
    // Of the rest only character devices.
    program.extend([jump_if_equal(2, CHARACTER, 2), result(0), exit()]);
    for (major, minor) in ALLOWED {
        match minor {
            Some(minor) => program.extend([
                jump_unless_equal(4, major, 3),
                jump_unless_equal(5, minor, 2),
                result(1),
                exit(),
            ]),
            None => program.extend([jump_unless_equal(4, major, 2), result(1), exit()]),
        }
    }
    program.extend([result(0), exit()]);
    program
}

/// Loads r2 (type), r3 (access), r4 (major) and r5 (minor).
pub(super) fn load_context() -> Vec<DeviceInstruction> {
    vec![load(2, 0), alu_and(2, 0xffff), load(3, 0), alu_shift_right(3, 16), load(4, 4), load(5, 8)]
}

fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> DeviceInstruction {
    DeviceInstruction { code, registers, offset, value }
}

/// `rN = *(u32 *)(r1 + offset)`
fn load(register: u8, offset: i16) -> DeviceInstruction {
    instruction(0x61, register | 1 << 4, offset, 0)
}

fn alu_and(register: u8, value: i32) -> DeviceInstruction {
    instruction(0x54, register, 0, value)
}

fn alu_shift_right(register: u8, value: i32) -> DeviceInstruction {
    instruction(0x74, register, 0, value)
}

fn jump_if_equal(register: u8, value: i32, distance: i16) -> DeviceInstruction {
    instruction(0x15, register, distance, value)
}

pub(super) fn jump_unless_equal(register: u8, value: i32, distance: i16) -> DeviceInstruction {
    instruction(0x55, register, distance, value)
}

/// Jumps if any of the bits is set.
pub(super) fn jump_if_set(register: u8, bits: i32, distance: i16) -> DeviceInstruction {
    instruction(0x45, register, distance, bits)
}

pub(super) fn jump(distance: i16) -> DeviceInstruction {
    instruction(0x05, 0, distance, 0)
}

pub(super) fn result(value: i32) -> DeviceInstruction {
    instruction(0xb7, 0, 0, value)
}

pub(super) fn exit() -> DeviceInstruction {
    instruction(0x95, 0, 0, 0)
}

/// Runs a program as the kernel would.
#[cfg(test)]
pub(super) fn run(
    program: &[DeviceInstruction],
    block: bool,
    access: i32,
    major: i32,
    minor: i32,
) -> bool {
    let context = [(i32::from(!block) + 1) | (access << 16), major, minor];
    let (mut at, mut registers) = (0usize, [0i32; 6]);
    loop {
        let DeviceInstruction { code, registers: which, offset, value } = program[at];
        let register = usize::from(which & 15);
        at += 1;
        let jump = match code {
            0x61 => {
                registers[register] = context[usize::try_from(offset).unwrap() / 4];
                false
            }
            0x54 => {
                registers[register] &= value;
                false
            }
            0x74 => {
                registers[register] >>= value;
                false
            }
            0xb7 => {
                registers[0] = value;
                false
            }
            0x05 => true,
            0x45 => registers[register] & value != 0,
            0x15 => registers[register] == value,
            0x55 => registers[register] != value,
            0x95 => return registers[0] == 1,
            other => panic!("unknown instruction {other:#x}"),
        };
        if jump {
            at += usize::try_from(offset).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(block: bool, access: i32, major: i32, minor: i32) -> bool {
        run(&v2_program(), block, access, major, minor)
    }

    #[test]
    fn the_program_decides_as_the_rules_say() {
        let (make, read, write) = (1, 2, 4);
        for (major, minor) in [(1, 3), (1, 5), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            assert!(allowed(false, read | write | make, major, minor), "c {major}:{minor}");
            assert!(!allowed(true, read, major, minor), "b {major}:{minor}");
        }
        assert!(
            allowed(true, make, 8, 0) && allowed(false, make, 1, 1),
            "making a node is allowed"
        );
        for (block, access, major, minor) in [
            (true, read, 8, 0),
            (true, make | write, 8, 0),
            (false, read, 1, 1),
            (false, read, 10, 200),
            (false, write, 5, 3),
        ] {
            assert!(!allowed(block, access, major, minor), "{block} {access} {major}:{minor}");
        }
    }

    #[test]
    fn v1_rules_begin_with_making_nodes() {
        let rules = v1_rules();
        assert_eq!(rules[..3], ["c *:* m", "b *:* m", "c 1:3 rwm"]);
        assert_eq!(rules.last().unwrap(), "c 136:* rwm");
    }
}
