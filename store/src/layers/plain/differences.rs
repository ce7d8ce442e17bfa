//! What changed in a directory since it was listed, as overlayfs would have left it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use rustix::fs::{self as sys, AtFlags, FileType};

use super::{
    copy::make,
    listing::{Listing, Stamp, children},
};
use crate::layers::{
    dir::{Dir, is, set_metadata},
    error::{EntryContext as _, LayerResult},
    path::{ancestors, display, split},
    view::{MergedView, kind_of},
};

/// Writes the differences between `directory` and `before` to `upper`.
pub(super) fn write(directory: &Path, before: &Listing, upper: &Path) -> LayerResult<()> {
    let mut differ = Differ {
        before,
        plain: super::open(directory)?,
        view: super::view(directory)?,
        upper: super::open(upper)?,
        made: BTreeSet::new(),
        links: BTreeMap::new(),
    };
    differ.directory(b"", 0)?;
    differ.root()?;
    differ.finish()
}

struct Differ<'a> {
    before: &'a Listing,
    /// The changed directory.
    plain: Dir,
    /// The same, to open files in.
    view: MergedView,
    upper: Dir,
    /// The directories in `upper`, whose metadata is set at the end.
    made: BTreeSet<Vec<u8>>,
    /// Files with several names, and the first of them in `upper`.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Differ<'_> {
    fn directory(&mut self, path: &[u8], depth: usize) -> LayerResult<()> {
        let children = children(&self.plain, path, depth)?;
        let now: BTreeSet<&[u8]> = children.iter().map(|(path, _)| path.as_slice()).collect();
        for gone in self.listed_in(path).into_iter().filter(|path| !now.contains(path.as_slice())) {
            self.ensure(path)?;
            let (parent, name) = split(&gone);
            let parent = self.upper.beneath(parent).entry("open", parent)?;
            parent.make_whiteout(name).entry("delete", &gone)?;
        }
        for (child, stat) in &children {
            let known = self.before.entries.get(child);
            let is_same = known == Some(&Stamp::of(stat));
            if is(stat, FileType::Directory) {
                // A file in it can have changed although the directory did not.
                if !is_same {
                    self.ensure(child)?;
                }
                self.directory(child, depth + 1)?;
            } else if !is_same && !is(stat, FileType::Socket) {
                self.ensure(path)?;
                self.copy(child, stat)?;
            }
        }
        Ok(())
    }

    /// The paths that were in a directory.
    fn listed_in(&self, path: &[u8]) -> Vec<Vec<u8>> {
        if !self.before.entries.get(path).is_some_and(Stamp::is_directory) {
            return Vec::new();
        }
        let start = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let after = self.before.entries.range::<Vec<u8>, _>(start.clone()..);
        let inside = after.map(|(path, _)| path).take_while(|path| path.starts_with(&start));
        let is_child = |path: &&Vec<u8>| !path.is_empty() && !path[start.len()..].contains(&b'/');
        inside.filter(is_child).cloned().collect()
    }

    /// Makes a directory and those above it in `upper`.
    fn ensure(&mut self, path: &[u8]) -> LayerResult<()> {
        for above in ancestors(path).chain([path]).filter(|path| !path.is_empty()) {
            if self.made.insert(above.to_vec()) {
                let (parent, name) = split(above);
                let parent = self.upper.beneath(parent).entry("open", parent)?;
                parent.make_dir(name).entry("create the directory", above)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, path: &[u8], stat: &sys::Stat) -> LayerResult<()> {
        let (parent, name) = split(path);
        let to = self.upper.beneath(parent).entry("open", parent)?;
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&identity) {
                let (first_parent, first_name) = split(first);
                let dir = self.upper.beneath(first_parent).entry("open", first_parent)?;
                return sys::linkat(&dir, first_name, &to, name, AtFlags::empty())
                    .entry("link", path);
            }
            self.links.insert(identity, path.to_vec());
        }
        let from = self.plain.beneath(parent).entry("open", parent)?;
        let metadata = from.metadata(name, stat).entry("read", path)?;
        let kind = kind_of(&from, name, stat).entry("read", path)?;
        make(&to, path, &kind, &metadata, || self.view.open_file(&display(path))).map(drop)
    }

    /// The root has its metadata in `upper` in any case.
    fn root(&self) -> LayerResult<()> {
        self.dress(b"")
    }

    /// Gives the directories their metadata, the deepest first: what is put into one changes it.
    fn finish(&self) -> LayerResult<()> {
        self.made.iter().rev().try_for_each(|path| self.dress(path))
    }

    fn dress(&self, path: &[u8]) -> LayerResult<()> {
        let (parent, name) = split(path);
        let name = if name.is_empty() { b"." } else { name };
        let from = self.plain.beneath(parent).entry("open", parent)?;
        let Some(stat) = from.stat(name).entry("read", path)? else { return Ok(()) };
        let metadata = from.metadata(name, &stat).entry("read", path)?;
        let dir = self.upper.readable_beneath(path).entry("open", path)?;
        set_metadata(&dir, &metadata).entry("set the metadata of", path)
    }
}
