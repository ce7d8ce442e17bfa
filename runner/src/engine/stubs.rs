//! The bottom of every container's root: empty places for what is mounted.
//!
//! An image rarely has `/etc/hosts` or `/proc`. Making them in a container's
//! writable layer costs several new files each time, and copies `/etc` up for
//! it. A shared directory below the image's layers has them once and for all;
//! whatever an image has itself covers them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::{IoContext as _, Result};

/// Its name in the state directory.
const NAME: &str = "stubs";

const DIRECTORIES: [&str; 4] = ["dev", "etc", "proc", "sys"];

const FILES: [&str; 3] = ["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Returns the directory below all layers, made if it is not there.
///
/// # Errors
///
/// When it cannot be made.
pub(crate) fn lower(root: &Path) -> Result<PathBuf> {
    let path = root.join(NAME);
    if path.exists() {
        return Ok(path);
    }
    // Complete before it has its name: others may look for it now.
    let temporary = tempfile::Builder::new()
        .prefix(NAME)
        .tempdir_in(root)
        .doing("make a directory in", root)?;
    let tree = temporary.path().join("tree");
    fill(&tree).doing("fill", &tree)?;
    match fs::rename(&tree, &path) {
        // Somebody else was faster.
        Err(_) if path.exists() => {}
        renamed => renamed.doing("create", &path)?,
    }
    Ok(path)
}

fn fill(tree: &Path) -> io::Result<()> {
    // Set afterwards, so that the caller's umask takes nothing away.
    let open_to_all =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    fs::create_dir(tree)?;
    open_to_all(tree, 0o755)?;
    for name in DIRECTORIES {
        fs::create_dir(tree.join(name))?;
        open_to_all(&tree.join(name), 0o755)?;
    }
    for name in FILES {
        File::create_new(tree.join(name))?;
        open_to_all(&tree.join(name), 0o644)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = lower(dir.path()).unwrap();
        fs::write(first.join("etc/hosts"), "still the same").unwrap();
        assert_eq!(lower(dir.path()).unwrap(), first);
        assert_eq!(fs::read_to_string(first.join("etc/hosts")).unwrap(), "still the same");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
