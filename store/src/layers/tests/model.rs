//! The reference: a tree in memory, and what applying tars to it one by one gives. It shares no code
//! with what it judges.

use std::collections::BTreeMap;

use super::build::Item;
use crate::layers::entry::{Kind, Metadata};

/// What is at a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Thing {
    /// Never a hard link.
    pub(super) kind: Kind,
    pub(super) metadata: Metadata,
    pub(super) content: Vec<u8>,
    /// Equal for two names of one file.
    pub(super) inode: u64,
}

/// A tree by path; the root is the empty path.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    things: BTreeMap<String, Thing>,
    next_inode: u64,
}

/// A tree in a form that can be compared: the first name of a file in place of a number.
pub(super) type Dump = BTreeMap<String, (Kind, Metadata, Vec<u8>, String)>;

pub(super) fn dump(things: &BTreeMap<String, Thing>) -> Dump {
    let mut first = BTreeMap::new();
    let mut dump = Dump::new();
    for (path, thing) in things {
        let is_dir = thing.kind == Kind::Directory;
        let name = if is_dir { path } else { first.entry(thing.inode).or_insert(path) };
        let (kind, metadata) = (thing.kind.clone(), thing.metadata.clone());
        dump.insert(path.clone(), (kind, metadata, thing.content.clone(), name.clone()));
    }
    dump
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn parents(path: &str) -> Vec<&str> {
    let mut all = Vec::new();
    let mut path = path;
    while !path.is_empty() {
        path = parent(path);
        all.insert(0, path);
    }
    all
}

fn implied() -> Metadata {
    Metadata { mode: 0o755, ..Metadata::default() }
}

/// What the name of an item means.
fn meaning(item: &Item) -> (String, &'static str) {
    let path = String::from_utf8(item.entry.path.clone()).unwrap();
    let path = path.trim_matches('/').trim_start_matches("./").trim_matches('.');
    let original = String::from_utf8(item.entry.path.clone()).unwrap();
    let name = original.rsplit('/').next().unwrap();
    if name == ".wh..wh..opq" {
        return (parent(&original).to_owned(), "opaque");
    }
    if let Some(hidden) = name.strip_prefix(".wh.") {
        let above = parent(&original);
        let hidden = if above.is_empty() { hidden.to_owned() } else { format!("{above}/{hidden}") };
        return (hidden, "whiteout");
    }
    (path.to_owned(), "plain")
}

impl Tree {
    pub(super) fn new() -> Self {
        let root =
            Thing { kind: Kind::Directory, metadata: implied(), content: Vec::new(), inode: 0 };
        Self { things: BTreeMap::from([(String::new(), root)]), next_inode: 1 }
    }

    pub(super) fn dump(&self) -> Dump {
        dump(&self.things)
    }

    /// Applies a tar, or returns the number of an item that makes no sense where it stands.
    pub(super) fn apply(&mut self, items: &[Item]) -> Result<(), usize> {
        let before = self.clone();
        // Whiteouts are about what was there before, wherever they stand.
        for (path, what) in items.iter().map(meaning) {
            match what {
                "whiteout" => self.remove(&path),
                "opaque" => self.clear(&path),
                _ => {}
            }
        }
        // What this layer made: only that may not stand in the way of a directory.
        let mut made: Vec<String> = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let (path, what) = meaning(item);
            let mut needed = parents(&path);
            if what == "opaque" {
                needed.push(&path);
            }
            for above in needed {
                if self.things.get(above).is_some_and(|thing| thing.kind == Kind::Directory) {
                    continue;
                }
                if made.iter().any(|path| path == above) && self.things.contains_key(above) {
                    return Err(number);
                }
                self.remove(above);
                self.insert(above, Kind::Directory, implied(), Vec::new());
            }
            if what == "plain" {
                self.plain(&before, &path, item).map_err(|()| number)?;
                made.push(path);
            }
        }
        Ok(())
    }

    fn plain(&mut self, before: &Self, path: &str, item: &Item) -> Result<(), ()> {
        let metadata = item.entry.metadata.clone();
        match &item.entry.kind {
            Kind::Directory => {
                match self.things.get_mut(path) {
                    Some(thing) if thing.kind == Kind::Directory => thing.metadata = metadata,
                    _ => {
                        self.remove(path);
                        self.insert(path, Kind::Directory, metadata, Vec::new());
                    }
                }
                Ok(())
            }
            _ if path.is_empty() => Err(()),
            Kind::HardLink { target } => {
                let target = std::str::from_utf8(target).unwrap();
                // A way that leads through a link or file is another question than this one.
                let is_dir = |path: &&str| {
                    self.things.get(*path).is_none_or(|thing| thing.kind == Kind::Directory)
                };
                if !parents(target).iter().all(is_dir) {
                    return Err(());
                }
                // A file that is deleted by this very layer can still be linked to.
                let found = self.things.get(target).or_else(|| before.things.get(target)).cloned();
                let found = found.filter(|thing| thing.kind != Kind::Directory).ok_or(())?;
                if target == path || target.starts_with(&format!("{path}/")) {
                    return Err(());
                }
                self.remove(path);
                self.things.insert(path.to_owned(), found);
                Ok(())
            }
            kind => {
                self.remove(path);
                self.insert(path, kind.clone(), metadata, item.content.clone());
                Ok(())
            }
        }
    }

    fn insert(&mut self, path: &str, kind: Kind, metadata: Metadata, content: Vec<u8>) {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.things.insert(path.to_owned(), Thing { kind, metadata, content, inode });
    }

    fn remove(&mut self, path: &str) {
        if !path.is_empty() {
            self.things.remove(path);
            self.clear(path);
        }
    }

    fn clear(&mut self, path: &str) {
        let inside = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.things.retain(|other, _| other.is_empty() || !other.starts_with(&inside));
    }
}

/// Takes items away until the tar makes sense on every stack of the others, and returns the tree.
pub(super) fn make_sense(layers: &mut [Vec<Item>]) -> Vec<Tree> {
    let mut trees = Vec::new();
    let mut tree = Tree::new();
    for items in layers {
        loop {
            let mut next = tree.clone();
            match next.apply(items) {
                Ok(()) => {
                    tree = next;
                    break;
                }
                Err(number) => drop(items.remove(number)),
            }
        }
        trees.push(tree.clone());
    }
    trees
}
