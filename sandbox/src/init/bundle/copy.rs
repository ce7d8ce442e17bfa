//! Copying a directory of the image into a tmpfs that is mounted over it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat,
};

/// As deep as a path can be.
const DEPTH_MAX: u32 = 2048;

/// Copies what is in `from` to `to`: files, directories, links and nodes, with
/// owners and modes. No link is followed.
pub(super) fn tree(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let own = rustix::fs::fstat(from)?;
    let to = openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fchmod(&to, Mode::from_raw_mode(own.st_mode & 0o7777))?;
    directory(from, &to, DEPTH_MAX)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let depth = depth.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
                mkdirat(to, name, mode)?;
                let flags = flags | OFlags::DIRECTORY;
                let copy = openat(to, name, flags, Mode::empty())?;
                own(&copy, &stat)?;
                directory(&openat(from, name, flags, Mode::empty())?, &copy, depth)?;
            }
            FileType::RegularFile => {
                let original = openat(from, name, flags, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let copy = openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                io::copy(
                    &mut std::fs::File::from(original),
                    &mut std::fs::File::from(copy.try_clone()?),
                )?;
                own(&copy, &stat)?;
            }
            FileType::Symlink => {
                symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), to, name)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // A socket has no use without who listens.
            FileType::Socket => {}
            kind => mknodat(to, name, kind, mode, stat.st_rdev)?,
        }
    }
    Ok(())
}

/// The owner first: changing it takes set-user-id bits away.
fn own(copy: &OwnedFd, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_tree_is_copied_as_it_is() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join("d")).unwrap();
        fs::write(from.path().join("d/file"), "text").unwrap();
        fs::set_permissions(from.path().join("d/file"), fs::Permissions::from_mode(0o4750))
            .unwrap();
        symlink("/etc/passwd", from.path().join("link")).unwrap();
        fs::set_permissions(from.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        let open = |path: &std::path::Path| OwnedFd::from(fs::File::open(path).unwrap());
        tree(&open(from.path()), &open(to.path())).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("d/file")).unwrap(), "text");
        let mode = |path: &str| fs::metadata(to.path().join(path)).unwrap().permissions().mode();
        assert_eq!((mode("d/file") & 0o7777, mode("") & 0o7777), (0o4750, 0o1777));
        assert_eq!(fs::read_link(to.path().join("link")).unwrap().to_str(), Some("/etc/passwd"));
    }
}
