//! Makes the directory of a chain's fix-up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::Path,
};

use rustix::fs::{self as sys, AtFlags, FileType, Mode};

use super::{
    chain::{broken_link, parent},
    dir::{Dir, owner, set_metadata},
    entry::{Kind, Metadata},
    error::{EntryContext as _, LayerResult},
    index::LayerIndex,
    path::{ancestors, display, split},
    view::{MergedView, Node},
};

/// A fix-up being made: the directory, the layer it is for, and what lies below.
pub(super) struct Fixup<'a> {
    root: Dir,
    index: &'a LayerIndex,
    implied: BTreeSet<&'a [u8]>,
    own: &'a MergedView,
    lower: &'a MergedView,
    /// The directories made so far, whose metadata is set at the end.
    directories: BTreeMap<Vec<u8>, Metadata>,
    /// Where the copy of a linked file is.
    copies: BTreeMap<Vec<u8>, Vec<u8>>,
    has_entries: bool,
}

/// What a fix-up turned out to hold.
pub(super) struct Made {
    /// Something besides its root.
    pub(super) has_entries: bool,
    /// A root that differs from the layer's own.
    pub(super) has_root: bool,
}

impl<'a> Fixup<'a> {
    pub(super) fn new(
        tree: &Path,
        index: &'a LayerIndex,
        own: &'a MergedView,
        lower: &'a MergedView,
    ) -> LayerResult<Self> {
        let root = Dir::open(tree).entry("open", b"the fix-up")?;
        let implied = index.implied.iter().map(Vec::as_slice).collect();
        let (directories, copies) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { root, index, implied, own, lower, directories, copies, has_entries: false })
    }

    /// Makes everything the index asks for.
    pub(super) fn fill(&mut self) -> LayerResult<()> {
        for path in self.index.implied.iter().filter(|path| !path.is_empty()) {
            let own = directory(self.own, path)?;
            let lower = self.lower_directory(path)?;
            // Nothing below, or nothing different: the layer's own directory will do.
            if lower.is_some() && lower != own {
                self.ensure_directory(path)?;
            }
        }
        for path in &self.index.whiteouts {
            let parent = parent(path);
            if self.lower_directory(parent)?.is_none() {
                self.ensure_directory(parent)?;
                self.has_entries = true;
            }
        }
        for (path, target) in &self.index.links {
            self.link(path, target)?;
        }
        Ok(())
    }

    /// Gives directories their metadata.
    pub(super) fn finish(mut self) -> LayerResult<Made> {
        let root = self.merged_metadata(b"")?;
        let own = directory(self.own, b"")?;
        let has_root = own.as_ref() != Some(&root);
        self.directories.insert(Vec::new(), root);
        for (path, metadata) in self.directories.iter().rev() {
            let dir = self.root.readable_beneath(path).entry("open", path)?;
            set_metadata(&dir, metadata).entry("set the metadata of", path)?;
        }
        Ok(Made { has_entries: self.has_entries, has_root })
    }

    /// Makes a directory and those above it, as they are in the merged tree.
    fn ensure_directory(&mut self, path: &[u8]) -> LayerResult<()> {
        for above in ancestors(path).chain([path]).filter(|path| !path.is_empty()) {
            if self.directories.contains_key(above) {
                continue;
            }
            let metadata = self.merged_metadata(above)?;
            let (parent, name) = split(above);
            let parent = self.root.beneath(parent).entry("open", parent)?;
            parent.make_dir(name).entry("create the directory", above)?;
            self.directories.insert(above.to_vec(), metadata);
            self.has_entries = true;
        }
        Ok(())
    }

    /// The metadata of a directory when this layer lies on the lower ones.
    fn merged_metadata(&self, path: &[u8]) -> LayerResult<Metadata> {
        let own = directory(self.own, path)?;
        if let Some(own) = &own
            && !self.implied.contains(path)
        {
            return Ok(own.clone());
        }
        let lower = self.lower_directory(path)?;
        Ok(lower.or(own).unwrap_or_else(Metadata::implied_directory))
    }

    /// The directory that this layer's directory merges with, if there is one.
    fn lower_directory(&self, path: &[u8]) -> LayerResult<Option<Metadata>> {
        // Of an opaque root only the metadata shows through.
        let is_hidden = self.index.is_root_opaque && !path.is_empty();
        if is_hidden || self.lower.is_empty() { Ok(None) } else { directory(self.lower, path) }
    }

    /// Copies the file of a lower layer that `path` is another name of.
    fn link(&mut self, path: &[u8], target: &[u8]) -> LayerResult<()> {
        let found = self.lower.resolve(&display(target), false).entry("read", target)?;
        let Some((found, node)) = found else {
            return Err(broken_link(
                path,
                target,
                "neither this layer nor one below has the target",
            ));
        };
        if node.kind == Kind::Directory {
            return Err(broken_link(path, target, "the target is a directory"));
        }
        let target = super::path::exact(&found);
        let first = match self.copies.get(&target) {
            Some(first) => first.clone(),
            None => {
                // The other name keeps its place only if this layer does not hide it.
                let first =
                    if self.is_seen_through(&target)? { target.clone() } else { path.to_vec() };
                self.ensure_directory(parent(&first))?;
                self.copy(&target, &node, &first)?;
                self.has_entries = true;
                self.copies.insert(target.clone(), first.clone());
                first
            }
        };
        if first == path {
            return Ok(());
        }
        self.ensure_directory(parent(path))?;
        let (from, to) = (split(&first), split(path));
        let from_dir = self.root.beneath(from.0).entry("open", from.0)?;
        let to_dir = self.root.beneath(to.0).entry("open", to.0)?;
        sys::linkat(&from_dir, from.1, &to_dir, to.1, AtFlags::empty()).entry("link", path)
    }

    /// Whether a path of the lower layers is still there under this layer.
    fn is_seen_through(&self, path: &[u8]) -> LayerResult<bool> {
        let hides = |path: &[u8]| self.index.whiteouts.iter().any(|whiteout| whiteout == path);
        if self.index.is_root_opaque {
            return Ok(false);
        }
        for above in ancestors(path).filter(|path| !path.is_empty()).chain([path]) {
            if hides(above) {
                return Ok(false);
            }
            match self.own.lstat(&display(above)).entry("read", above)? {
                None => return Ok(true),
                Some(node) if node.kind == Kind::Directory && above != path => {
                    if self.own.is_opaque(&display(above)).entry("read", above)? {
                        return Ok(false);
                    }
                }
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    fn copy(&self, from: &[u8], node: &Node, to: &[u8]) -> LayerResult<()> {
        let (parent, name) = split(to);
        let dir = self.root.beneath(parent).entry("open", parent)?;
        let metadata = &node.metadata;
        let mode = Mode::from_raw_mode(metadata.mode);
        let make = |kind, device| sys::mknodat(&dir, name, kind, mode, device);
        match &node.kind {
            Kind::File { .. } => return self.copy_file(from, &dir, name, to, metadata),
            Kind::Symlink { target } => sys::symlinkat(target.as_slice(), &dir, name),
            Kind::CharDevice { major, minor } => {
                make(FileType::CharacterDevice, sys::makedev(*major, *minor))
            }
            Kind::BlockDevice { major, minor } => {
                make(FileType::BlockDevice, sys::makedev(*major, *minor))
            }
            Kind::Fifo => make(FileType::Fifo, 0),
            Kind::Directory | Kind::HardLink { .. } => unreachable!("neither is ever copied"),
        }
        .entry("create", to)?;
        let (uid, gid) = owner(metadata);
        sys::chownat(&dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .entry("set the owner of", to)?;
        if !matches!(node.kind, Kind::Symlink { .. }) {
            sys::chmodat(&dir, name, mode, AtFlags::empty()).entry("set the mode of", to)?;
        }
        for (key, value) in &metadata.xattrs {
            dir.set_xattr(name, key, value).entry("set the attributes of", to)?;
        }
        dir.set_times(name, metadata.mtime).entry("set the time of", to)
    }

    fn copy_file(
        &self,
        from: &[u8],
        dir: &Dir,
        name: &[u8],
        to: &[u8],
        metadata: &Metadata,
    ) -> LayerResult<()> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let source = self.lower.open_file(&display(from)).and_then(|file| file.ok_or_else(missing));
        let mut source = source.entry("read", from)?;
        let mut file: File = dir.create(name, 0o600).entry("create", to)?;
        // The standard library shares blocks or copies inside the kernel where it can.
        io::copy(&mut source, &mut file).entry("copy", to)?;
        set_metadata(&file, metadata).entry("set the metadata of", to)
    }
}

fn directory(view: &MergedView, path: &[u8]) -> LayerResult<Option<Metadata>> {
    let node = view.lstat(&display(path)).entry("read", path)?;
    Ok(node.filter(|node| node.kind == Kind::Directory).map(|node| node.metadata))
}
