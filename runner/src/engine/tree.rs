//! Removing directory trees that containers have written to.

use std::fs;
use std::io;
use std::path::Path;

use super::error::{IoContext as _, Result};

/// How often a tree is taken up again that fills while it is emptied: the
/// last of a container's processes may still be on its way out.
const ATTEMPTS: u32 = 5;

/// Removes a tree; one that is gone is fine. Symbolic links are removed, never
/// followed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    for attempt in 1.. {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < ATTEMPTS => {}
            removed => return removed.doing("remove", path),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_not_followed_and_nothing_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        remove(&tree).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
    }
}
