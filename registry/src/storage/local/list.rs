//! Sorted listings of directories.

use std::collections::BTreeMap;

use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::Result;
use super::files::Root;

/// Returns up to `limit` keys below `prefix` after `after`, in byte order.
pub(super) fn list(
    root: &Root,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    walk(root, prefix, "", after.unwrap_or(""), limit, &mut keys)?;
    Ok(keys)
}

/// Appends the keys below the directory `prefix` + `below`.
///
/// A directory sorts as its name with the slash, because that is how all keys
/// in it begin; so one pass over each directory yields the order of whole keys.
fn walk(
    root: &Root,
    prefix: &str,
    below: &str,
    after: &str,
    limit: usize,
    keys: &mut Vec<String>,
) -> Result<()> {
    if keys.len() >= limit {
        return Ok(());
    }
    for (key, is_dir) in entries(root, prefix, below, after)? {
        if keys.len() >= limit {
            break;
        }
        if is_dir {
            walk(root, prefix, &key, after, limit, keys)?;
        } else {
            keys.push(key);
        }
    }
    Ok(())
}

/// Returns the keys of a directory's entries that may hold something after
/// `after`, and whether each is a directory.
fn entries(root: &Root, prefix: &str, below: &str, after: &str) -> Result<BTreeMap<String, bool>> {
    let mut found = BTreeMap::new();
    let path = format!("{prefix}{below}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match rustix::fs::openat(root.fd(), &path, flags, Mode::empty()).and_then(Dir::new) {
        Ok(dir) => dir,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(found),
        Err(errno) => return Err(root.fail("list", &path, errno)),
    };
    for entry in dir {
        let entry = entry.map_err(|errno| root.fail("list", &path, errno))?;
        // Names that are not text are not ours.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Directory => true,
            FileType::Unknown => is_directory(root, &format!("{path}{name}")),
            _ => false,
        };
        let key = if is_dir { format!("{below}{name}/") } else { format!("{below}{name}") };
        if key.as_str() > after || (is_dir && after.starts_with(&key)) {
            found.insert(key, is_dir);
        }
    }
    Ok(found)
}

/// Whether `path` is a directory, for file systems that do not say so in listings.
fn is_directory(root: &Root, path: &str) -> bool {
    rustix::fs::statat(root.fd(), path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
