//! The numbers of system calls, from `syscalls.txt`.

use std::sync::OnceLock;

/// The architectures whose calls a filter distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86.
    X86,
    /// x86-64 with 32-bit pointers: the same audit number, marked call numbers.
    X32,
    /// 64-bit ARM.
    Aarch64,
}

/// The bit that marks the call numbers of x32.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

impl Arch {
    /// Returns what this program was built for.
    pub(crate) fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// Returns the native architecture and those the kernel can run beside it.
    pub(crate) fn family(self) -> &'static [Arch] {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 => &[Self::Aarch64],
        }
    }

    /// Returns the kernel's `AUDIT_ARCH_…` number.
    pub(crate) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Returns the name that profiles use in their conditions (Go's).
    pub(crate) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Aarch64 => "arm64",
        }
    }

    /// Returns libseccomp's name.
    pub(crate) fn scmp_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
        }
    }
}

/// A call's name and its numbers in the order of the columns.
type Row = (&'static str, [Option<u32>; 4]);

fn table() -> &'static [Row] {
    static TABLE: OnceLock<Vec<Row>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let text = include_str!("syscalls.txt");
        let mut rows = Vec::with_capacity(512);
        rows.extend(text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let mut words = line.split(' ');
            let name = words.next()?;
            Some((name, std::array::from_fn(|_| words.next().and_then(|word| word.parse().ok()))))
        }));
        rows
    })
}

/// Returns the number of a call, including the mark of x32.
pub(crate) fn number(name: &str, arch: Arch) -> Option<u32> {
    let table = table();
    let row = table.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    let number = table[row].1[arch.column()]?;
    Some(if arch == Arch::X32 { number | X32_BIT } else { number })
}

/// Returns the highest known number, including the mark of x32.
pub(crate) fn newest(arch: Arch) -> u32 {
    let newest =
        table().iter().filter_map(|(_, numbers)| numbers[arch.column()]).max().unwrap_or(0);
    if arch == Arch::X32 { newest | X32_BIT } else { newest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_the_c_library() {
        assert!(table().is_sorted_by(|left, right| left.0 < right.0));
        let native = |name| number(name, Arch::native()).map(i64::from);
        assert_eq!(native("openat2"), Some(libc::SYS_openat2));
        assert_eq!(native("read"), Some(libc::SYS_read));
        assert_eq!(native("clone3"), Some(libc::SYS_clone3));
        assert_eq!(native("execve"), Some(libc::SYS_execve));
        assert_eq!(native("mseal"), Some(libc::SYS_mseal));
        assert_eq!(native("no_such_call"), None);
        assert_eq!(number("read", Arch::X86), Some(3));
        assert_eq!(number("execve", Arch::X32), Some(X32_BIT | 520));
        assert_eq!(number("execve", Arch::Aarch64), Some(221));
        assert_eq!(number("open", Arch::Aarch64), None);
    }
}
