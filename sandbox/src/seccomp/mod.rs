//! The system call filter (`seccomp(2)`): which calls the kernel refuses.
//!
//! ```text
//! default.txt, or a JSON profile ── profile ──► rules ── compile ──► classic BPF
//!                                     ▲                     ▲
//!                               capabilities          syscalls.txt (numbers)
//! ```
//!
//! The default is moby's profile, kept as data in `default.txt`. A profile
//! depends on the capabilities (who may `mount` needs the call) and on the
//! architecture. The compiler makes one decision tree for each architecture
//! the kernel can run — on x86-64 also the 32-bit ones, which have numbers of
//! their own — and refuses calls newer than our table with `ENOSYS` rather
//! than `EPERM`, so that C libraries fall back to older ones.
//!
//! A known limit, which moby has too: a filter cannot look behind a pointer, so
//! a 32-bit program can still make the socket families that are refused to
//! `socket(2)` (`AF_ALG`, `AF_VSOCK`) through the old `socketcall(2)`. Refusing
//! that one would take the network from every 32-bit program of glibc.

mod compile;
#[cfg(test)]
mod interpret;
mod profile;
mod syscalls;

use crate::caps;
use crate::error::Result;
use crate::spec::Seccomp;
use crate::sys::SeccompInstruction;
use syscalls::Arch;

/// A compiled filter. Without instructions there is none.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) instructions: Vec<SeccompInstruction>,
    pub(crate) log: bool,
    pub(crate) speculation: bool,
}

/// The capabilities that the default profile asks for.
const ASKED_FOR: [&str; 14] = [
    "DAC_READ_SEARCH",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYS_NICE",
    "SYSLOG",
    "BPF",
    "PERFMON",
];

/// Returns the filter of the usual case, compiled in advance: the default
/// profile for the default capabilities, as far as the profile asks for them.
/// A start then does not pay for it.
fn precompiled(native: Arch, capabilities: u64) -> Option<Vec<SeccompInstruction>> {
    let asked = ASKED_FOR.iter().filter_map(|name| caps::bit(name)).fold(0, |set, bit| set | bit);
    if capabilities & asked != caps::bit("SYS_CHROOT")? {
        return None;
    }
    let bytes: &[u8] = match native {
        Arch::X86_64 | Arch::X86 | Arch::X32 => include_bytes!("default-x86_64.bpf"),
        Arch::Aarch64 => include_bytes!("default-aarch64.bpf"),
    };
    let (instructions, []) = bytes.as_chunks::<8>() else { return None };
    Some(instructions.iter().map(instruction).collect())
}

fn instruction(bytes: &[u8; 8]) -> SeccompInstruction {
    let [c0, c1, jump_true, jump_false, v0, v1, v2, v3] = *bytes;
    SeccompInstruction {
        code: u16::from_le_bytes([c0, c1]),
        jump_true,
        jump_false,
        value: u32::from_le_bytes([v0, v1, v2, v3]),
    }
}

/// Compiles the chosen filter for a process with these capabilities.
pub(crate) fn filter(choice: &Seccomp, capabilities: u64) -> Result<Filter> {
    let native = Arch::native();
    let profile = match choice {
        Seccomp::Unconfined => return Ok(Filter::default()),
        Seccomp::Default => {
            if let Some(instructions) = precompiled(native, capabilities) {
                return Ok(Filter { instructions, log: false, speculation: false });
            }
            profile::default(capabilities, native)
        }
        Seccomp::Json(text) => profile::parse_json(text, capabilities, native)?,
    };
    let instructions = compile::compile(&profile)?;
    Ok(Filter { instructions, log: profile.log, speculation: profile.speculation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(program: &[SeccompInstruction]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for SeccompInstruction { code, jump_true, jump_false, value } in program {
            bytes.extend_from_slice(&code.to_le_bytes());
            bytes.extend_from_slice(&[*jump_true, *jump_false]);
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// With `SANDBOX_BLESS` set it writes the files anew, for after a change
    /// of the profile, the numbers or the compiler.
    #[test]
    fn the_precompiled_filters_are_up_to_date() {
        let docker = caps::resolve(&[], &[]).unwrap();
        for (native, name) in [(Arch::X86_64, "x86_64"), (Arch::Aarch64, "aarch64")] {
            let program = compile::compile(&profile::default(docker, native)).unwrap();
            if std::env::var_os("SANDBOX_BLESS").is_some() {
                let file = format!("{}/src/seccomp/default-{name}.bpf", env!("CARGO_MANIFEST_DIR"));
                std::fs::write(file, bytes(&program)).unwrap();
            } else {
                assert!(
                    precompiled(native, docker).unwrap() == program,
                    "default-{name}.bpf is out of date"
                );
            }
        }
    }

    #[test]
    fn other_capabilities_get_another_filter() {
        let text = include_str!("default.txt");
        let asked = text
            .split([' ', '\n'])
            .filter_map(|word| word.split_once("cap=CAP_").map(|(_, name)| name));
        for name in asked {
            assert!(ASKED_FOR.contains(&name), "{name} is not among those the profile asks for");
        }
        for name in ASKED_FOR {
            let changed = caps::resolve(&[], &[]).unwrap() ^ caps::bit(name).unwrap();
            assert!(precompiled(Arch::X86_64, changed).is_none(), "{name}");
        }
        let less = caps::resolve(&[], &["CHOWN".into()]).unwrap();
        assert!(precompiled(Arch::X86_64, less).is_some());
    }
}
