//! Sorted listings of directories, and the memory of those that are large.
//!
//! Reading and sorting 100,000 names takes tens of milliseconds, so a large
//! directory is read once and remembered for as long as it does not change. Its
//! time of change tells: whatever adds or removes a name sets it. A directory
//! that changed just now is not remembered, because another change within the
//! same tick of the clock would look the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::super::Result;
use super::files::Root;

/// From how many names on a directory is remembered: fewer are read in less than
/// a millisecond.
const MIN_REMEMBERED: usize = 512;

/// How much memory all listings together may take, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// How old a change must be before the directory counts as still: far more than
/// a tick, and than clocks of two machines on one network drift apart.
const STILL_AFTER: Duration = Duration::from_secs(1);

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
    // What lies in this directory comes after `after` as a whole, or `after`
    // lies in it as well.
    let rest = after.strip_prefix(below).unwrap_or("");
    let names = names(root, &format!("{prefix}{below}"))?;
    for index in names.first_after(rest)..names.len() {
        if keys.len() >= limit {
            break;
        }
        let name = names.get(index);
        let key = format!("{below}{name}");
        if name.ends_with('/') {
            walk(root, prefix, &key, after, limit, keys)?;
        } else {
            keys.push(key);
        }
    }
    Ok(())
}

/// The names in a directory, in byte order; those of directories end in a slash.
#[derive(Debug, Default)]
struct Names {
    text: String,
    /// Where each name ends in `text`.
    ends: Vec<u32>,
}

impl Names {
    fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        let mut sorted = Self::default();
        sorted.text.reserve_exact(names.iter().map(String::len).sum());
        for name in names {
            sorted.text.push_str(&name);
            // 4 GiB of names do not fit into memory before they do not fit here.
            sorted.ends.push(u32::try_from(sorted.text.len()).unwrap_or(u32::MAX));
        }
        sorted
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> &str {
        let begin = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.text[begin..self.ends[index] as usize]
    }

    /// Returns the first that comes after `after`, or is a directory that `after`
    /// lies in.
    fn first_after(&self, after: &str) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let name = self.get(middle);
            let is_wanted = name > after || name.ends_with('/') && after.starts_with(name);
            if is_wanted { high = middle } else { low = middle + 1 }
        }
        low
    }

    fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// What changes with a directory's names.
type State = (u64, u64, i64, i64);

fn state(stat: &Stat) -> State {
    (stat.st_dev, stat.st_ino, stat.st_mtime, stat.st_mtime_nsec.cast_signed())
}

/// The large directories that did not change since they were read.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<BTreeMap<String, (State, Arc<Names>)>>);

impl Listings {
    fn get(&self, path: &str, state: State) -> Option<Arc<Names>> {
        let known = self.0.lock().expect("nothing panics while it holds the lock");
        known.get(path).filter(|(then, _)| *then == state).map(|(_, names)| Arc::clone(names))
    }

    fn remember(&self, path: String, state: State, names: &Arc<Names>) {
        let mut known = self.0.lock().expect("nothing panics while it holds the lock");
        let mut bytes: usize = known.values().map(|(_, names)| names.bytes()).sum();
        while bytes + names.bytes() > MAX_BYTES {
            // Which goes matters little: whoever pages through one reads it again.
            let Some((_, (_, gone))) = known.pop_first() else { return };
            bytes -= gone.bytes();
        }
        known.insert(path, (state, Arc::clone(names)));
    }
}

/// Returns the names in a directory, from memory if it did not change.
fn names(root: &Root, path: &str) -> Result<Arc<Names>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(root.fd(), path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Arc::default()),
        Err(errno) => return Err(root.fail("list", path, errno)),
    };
    let begun = clock_gettime(ClockId::RealtimeCoarse);
    let stat = rustix::fs::fstat(&fd).map_err(|errno| root.fail("list", path, errno))?;
    let state = state(&stat);
    if let Some(names) = root.listings().get(path, state) {
        return Ok(names);
    }
    let dir = Dir::new(fd).map_err(|errno| root.fail("list", path, errno))?;
    let mut found = Vec::new();
    for entry in dir {
        let entry = entry.map_err(|errno| root.fail("list", path, errno))?;
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
        found.push(if is_dir { format!("{name}/") } else { name.to_owned() });
    }
    let names = Arc::new(Names::new(found));
    let still_s = STILL_AFTER.as_secs().cast_signed();
    let is_still = stat.st_mtime + still_s < begun.tv_sec;
    if names.len() >= MIN_REMEMBERED && is_still {
        root.listings().remember(path.to_owned(), state, &names);
    }
    Ok(names)
}

/// Whether `path` is a directory, for file systems that do not say so in listings.
fn is_directory(root: &Root, path: &str) -> bool {
    rustix::fs::statat(root.fd(), path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A directory of many names, last changed long ago.
    fn large() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("root/many")).unwrap();
        for number in 0..1000 {
            fs::write(dir.path().join(format!("root/many/{number:04}")), "").unwrap();
        }
        age(&dir, 60);
        (dir, root)
    }

    fn age(dir: &tempfile::TempDir, seconds: u64) {
        let file = fs::File::open(dir.path().join("root/many")).unwrap();
        let then = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(seconds);
        file.set_modified(then).unwrap();
    }

    fn remembered(root: &Root) -> usize {
        root.listings().0.lock().unwrap().len()
    }

    #[test]
    fn a_large_directory_is_remembered_until_it_changes() {
        let (dir, root) = large();
        let page = |after| list(&root, "many/", Some(after), 2).unwrap();
        assert_eq!(page("0500"), ["0501", "0502"]);
        assert_eq!(remembered(&root), 1);
        assert_eq!(page("0500"), ["0501", "0502"]);
        // By whomever it is changed.
        fs::write(dir.path().join("root/many/0500a"), "").unwrap();
        assert_eq!(page("0500"), ["0500a", "0501"]);
        fs::remove_file(dir.path().join("root/many/0501")).unwrap();
        assert_eq!(page("0500"), ["0500a", "0502"]);
    }

    /// Two changes within a tick of the clock look like one.
    #[test]
    fn what_changed_just_now_is_not_remembered() {
        let (dir, root) = large();
        fs::write(dir.path().join("root/many/new"), "").unwrap();
        assert_eq!(list(&root, "many/", Some("0999"), 2).unwrap(), ["new"]);
        assert_eq!(remembered(&root), 0);
    }

    #[test]
    fn listings_take_no_more_than_their_memory() {
        let listings = Listings::default();
        let name = "x".repeat(200);
        let names = Arc::new(Names::new(vec![name; 10_000]));
        for number in 0..10 {
            listings.remember(format!("{number}"), (0, 0, 0, 0), &names);
        }
        let known = listings.0.lock().unwrap();
        let bytes: usize = known.values().map(|(_, names)| names.bytes()).sum();
        assert!(bytes <= MAX_BYTES && known.len() >= 3, "{bytes} bytes in {}", known.len());
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_scan_finds(
            names in proptest::collection::btree_set("[ab!]{1,3}/?", 0..20),
            after in "[ab!/]{0,4}",
        ) {
            let sorted = Names::new(names.iter().cloned().collect());
            let scanned: Vec<&String> = names
                .iter()
                .filter(|name| {
                    name.as_str() > after.as_str()
                        || name.ends_with('/') && after.starts_with(name.as_str())
                })
                .collect();
            let found: Vec<&str> =
                (sorted.first_after(&after)..sorted.len()).map(|index| sorted.get(index)).collect();
            prop_assert_eq!(found, scanned);
        }
    }
}
