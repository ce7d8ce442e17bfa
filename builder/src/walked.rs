//! What a walk found, in order, without having moved it together.
//!
//! A context has tens of thousands of files, and each build holds all of them: what several threads
//! found stays where each of them put it, directory by directory, and only the order is put together.

use std::path::{Path, PathBuf};

use crate::tree::Node;

/// Everything below a directory: paths relative to it, parents before children, names in byte order.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// The entries of one directory each.
    listings: Vec<Vec<(PathBuf, Node)>>,
    /// In order; the runs of one listing follow each other.
    runs: Vec<Run>,
}

/// Neighbours in one listing that nothing comes between.
#[derive(Clone, Copy, Debug)]
struct Run {
    listing: usize,
    start: usize,
    end: usize,
}

impl Walked {
    /// Returns how many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Returns whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Goes through the entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &(PathBuf, Node)> {
        self.runs.iter().flat_map(|run| &self.listings[run.listing][run.start..run.end])
    }

    /// Drops entries, asking about the last first.
    #[must_use]
    pub fn retain_from_end(self, mut keep: impl FnMut(&Path, &Node) -> bool) -> Self {
        let mut kept: Vec<(PathBuf, Node)> = Vec::new();
        for (path, node) in self.iter().rev() {
            if keep(path, node) {
                kept.push((path.clone(), node.clone()));
            }
        }
        kept.reverse();
        kept.into()
    }
}

impl From<Vec<(PathBuf, Node)>> for Walked {
    fn from(entries: Vec<(PathBuf, Node)>) -> Self {
        let runs = vec![Run { listing: 0, start: 0, end: entries.len() }];
        Self { listings: vec![entries], runs }
    }
}

/// One directory that was read.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// What is in it, in order.
    pub(crate) entries: Vec<(PathBuf, Node)>,
    /// Those of its entries that are directories themselves, in order.
    pub(crate) directories: Vec<Below>,
}

/// Where the listing of a directory is.
#[derive(Debug)]
pub(crate) struct Below {
    /// The place of the directory among the entries around it.
    pub(crate) place: usize,
    /// The number of its own listing.
    pub(crate) listing: usize,
    /// Whether it is only there if something is in it.
    pub(crate) is_ignored: bool,
}

/// A directory whose entries are being put in order.
struct Open {
    listing: usize,
    /// How many of its entries are in order.
    done: usize,
    directories: std::vec::IntoIter<Below>,
    /// How many runs there were before its own entry, if it goes when nothing is in it.
    needed: Option<usize>,
}

impl Walked {
    /// Puts listings together: every directory is followed by what is in it, from listing 0.
    pub(crate) fn in_order(listings: Vec<Listing>) -> Self {
        let mut entries = Vec::with_capacity(listings.len());
        let mut directories = Vec::with_capacity(listings.len());
        for listing in listings {
            entries.push(listing.entries);
            directories.push(listing.directories);
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut enter = |listing: usize, needed| {
            let directories = directories.get_mut(listing).map(std::mem::take);
            let directories = directories.unwrap_or_default().into_iter();
            Open { listing, done: 0, directories, needed }
        };
        let mut open = vec![enter(0, None)];
        while let Some(last) = open.last_mut() {
            let listing = last.listing;
            let mut add = |start: usize, end: usize| {
                if start < end {
                    runs.push(Run { listing, start, end });
                }
            };
            if let Some(below) = last.directories.next() {
                // The directory's own entry is a run of its own where it may have to go.
                if below.is_ignored {
                    add(last.done, below.place);
                }
                let start = if below.is_ignored { below.place } else { last.done };
                add(start, below.place + 1);
                last.done = below.place + 1;
                let needed = below.is_ignored.then_some(runs.len());
                open.push(enter(below.listing, needed));
                continue;
            }
            add(last.done, entries.get(listing).map_or(0, Vec::len));
            if last.needed == Some(runs.len()) {
                // Nothing in the excluded directory was re-included after all.
                runs.pop();
            }
            open.pop();
        }
        Self { listings: entries, runs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Mtime;

    fn listing(names: &[&str], directories: &[(usize, usize, bool)]) -> Listing {
        let node = Node::directory(0o755, 0, 0, Mtime::default());
        Listing {
            entries: names.iter().map(|name| (PathBuf::from(name), node.clone())).collect(),
            directories: directories
                .iter()
                .map(|&(place, listing, is_ignored)| Below { place, listing, is_ignored })
                .collect(),
        }
    }

    fn names(walked: &Walked) -> Vec<&str> {
        walked.iter().map(|(path, _)| path.to_str().unwrap()).collect()
    }

    #[test]
    fn directories_are_followed_by_what_is_in_them() {
        let walked = Walked::in_order(vec![
            listing(&["a", "b", "c", "d"], &[(1, 2, false), (2, 1, false)]),
            listing(&["c/1"], &[]),
            listing(&["b/1", "b/2", "b/3"], &[(1, 3, false)]),
            listing(&["b/2/1"], &[]),
        ]);
        assert_eq!(names(&walked), ["a", "b", "b/1", "b/2", "b/2/1", "b/3", "c", "c/1", "d"]);
        assert_eq!((walked.len(), walked.is_empty()), (9, false));
        let kept = walked.retain_from_end(|path, _| !path.ends_with("1"));
        assert_eq!(names(&kept), ["a", "b", "b/2", "b/3", "c", "d"]);
    }

    #[test]
    fn an_ignored_directory_is_there_only_with_something_in_it() {
        let walked = Walked::in_order(vec![
            listing(
                &["a", "empty", "full", "nested", "z"],
                &[(1, 1, true), (2, 2, true), (3, 3, true)],
            ),
            listing(&[], &[]),
            listing(&["full/1"], &[]),
            listing(&["nested/empty"], &[(0, 4, true)]),
            listing(&[], &[]),
        ]);
        assert_eq!(names(&walked), ["a", "full", "full/1", "z"]);
        assert!(Walked::in_order(vec![Listing::default()]).is_empty());
        assert!(Walked::in_order(Vec::new()).is_empty());
    }
}
