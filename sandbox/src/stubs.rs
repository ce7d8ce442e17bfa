//! Mount points that had to be made, and taking them away again.
//!
//! A mount needs something to be mounted on. Where the root has no such file
//! or directory, the helper makes an empty one, which lands in the upper
//! directory of an overlay. Whoever turns that directory into a layer wants to
//! take these stubs away first.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat, unlinkat};

use crate::error::{Context as _, Result};

/// One mount point that was made in the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Its absolute path in the root.
    pub path: PathBuf,
    /// Whether it is a directory; otherwise it is an empty file.
    pub directory: bool,
}

/// Removes stubs from the upper directory of an overlay: empty files and empty
/// directories where nobody has put anything else.
///
/// Everything happens beneath `upper`; links are not followed.
///
/// # Errors
///
/// When a stub that is still there cannot be removed.
pub fn remove(upper: &Path, stubs: &[Stub]) -> Result<()> {
    let root =
        rustix::fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .cannot(|| format!("open {}", upper.display()))?;
    // The last one made is the innermost.
    for stub in stubs.iter().rev() {
        remove_one(&root, stub)
            .cannot(|| format!("remove the mount point {}", stub.path.display()))?;
    }
    Ok(())
}

fn remove_one(root: &OwnedFd, stub: &Stub) -> io::Result<()> {
    let path = stub.path.strip_prefix("/").unwrap_or(&stub.path);
    let Some(name) = path.file_name() else { return Ok(()) };
    let parent =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let parent = match openat2(root, parent, flags, Mode::empty(), resolve) {
        Ok(parent) => parent,
        // The command replaced the parent: what is there now is its own.
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let Ok(stat) = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let untouched =
        if stub.directory { kind.is_dir() } else { kind.is_file() && stat.st_size == 0 };
    if !untouched {
        return Ok(());
    }
    let flags = if stub.directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match unlinkat(&parent, name, flags) {
        // A directory that has got entries is no stub any more.
        Ok(()) | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn stub(path: &str, directory: bool) -> Stub {
        Stub { path: path.into(), directory }
    }

    #[test]
    fn untouched_stubs_go_and_everything_else_stays() {
        let upper = tempfile::tempdir().unwrap();
        let at = |path: &str| upper.path().join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("full/dir")).unwrap();
        fs::write(at("full/dir/file"), "x").unwrap();
        fs::write(at("hosts"), "").unwrap();
        fs::write(at("written"), "text").unwrap();
        let stubs = [
            stub("/a", true),
            stub("/a/b", true),
            stub("/full/dir", true),
            stub("/hosts", false),
            stub("/written", false),
            stub("/gone/deeper", false),
        ];
        remove(upper.path(), &stubs).unwrap();
        assert!(!at("a").exists() && !at("hosts").exists());
        assert!(at("full/dir/file").exists() && at("written").exists());
    }

    /// A command can replace a parent of a stub by a link that points outside.
    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("hosts"), "").unwrap();
        let upper = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), upper.path().join("etc")).unwrap();
        remove(upper.path(), &[stub("/etc/hosts", false)]).unwrap();
        assert!(outside.path().join("hosts").exists());
    }
}
