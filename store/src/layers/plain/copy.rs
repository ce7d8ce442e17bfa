//! Copies what a stack of layers shows into a plain directory.

use std::{collections::BTreeMap, fs::File, io, os::unix::ffi::OsStrExt as _, path::Path};

use rustix::{
    fs::{self as sys, AtFlags, FileType, Mode},
    io::Errno,
};

use super::listing::MAX_DEPTH;
use crate::layers::{
    dir::{Dir, owner, set_metadata},
    entry::{Kind, Metadata},
    error::{EntryContext as _, LayerError, LayerResult},
    path::{display, exact, join, split},
    view::{MergedView, Node},
};

/// Copies the directory at `from` of the merged tree into `target`, which exists; its metadata too.
///
/// Names that are one file in a layer are one file in the copy. Devices that this user may not make
/// are left out.
///
/// # Errors
///
/// Fails if `from` is no directory, and if something cannot be read or made.
pub fn copy_tree(view: &MergedView, from: &Path, target: &Path) -> Result<(), LayerError> {
    let mut copier = Copier { view, root: super::open(target)?, links: BTreeMap::new() };
    let from = exact(from);
    let node = view.lstat(&display(&from)).entry("read", &from)?;
    let Some(Node { kind: Kind::Directory, metadata, .. }) = node else {
        return Err(LayerError::Read(io::ErrorKind::NotADirectory.into()));
    };
    copier.directory(&from, b"", 0)?;
    copier.finish(b"", &metadata)
}

/// Makes one thing that is no directory in `dir`, with its metadata; `source` gives a file's
/// content. Returns whether this user may make it.
pub(super) fn make(
    dir: &Dir,
    path: &[u8],
    kind: &Kind,
    metadata: &Metadata,
    source: impl FnOnce() -> io::Result<Option<File>>,
) -> LayerResult<bool> {
    let (_, name) = split(path);
    let mode = Mode::from_raw_mode(metadata.mode);
    let node = |kind, device| sys::mknodat(dir, name, kind, mode, device);
    let made = match kind {
        Kind::File { .. } => {
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            let mut source =
                source().and_then(|file| file.ok_or_else(missing)).entry("read", path)?;
            let mut file = dir.create(name, 0o600).entry("create", path)?;
            // The standard library shares blocks or copies inside the kernel where it can.
            io::copy(&mut source, &mut file).entry("copy", path)?;
            return set_metadata(&file, metadata).entry("set the metadata of", path).map(|()| true);
        }
        Kind::Symlink { target } => sys::symlinkat(target.as_slice(), dir, name),
        Kind::CharDevice { major, minor } => {
            node(FileType::CharacterDevice, sys::makedev(*major, *minor))
        }
        Kind::BlockDevice { major, minor } => {
            node(FileType::BlockDevice, sys::makedev(*major, *minor))
        }
        Kind::Fifo => node(FileType::Fifo, 0),
        Kind::Directory | Kind::HardLink { .. } => {
            unreachable!("directories are made by the caller, and a view has no links")
        }
    };
    match made {
        Err(Errno::PERM) if matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) => {
            return Ok(false);
        }
        other => other.entry("create", path)?,
    }
    let (uid, gid) = owner(metadata);
    sys::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).entry("set the owner of", path)?;
    if !matches!(kind, Kind::Symlink { .. }) {
        sys::chmodat(dir, name, mode, AtFlags::empty()).entry("set the mode of", path)?;
    }
    for (key, value) in &metadata.xattrs {
        dir.set_xattr(name, key, value).entry("set the attributes of", path)?;
    }
    dir.set_times(name, metadata.mtime).entry("set the time of", path)?;
    Ok(true)
}

struct Copier<'a> {
    view: &'a MergedView,
    root: Dir,
    /// Where a file with several names was copied to first.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Copier<'_> {
    fn directory(&mut self, from: &[u8], to: &[u8], depth: usize) -> LayerResult<()> {
        if depth > MAX_DEPTH {
            let reason = "directories are nested too deeply";
            return Err(LayerError::Path { path: display(from), reason });
        }
        let names = self.view.list(&display(from)).entry("list", from)?.unwrap_or_default();
        for name in names {
            let (from, to) = (join(from, name.as_bytes()), join(to, name.as_bytes()));
            let node = self.view.lstat(&display(&from)).entry("read", &from)?;
            let Some(node) = node else { continue };
            let (parent, name) = split(&to);
            let dir = self.root.beneath(parent).entry("open", parent)?;
            if node.kind == Kind::Directory {
                dir.make_dir(name).entry("create the directory", &to)?;
                drop(dir);
                self.directory(&from, &to, depth + 1)?;
                self.finish(&to, &node.metadata)?;
            } else {
                self.other(&dir, &from, &to, &node)?;
            }
        }
        Ok(())
    }

    fn other(&mut self, dir: &Dir, from: &[u8], to: &[u8], node: &Node) -> LayerResult<()> {
        if node.links > 1
            && let Some(first) = self.links.get(&node.identity)
        {
            let (parent, name) = split(first);
            let first_dir = self.root.beneath(parent).entry("open", parent)?;
            return sys::linkat(&first_dir, name, dir, split(to).1, AtFlags::empty())
                .entry("link", to);
        }
        let open = || self.view.open_file(&display(from));
        let made = make(dir, to, &node.kind, &node.metadata, open)?;
        if made && node.links > 1 {
            self.links.insert(node.identity, to.to_vec());
        }
        Ok(())
    }

    /// Gives a directory its metadata when everything is in it.
    fn finish(&self, path: &[u8], metadata: &Metadata) -> LayerResult<()> {
        let dir = self.root.readable_beneath(path).entry("open", path)?;
        set_metadata(&dir, metadata).entry("set the metadata of", path)
    }
}
