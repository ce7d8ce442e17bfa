//! How much is in a volume.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};

/// How deep directories are looked into: each is an open descriptor. What is
/// deeper is not counted.
const DEPTH_MAX: u32 = 256;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Returns the bytes of all files below a directory. One with several names
/// counts once. Links lead nowhere.
pub(super) fn of(path: &Path) -> io::Result<u64> {
    let top = openat(CWD, path, DIRECTORY, Mode::empty())?;
    let mut seen = BTreeSet::new();
    below(top.as_fd(), &mut seen, 0)
}

fn below(directory: BorrowedFd<'_>, seen: &mut BTreeSet<u64>, depth: u32) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        // What is gone meanwhile is not there.
        let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < DEPTH_MAX => {
                if let Ok(child) = openat(directory, name, DIRECTORY, Mode::empty()) {
                    bytes += below(child.as_fd(), seen, depth + 1)?;
                }
            }
            FileType::RegularFile if stat.st_nlink < 2 || seen.insert(stat.st_ino) => {
                bytes += u64::try_from(stat.st_size).unwrap_or_default();
            }
            _ => {}
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, outside) = (dir.path().join("volume"), dir.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("large"), [0; 4096]).unwrap();
        std::fs::write(volume.join("a/b/file"), [0; 100]).unwrap();
        std::fs::hard_link(volume.join("a/b/file"), volume.join("again")).unwrap();
        std::fs::write(volume.join("other"), [0; 20]).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        assert_eq!(of(&volume).unwrap(), 120);
    }
}
