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

mod compile;
#[cfg(test)]
mod interpret;
mod profile;
mod syscalls;

use crate::error::Result;
use crate::spec::Seccomp;
use crate::sys::SeccompInstruction;

/// A compiled filter. Without instructions there is none.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) instructions: Vec<SeccompInstruction>,
    pub(crate) log: bool,
    pub(crate) speculation: bool,
}

/// Compiles the chosen filter for a process with these capabilities.
pub(crate) fn filter(choice: &Seccomp, capabilities: u64) -> Result<Filter> {
    let native = syscalls::Arch::native();
    let profile = match choice {
        Seccomp::Unconfined => return Ok(Filter::default()),
        Seccomp::Default => profile::default(capabilities, native),
        Seccomp::Json(text) => profile::parse_json(text, capabilities, native)?,
    };
    let instructions = compile::compile(&profile)?;
    Ok(Filter { instructions, log: profile.log, speculation: profile.speculation })
}
