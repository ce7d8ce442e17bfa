//! Programs for other processors: the kernel hands them to an emulator that the host registered
//! with binfmt_misc. Nothing is needed here for that to work; this says why it does not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci::Platform;

use crate::error::Error;

/// Where the kernel lists what is registered.
const BINFMT_MISC: &str = "/proc/sys/fs/binfmt_misc";

/// An entry of binfmt_misc is a few lines.
const MAX_ENTRY_BYTES: usize = 4096;

/// Turns "this program cannot be executed" into what is missing, in a stage for `platform`.
pub(super) fn explained(error: Error, platform: &Platform) -> Error {
    let host = Platform::host();
    let is_refused = match error.root() {
        Error::Sandbox(sandbox::Error::CommandNotExecutable { source, .. }) => {
            source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error())
        }
        // An interpreter that is not kept open is looked for in the image.
        Error::Sandbox(sandbox::Error::CommandNotFound { .. }) => true,
        _ => false,
    };
    if !is_refused || platform.architecture == host.architecture {
        return error;
    }
    match missing(Path::new(BINFMT_MISC), platform) {
        None => error,
        Some(reason) => Error::NoEmulator {
            platform: platform.to_string(),
            host: host.to_string(),
            reason,
            architecture: platform.architecture.clone(),
        },
    }
}

/// Returns what keeps programs of a platform from being emulated; `None` if nothing does.
fn missing(binfmt_misc: &Path, platform: &Platform) -> Option<String> {
    let entries = match entries(binfmt_misc) {
        Ok(Some(entries)) => entries,
        Ok(None) => return Some("binfmt_misc is not mounted on this host".to_owned()),
        Err(error) => return Some(format!("binfmt_misc cannot be read: {error}")),
    };
    let header = elf_header(&platform.architecture)?;
    match entries.iter().find(|entry| entry.is_enabled && entry.matches(&header)) {
        None => Some("binfmt_misc has no interpreter for them".to_owned()),
        Some(Entry { is_kept_open: false, interpreter, .. }) => Some(format!(
            "their interpreter {} is registered without flag F, and the image does not have it",
            interpreter.display()
        )),
        Some(_) => None,
    }
}

/// One registered format.
#[derive(Debug, Default, PartialEq)]
struct Entry {
    is_enabled: bool,
    interpreter: PathBuf,
    /// Flag F: the kernel opened the interpreter when it was registered.
    is_kept_open: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Entry {
    fn parse(text: &str) -> Self {
        let mut entry = Self::default();
        for line in text.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            match name {
                "enabled" => entry.is_enabled = true,
                "interpreter" => entry.interpreter = PathBuf::from(value),
                "flags:" => entry.is_kept_open = value.contains('F'),
                "offset" => entry.offset = value.parse().unwrap_or(0),
                "magic" => entry.magic = bytes(value),
                "mask" => entry.mask = bytes(value),
                _ => {}
            }
        }
        entry
    }

    fn matches(&self, header: &[u8]) -> bool {
        let Some(start) = header.get(self.offset..) else { return false };
        !self.magic.is_empty()
            && start.len() >= self.magic.len()
            && self.magic.iter().enumerate().all(|(at, byte)| {
                let mask = self.mask.get(at).copied().unwrap_or(0xff);
                (start[at] ^ byte) & mask == 0
            })
    }
}

/// Reads hexadecimal digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2).map(std::str::from_utf8);
    digits.filter_map(|digits| u8::from_str_radix(digits.ok()?, 16).ok()).collect()
}

/// Returns what is registered, or `None` where the file system is not mounted.
fn entries(binfmt_misc: &Path) -> io::Result<Option<Vec<Entry>>> {
    if !binfmt_misc.join("status").exists() {
        return Ok(None);
    }
    let mut entries = Vec::new();
    for file in fs::read_dir(binfmt_misc)? {
        let path = file?.path();
        if path.ends_with("register") || path.ends_with("status") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        entries.push(Entry::parse(&text[..text.floor_char_boundary(MAX_ENTRY_BYTES)]));
    }
    Ok(Some(entries))
}

/// Returns the beginning of an ELF executable of a processor, where we know it.
fn elf_header(architecture: &str) -> Option<[u8; 64]> {
    let (bits, is_little, machine): (u8, bool, u16) = match architecture {
        "386" => (32, true, 3),
        "amd64" => (64, true, 62),
        "arm" => (32, true, 40),
        "arm64" => (64, true, 183),
        "loong64" => (64, true, 258),
        "mips64le" => (64, true, 8),
        "ppc64le" => (64, true, 21),
        "riscv64" => (64, true, 243),
        "s390x" => (64, false, 22),
        _ => return None,
    };
    let mut header = [0; 64];
    header[..4].copy_from_slice(b"\x7fELF");
    header[4] = bits / 32;
    header[5] = if is_little { 1 } else { 2 };
    header[6] = 1;
    let half = |value: u16| if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
    // An executable, its processor, and the version of the format.
    header[16..18].copy_from_slice(&half(2));
    header[18..20].copy_from_slice(&half(machine));
    header[if is_little { 20 } else { 23 }] = 1;
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's qemu-user-static registers it.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\n\
        flags: POCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n\
        mask ffffffffffffff00fffffffffffffffffeffffff\n";

    fn missing_with(entries: &[(&str, &str)], platform: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            fs::write(directory.path().join(name), text).unwrap();
        }
        missing(directory.path(), &platform.parse().unwrap())
    }

    #[test]
    fn what_is_missing_for_emulation_is_said() {
        let status = ("status", "enabled\n");
        let ours = ("qemu-aarch64", ARM64);
        assert_eq!(missing_with(&[status, ours], "linux/arm64"), None);
        assert_eq!(
            missing_with(&[status, ours], "linux/riscv64").unwrap(),
            "binfmt_misc has no interpreter for them"
        );
        let disabled = ARM64.replace("enabled", "disabled");
        assert_eq!(
            missing_with(&[status, ("qemu-aarch64", &disabled)], "linux/arm64").unwrap(),
            "binfmt_misc has no interpreter for them"
        );
        let not_open = ARM64.replace("POCF", "POC");
        assert_eq!(
            missing_with(&[status, ("qemu-aarch64", &not_open)], "linux/arm64").unwrap(),
            "their interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P is registered without \
             flag F, and the image does not have it"
        );
        assert_eq!(
            missing_with(&[], "linux/arm64").unwrap(),
            "binfmt_misc is not mounted on this host"
        );
    }

    #[test]
    fn garbage_in_an_entry_matches_nothing() {
        for text in ["", "enabled\nmagic zz\n", "enabled\noffset 900\nmagic 7f45\n", "enabled\n"] {
            let header = elf_header("arm64").unwrap();
            assert!(!Entry::parse(text).matches(&header), "{text:?}");
        }
    }
}
