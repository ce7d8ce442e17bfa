//! Where selected files go: the destination's rules, in the view of the layers below.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::mode::Chmod;
use super::owner::Owner;
use super::select::Selected;
use crate::error::{Error, Result};
use crate::tree::{Kind, Mtime, Node, Slice, Tree, check_name, normalize, resolve};

/// The destination of a COPY: absolute, and whether it was written as a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Relative to the image's root, normal.
    pub path: PathBuf,
    /// Whether it ended in a slash, or was `.`.
    pub is_directory: bool,
}

impl Destination {
    /// Reads an absolute path of the image.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let is_directory = text.is_empty() || text.ends_with('/') || text.ends_with("/.");
        Self { path: normalize(Path::new(text)), is_directory }
    }
}

/// Where the content of a placed file comes from.
#[derive(Clone, Debug)]
pub enum Body {
    /// There is none: a directory, link, device or pipe.
    None,
    /// A file of the source tree.
    Source(PathBuf),
    /// Bytes of the Dockerfile itself.
    Inline(Vec<u8>),
    /// A part of an archive.
    Slice(Slice),
}

/// One entry of the layer to be.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its metadata as the image will have it.
    pub node: Node,
    /// Its content.
    pub body: Body,
    /// Whether nothing was there in the layers below, so that nothing below it needs looking up.
    is_fresh: bool,
}

impl Placed {
    /// Returns whether the layers below have nothing at this path.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

/// Collects what a COPY writes, path by path.
pub struct Placement<'a> {
    base: &'a dyn Tree,
    entries: BTreeMap<PathBuf, Placed>,
    owner: Option<Owner>,
    chmod: Option<Chmod>,
    now: Mtime,
}

impl std::fmt::Debug for Placement<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placement").field("entries", &self.entries).finish_non_exhaustive()
    }
}

impl<'a> Placement<'a> {
    /// Starts with nothing, over the layers `base`; `now` is the time of what has none.
    #[must_use]
    pub fn new(base: &'a dyn Tree, owner: Option<Owner>, chmod: Option<Chmod>, now: Mtime) -> Self {
        Self { base, entries: BTreeMap::new(), owner, chmod, now }
    }

    /// Returns the entries in the order of a layer: parents first, names in byte order.
    #[must_use]
    pub fn into_entries(self) -> BTreeMap<PathBuf, Placed> {
        self.entries
    }

    /// Places one selection of `source` at `to` by the rules of COPY.
    ///
    /// # Errors
    /// Returns [`Error::FileOverDirectory`] and [`Error::DirectoryOverFile`] where types
    /// clash, and [`Error::ReservedName`].
    pub fn place(
        &mut self,
        selected: &Selected,
        source: &dyn Tree,
        to: &Destination,
    ) -> Result<()> {
        for (path, node) in &selected.above {
            let target = resolve(&*self, &to.path.join(path), true)?.path;
            self.parents_of(&target)?;
            self.put(&target, node, Body::None, true)?;
        }
        if !selected.node.is_dir() {
            let target = self.file_target(&selected.name, to)?;
            let body = body(source, &selected.node, &selected.path);
            return self.put(&target, &selected.node, body, true);
        }
        let target = if selected.is_whole {
            let target = self.directory(&to.path.join(&selected.name))?;
            self.put(&target, &selected.node, Body::None, true)?;
            target
        } else {
            self.directory(&to.path)?
        };
        if self.is_vacant(&target)? {
            return self.fill(&target, selected, source);
        }
        for (relative, node) in selected.below.iter() {
            let body = body(source, node, &selected.path.join(relative));
            self.put(&target.join(relative), node, body, true)?;
        }
        Ok(())
    }

    /// Whether nothing is in a directory that was placed: neither below nor among the entries.
    fn is_vacant(&self, target: &Path) -> Result<bool> {
        let is_fresh = match self.entries.get(target) {
            Some(placed) => placed.is_fresh,
            // The root is no entry.
            None if target.as_os_str().is_empty() => false,
            None => return Ok(false),
        };
        let after = (Bound::Excluded(target), Bound::Unbounded);
        let next = self.entries.range::<Path, _>(after).next();
        if next.is_some_and(|(path, _)| path.starts_with(target)) {
            return Ok(false);
        }
        Ok(is_fresh || self.base.list(target)?.is_empty())
    }

    /// Places what is in a directory into a vacant one: all of it is new, and in order already.
    fn fill(&mut self, target: &Path, selected: &Selected, source: &dyn Tree) -> Result<()> {
        let place = |(relative, node): &(PathBuf, Node)| {
            check_name(relative)?;
            let body = body(source, node, &selected.path.join(relative));
            Ok((target.join(relative), self.placed(node, body, true)))
        };
        let mut below = selected.below.iter().map(place).collect::<Result<BTreeMap<_, _>>>()?;
        self.entries.append(&mut below);
        Ok(())
    }

    /// Places a file whose content is known, such as a heredoc.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn place_inline(&mut self, name: &str, content: Vec<u8>, to: &Destination) -> Result<()> {
        let size = content.len() as u64;
        let node = Node { kind: Kind::File { size }, ..Node::directory(0o644, 0, 0, self.now) };
        self.place_file(name, &node, Body::Inline(content), to)
    }

    /// Places a file of its own, such as a downloaded one.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn place_file(
        &mut self,
        name: &str,
        node: &Node,
        body: Body,
        to: &Destination,
    ) -> Result<()> {
        let target = self.file_target(Path::new(name), to)?;
        self.put(&target, node, body, true)
    }

    /// Makes sure a directory is there and returns where it is, links followed.
    ///
    /// # Errors
    /// Returns [`Error::DirectoryOverFile`] when something else is in the way.
    pub fn directory(&mut self, path: &Path) -> Result<PathBuf> {
        let resolved = resolve(&*self, path, true)?;
        self.parents_of(&resolved.path)?;
        match resolved.node {
            Some(node) if node.is_dir() => self.keep(&resolved.path, node),
            Some(_) => return Err(Error::DirectoryOverFile { path: absolute(&resolved.path) }),
            None => self.create(&resolved.path),
        }
        Ok(resolved.path)
    }

    /// Writes one entry at exactly `target`, whose parents are there.
    ///
    /// `is_source` says that the metadata is the source's, to which `--chown` and
    /// `--chmod` apply.
    ///
    /// # Errors
    /// As [`Self::place`].
    pub fn put(&mut self, target: &Path, node: &Node, body: Body, is_source: bool) -> Result<()> {
        if target.as_os_str().is_empty() {
            // The root itself stays as the layers below have it.
            return Ok(());
        }
        check_name(target)?;
        let existing = self.lookup(target)?;
        match (&existing, node.is_dir()) {
            (Some(there), false) if there.is_dir() => {
                return Err(Error::FileOverDirectory { path: absolute(target) });
            }
            (Some(there), true) if !there.is_dir() => {
                return Err(Error::DirectoryOverFile { path: absolute(target) });
            }
            _ => {}
        }
        let is_fresh = existing.is_none() || self.entries.get(target).is_some_and(|e| e.is_fresh);
        let placed = Placed { is_fresh, ..self.placed(node, body, is_source) };
        self.entries.insert(target.to_owned(), placed);
        Ok(())
    }

    /// Returns the entry of a node where nothing is yet.
    fn placed(&self, node: &Node, body: Body, is_source: bool) -> Placed {
        let mut node = node.clone();
        if node.kind == Kind::Socket {
            node.kind = Kind::File { size: 0 };
        }
        if is_source {
            self.apply_flags(&mut node);
        }
        Placed { node, body, is_fresh: true }
    }

    /// Writes one member of an archive at exactly `target`, whose parents are there.
    ///
    /// Unlike a copied file it takes the place of whatever is there; only a directory
    /// stays where the member is one as well.
    ///
    /// # Errors
    /// Returns [`Error::ReservedName`].
    pub fn put_member(&mut self, target: &Path, node: &Node, body: Body) -> Result<()> {
        check_name(target)?;
        let is_merged = node.is_dir() && self.is_dir(target);
        let is_fresh = !is_merged || self.entries.get(target).is_some_and(|e| e.is_fresh);
        self.make_room(target, is_merged);
        let mut node = node.clone();
        self.apply_flags(&mut node);
        self.entries.insert(target.to_owned(), Placed { node, body, is_fresh });
        Ok(())
    }

    /// Runs `work` without `--chmod`, which is not for what is unpacked.
    ///
    /// # Errors
    /// Returns what `work` returns.
    pub fn without_chmod(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let chmod = self.chmod.take();
        let result = work(self);
        self.chmod = chmod;
        result
    }

    /// Applies `--chown` and `--chmod`.
    fn apply_flags(&self, node: &mut Node) {
        if let Some(owner) = self.owner {
            (node.uid, node.gid) = (owner.uid, owner.gid);
        }
        if let Some(chmod) = &self.chmod
            && !matches!(node.kind, Kind::Symlink { .. })
        {
            node.mode = chmod.apply(node.mode, node.is_dir());
        }
    }

    /// Drops what was placed below `target`, unless it stays a directory.
    fn make_room(&mut self, target: &Path, is_merged: bool) {
        if !is_merged && self.entries.get(target).is_some_and(|placed| placed.node.is_dir()) {
            self.entries.retain(|path, _| !path.starts_with(target));
        }
    }

    /// Gives an entry placed before a second name; returns false when it is not there.
    ///
    /// `id` tells this file from others, unless it has several names already.
    #[must_use]
    pub fn link(&mut self, existing: &Path, name: &Path, id: (u64, u64)) -> bool {
        let Some(placed) = self.entries.get(existing) else { return false };
        if placed.node.is_dir() || existing == name || existing.starts_with(name) {
            return false;
        }
        self.make_room(name, false);
        let placed = self.entries.get_mut(existing).map(|placed| {
            placed.node.link.get_or_insert(id);
            placed.clone()
        });
        if let Some(placed) = placed {
            self.entries.insert(name.to_owned(), placed);
        }
        true
    }

    fn is_dir(&self, path: &Path) -> bool {
        matches!(self.lookup(path), Ok(Some(node)) if node.is_dir())
    }

    /// Makes sure that the directories above a path (without links in it) are there.
    ///
    /// # Errors
    /// As [`Self::directory`].
    pub fn parents_of(&mut self, path: &Path) -> Result<()> {
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            if parent.as_os_str().is_empty() || self.entries.contains_key(parent) {
                continue;
            }
            match self.lookup(parent)? {
                Some(node) if node.is_dir() => self.keep(parent, node),
                Some(_) => return Err(Error::DirectoryOverFile { path: absolute(parent) }),
                None => self.create(parent),
            }
        }
        Ok(())
    }

    /// Returns where a file goes: into `to` if that is a directory, else to `to` itself.
    fn file_target(&mut self, name: &Path, to: &Destination) -> Result<PathBuf> {
        let resolved = resolve(&*self, &to.path, true)?;
        let is_dir = resolved.node.as_ref().is_some_and(Node::is_dir);
        let target = if is_dir || to.is_directory || to.path.as_os_str().is_empty() {
            self.directory(&to.path)?.join(name)
        } else {
            // A destination that is a link is followed; a link inside a copied directory
            // is not, there it is replaced.
            resolved.path
        };
        self.parents_of(&target)?;
        Ok(target)
    }

    /// Repeats a directory of the layers below, so that the layer stands on its own.
    fn keep(&mut self, path: &Path, node: Node) {
        if !path.as_os_str().is_empty() && !self.entries.contains_key(path) {
            let placed = Placed { node, body: Body::None, is_fresh: false };
            self.entries.insert(path.to_owned(), placed);
        }
    }

    fn create(&mut self, path: &Path) {
        let owner = self.owner.unwrap_or_default();
        let mode = self.chmod.as_ref().map_or(0o755, Chmod::created_directory);
        let node = Node::directory(mode, owner.uid, owner.gid, self.now);
        let placed = Placed { node, body: Body::None, is_fresh: true };
        self.entries.insert(path.to_owned(), placed);
    }
}

/// The view of the layers below with the entries placed so far on top.
impl Tree for Placement<'_> {
    fn lookup(&self, path: &Path) -> Result<Option<Node>> {
        if let Some(placed) = self.entries.get(path) {
            return Ok(Some(placed.node.clone()));
        }
        let parent = path.parent().and_then(|parent| self.entries.get(parent));
        if parent.is_some_and(|parent| parent.is_fresh || !parent.node.is_dir()) {
            return Ok(None);
        }
        self.base.lookup(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<OsString>> {
        self.base.list(path)
    }

    fn open(&self, path: &Path) -> Result<File> {
        self.base.open(path)
    }

    fn content_digest(&self, path: &Path, node: &Node) -> Result<[u8; 32]> {
        self.base.content_digest(path, node)
    }
}

fn body(source: &dyn Tree, node: &Node, path: &Path) -> Body {
    match node.kind {
        Kind::File { .. } => {
            source.slice(path).map_or_else(|| Body::Source(path.to_owned()), Body::Slice)
        }
        _ => Body::None,
    }
}

/// A path as people write it.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}
