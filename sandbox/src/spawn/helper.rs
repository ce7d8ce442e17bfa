//! Finding the helper, and making it safe to run inside a sandbox.
//!
//! A process in a sandbox can reach the program file of another process there
//! through `/proc/<pid>/exe`, and with it overwrite the helper for the next
//! container (CVE-2019-5736). So what is executed lies on a read-only mount
//! of its own that is attached nowhere any more: nobody can name it to make it
//! writable, and it costs microseconds. Where mounts are not to be had, a
//! sealed copy in memory does the same for a millisecond.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Context as _, Error, Result};

/// The file name of the helper.
const NAME: &str = "rrun-init";

/// Returns the helper as a file that cannot be written through any of its
/// descriptors. It is made once.
pub(crate) fn open() -> Result<BorrowedFd<'static>> {
    static HELPER: OnceLock<OwnedFd> = OnceLock::new();
    if HELPER.get().is_none() {
        let file = find()?;
        let helper = match unwritable(&file) {
            Ok(helper) => helper,
            Err(_) => sealed_copy(&file).cannot(|| "copy the helper rrun-init into memory")?,
        };
        // Another thread may have been faster: then its file is used.
        HELPER.set(helper).ok();
    }
    Ok(HELPER.get().expect("it was set above").as_fd())
}

/// Opens the helper through a read-only mount that is dissolved at once: the
/// open file keeps it alive, but it is in no mount namespace, so nobody, with
/// whatever capabilities, can change its attributes.
fn unwritable(file: &File) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(file, "", flags)?;
    crate::sys::mount_setattr(mount.as_fd(), false, crate::sys::MOUNT_ATTR_RDONLY)?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens the helper: where `$RRUN_INIT` says, beside the running program, in
/// `../libexec`, or one directory up, where cargo puts it for tests.
pub(crate) fn find() -> Result<File> {
    let mut looked_at = Vec::new();
    let places = match std::env::var_os("RRUN_INIT") {
        Some(path) => vec![PathBuf::from(path)],
        // The shim is the helper itself, which was started under this name.
        None if std::env::args_os().next().is_some_and(|name| name == NAME) => {
            vec![PathBuf::from("/proc/self/exe")]
        }
        None => places(&std::env::current_exe().cannot(|| "find the running program")?),
    };
    for path in places {
        match File::open(&path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => looked_at.push(path),
            Err(source) => {
                return Err(Error::Setup {
                    what: format!("open the helper {}", path.display()),
                    source,
                });
            }
        }
    }
    Err(Error::HelperMissing { looked_at })
}

fn places(program: &Path) -> Vec<PathBuf> {
    let directory = program.parent().unwrap_or(Path::new("/"));
    let up = directory.parent().unwrap_or(Path::new("/"));
    vec![directory.join(NAME), up.join("libexec").join(NAME), up.join(NAME)]
}

fn sealed_copy(program: &File) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // `EXEC` says that it may be executed where sysctl vm.memfd_noexec is 1;
    // kernels before 6.3 do not know it.
    let copy = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
        other => other?,
    };
    let size = program.metadata()?.len();
    let mut copied = 0;
    while copied < size {
        let rest = usize::try_from(size - copied).unwrap_or(usize::MAX);
        match rustix::fs::sendfile(&copy, program, None, rest)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            sent => copied += sent as u64,
        }
    }
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn the_copy_cannot_be_changed() {
        let mut original = tempfile::tempfile().unwrap();
        original.write_all(b"program").unwrap();
        let copy =
            sealed_copy(&File::open(format!("/proc/self/fd/{}", fd(&original))).unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", fd(&copy));
        let mut text = String::new();
        File::open(&path).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "program");
        let mut writer = File::options().write(true).open(&path).unwrap();
        assert_eq!(writer.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(writer.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn privileged_the_file_on_its_mount_cannot_be_changed() {
        let mut original = tempfile::NamedTempFile::new().unwrap();
        original.write_all(b"program").unwrap();
        let file = unwritable(&File::open(original.path()).unwrap()).unwrap();
        let path = format!("/proc/self/fd/{}", fd(&file));
        assert_eq!(std::fs::read(&path).unwrap(), b"program");
        let error = File::options().write(true).open(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }

    fn fd(file: &impl std::os::fd::AsRawFd) -> i32 {
        file.as_raw_fd()
    }

    #[test]
    fn the_helper_is_looked_for_beside_the_program() {
        let places = |path: &str| {
            places(Path::new(path))
                .iter()
                .map(|path| path.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            places("/usr/bin/rrun"),
            ["/usr/bin/rrun-init", "/usr/libexec/rrun-init", "/usr/rrun-init"]
        );
    }
}
