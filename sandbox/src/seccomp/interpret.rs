//! Runs a filter as the kernel would, for tests.

use super::syscalls::Arch;
use crate::sys::SeccompInstruction;

/// A call as a filter sees it.
pub(super) struct Call([u32; 16]);

impl Call {
    pub(super) fn new(arch: Arch, number: u32, arguments: &[u64]) -> Self {
        let mut words = [0; 16];
        words[0] = number;
        words[1] = arch.audit();
        for (index, argument) in arguments.iter().enumerate() {
            words[4 + index * 2] = u32::try_from(argument & 0xffff_ffff).unwrap();
            words[5 + index * 2] = u32::try_from(argument >> 32).unwrap();
        }
        Self(words)
    }
}

/// Returns what the filter returns. Panics on what the kernel would refuse.
pub(super) fn run(program: &[SeccompInstruction], call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let SeccompInstruction { code, jump_true, jump_false, value } = program[at];
        at += 1;
        let holds = match code {
            0x20 => {
                accumulator = call.0[value as usize / 4];
                continue;
            }
            0x54 => {
                accumulator &= value;
                continue;
            }
            0x05 => {
                at += value as usize;
                continue;
            }
            0x06 => return value,
            0x15 => accumulator == value,
            0x25 => accumulator > value,
            0x35 => accumulator >= value,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if holds { jump_true } else { jump_false });
    }
}
