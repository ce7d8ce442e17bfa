//! Removing directory trees that containers have written to.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{IoContext as _, Result};

/// How often a tree is taken up again that fills while it is emptied: the
/// last of a container's processes may still be on its way out.
const ATTEMPTS: u32 = 5;

/// How deep a tree is descended into. What is deeper is moved up first, so
/// that a container cannot nest directories until nobody has the descriptors,
/// the stack or the path length to remove them. Even with the longest names
/// this many fit into a path.
const DEPTH_MAX: u32 = 8;

/// Removes a tree; one that is gone is fine. Symbolic links are removed, never
/// followed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    for attempt in 1.. {
        let mut removal = Removal { top: path, moved: 0, queue: vec![path.to_owned()] };
        match removal.run() {
            Err(error)
                if error.kind() == io::ErrorKind::DirectoryNotEmpty && attempt < ATTEMPTS => {}
            removed => return removed.doing("remove", path),
        }
    }
    Ok(())
}

/// A tree that is being removed.
struct Removal<'a> {
    top: &'a Path,
    /// How many names of directories that were moved up are taken.
    moved: u32,
    /// What is still to be removed; the top is the first.
    queue: Vec<PathBuf>,
}

impl Removal<'_> {
    fn run(&mut self) -> io::Result<()> {
        while let Some(path) = self.queue.pop() {
            let is_top = self.queue.is_empty();
            ignore_missing(self.empty(&path, DEPTH_MAX))?;
            if is_top && !self.queue.is_empty() {
                // What was moved up is in it, and goes first.
                self.queue.insert(0, path);
                continue;
            }
            ignore_missing(fs::remove_dir(&path))?;
        }
        Ok(())
    }

    /// Removes what is in a directory.
    fn empty(&mut self, path: &Path, depth: u32) -> io::Result<()> {
        // Collected first, so that what is moved up meanwhile is not met here.
        let entries: Vec<DirEntry> = fs::read_dir(path)?.collect::<io::Result<_>>()?;
        for entry in entries {
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                ignore_missing(fs::remove_file(&path))?;
            } else if depth == 0 {
                self.move_up(&path)?;
            } else {
                ignore_missing(self.empty(&path, depth - 1))?;
                ignore_missing(fs::remove_dir(&path))?;
            }
        }
        Ok(())
    }

    /// Moves a directory to the top of the tree and into the queue.
    fn move_up(&mut self, path: &Path) -> io::Result<()> {
        loop {
            let place = self.top.join(format!(".removed-{}", self.moved));
            self.moved += 1;
            match fs::rename(path, &place) {
                // A removal that was cut short has left one of that name.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::DirectoryNotEmpty
                            | io::ErrorKind::AlreadyExists
                            | io::ErrorKind::NotADirectory
                    ) => {}
                moved => {
                    ignore_missing(moved)?;
                    self.queue.push(place);
                    return Ok(());
                }
            }
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rustix::process::{Resource, Rlimit};

    #[test]
    fn links_are_not_followed_and_nothing_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join(".removed-0")).unwrap();
        remove(&tree).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
    }

    /// Makes `levels` directories in one another, deeper than paths reach.
    fn nest(path: &Path, levels: u32, name: &str) {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = openat(rustix::fs::CWD, path, flags, Mode::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&current, name, Mode::from_raw_mode(0o755)).unwrap();
            current = openat(&current, name, flags, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn no_tree_is_too_deep() {
        // As many descriptors as a process usually has.
        let usual = rustix::process::getrlimit(Resource::Nofile);
        let usual = Rlimit { current: Some(1024), ..usual };
        rustix::process::setrlimit(Resource::Nofile, usual).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        // What a removal that was cut short has left.
        fs::create_dir_all(tree.join(".removed-0/a/b/c/d/e/f/g/h/i/j/k")).unwrap();
        nest(&tree, 1_200, "d");
        fs::create_dir(tree.join("long")).unwrap();
        nest(&tree.join("long"), 40, &"n".repeat(255));
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
