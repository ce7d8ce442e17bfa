//! Real overlay mounts, in a mount namespace that ends with its thread.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::FileType,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::UnshareFlags,
};

use super::model::{Dump, Thing, dump};
use crate::layers::{
    dir::{Dir, is, is_whiteout, metadata_of},
    entry::{Timestamp, is_image_xattr},
    view::{MergedView, kind_of},
};

/// Mounts an overlay, gives it to `look`, and unmounts it.
pub(super) fn with_overlay<T>(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    look: impl FnOnce(&Path) -> T,
) -> T {
    let target = tempfile::tempdir().unwrap();
    let mut lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    let beside = tempfile::tempdir().unwrap();
    if lowers.len() == 1 && writable.is_none() {
        // Overlayfs wants two directories where nothing is writable.
        lowers.push(beside.path().to_str().unwrap().to_owned());
    }
    let mut options = format!("lowerdir={},userxattr,index=off,metacopy=off", lowers.join(":"));
    if let Some((upper, work)) = writable {
        // Without `volatile`, unmounting syncs the whole file system below.
        options += &format!(",volatile,upperdir={},workdir={}", upper.display(), work.display());
    }
    own_mounts();
    let options = std::ffi::CString::new(options).unwrap();
    mount("overlay", target.path(), "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
    let _mounted = Mounted(target.path());
    look(target.path())
}

/// A mount that ends, also when a test fails.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).unwrap();
    }
}

/// Gives this thread mounts of its own, once; they end with it.
pub(super) fn own_mounts() {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.replace(true) {
        return;
    }
    #[expect(deprecated, reason = "no descriptors are shared with anyone who would care")]
    rustix::thread::unshare(UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// Reads a directory of any file system, with the attributes of an image.
pub(super) fn dump_directory(root: &Path) -> Dump {
    read(root, is_image_xattr)
}

/// Reads a directory with all attributes, also those of overlayfs.
pub(super) fn dump_raw(root: &Path) -> Dump {
    read(root, |_| true)
}

fn read(root: &Path, keep: impl Fn(&[u8]) -> bool) -> Dump {
    let mut things = BTreeMap::new();
    let mut todo = vec![String::new()];
    let mut whiteouts = 0;
    let top = Dir::open(root).unwrap();
    while let Some(path) = todo.pop() {
        let place = root.join(&path);
        let metadata = fs::symlink_metadata(&place).unwrap();
        let (dir, name) = match path.rsplit_once('/') {
            Some((parent, name)) => (top.beneath(parent.as_bytes()).unwrap(), name),
            None if path.is_empty() => (top.beneath(b"").unwrap(), "."),
            None => (top.beneath(b"").unwrap(), path.as_str()),
        };
        let stat = dir.stat(name.as_bytes()).unwrap().unwrap();
        if is(&stat, FileType::Socket) {
            // No tar can hold one.
            continue;
        }
        let kind = kind_of(&dir, name.as_bytes(), &stat).unwrap();
        let mut our = metadata_of(&stat);
        if is_whiteout(&stat) {
            // Only that it is there has a meaning.
            our.mtime = Timestamp::EPOCH;
            whiteouts += 1;
        }
        our.xattrs = dir.xattrs(name.as_bytes()).unwrap();
        our.xattrs.retain(|name, _| keep(name));
        // Overlayfs makes one device and links it.
        let inode = if is_whiteout(&stat) { u64::MAX - whiteouts } else { metadata.ino() };
        let content = if metadata.is_file() { fs::read(&place).unwrap() } else { Vec::new() };
        things.insert(path.clone(), Thing { kind, metadata: our, content, inode });
        if metadata.is_dir() {
            for entry in fs::read_dir(&place).unwrap() {
                let name = entry.unwrap().file_name();
                let name = std::str::from_utf8(name.as_bytes()).unwrap();
                todo.push(if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") });
            }
        }
    }
    dump(&things)
}

/// Reads the merged view the same way.
pub(super) fn dump_view(view: &MergedView) -> Dump {
    let mut things = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(path) = todo.pop() {
        let place = Path::new(&path);
        let node = view.lstat(place).unwrap().unwrap();
        let content = view.open_file(place).ok().flatten().map_or_else(Vec::new, |mut file| {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            content
        });
        if let Some(names) = view.list(place).unwrap() {
            for name in names {
                let name = name.to_str().unwrap();
                todo.push(if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") });
            }
        }
        let (kind, metadata, inode) = (node.kind, node.metadata, node.identity.1);
        things.insert(path, Thing { kind, metadata, content, inode });
    }
    dump(&things)
}
