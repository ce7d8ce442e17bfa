//! Finds the files that the source words of a COPY name.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::context::is_ignored;
use crate::error::{Error, Result};
use crate::ignore::{Ignore, glob};
use crate::tree::{Node, Tree, normalize, resolve};
use crate::walked::Walked;

/// A source word after expansion, and the flags that change what it selects.
#[derive(Debug)]
pub struct Selector<'a> {
    /// The path or pattern, relative to the root of the source.
    pub word: &'a str,
    /// `--parents`: the path itself is recreated below the destination.
    pub parents: bool,
    /// `--exclude`, relative to what is selected.
    pub exclude: &'a Ignore,
}

/// One file or directory that a source word named.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The path below the destination, were it a directory: the name, or more with `--parents`.
    pub name: PathBuf,
    /// Where it is in the source, links followed.
    pub path: PathBuf,
    /// What it is.
    pub node: Node,
    /// For a directory, everything below: paths relative to it, in order.
    pub below: Walked,
    /// The directories to recreate above it, with `--parents`: path below the destination.
    pub above: Vec<(PathBuf, Node)>,
    /// Whether the directory itself is recreated (`--parents`), not only its content copied.
    pub is_whole: bool,
}

/// Returns what a source word names, in byte order; a pattern may name nothing.
///
/// # Errors
/// Returns [`Error::SourceMissing`] for a plain path that is not there.
pub fn select(tree: &dyn Tree, selector: &Selector<'_>) -> Result<Vec<Selected>> {
    let (pivot, word) = match selector.word.split_once("/./") {
        Some((pivot, rest)) if selector.parents => (pivot, rest),
        _ => ("", selector.word),
    };
    let pivot = normalize(Path::new(pivot));
    let normal = normalize(Path::new(word));
    let Some(text) = normal.to_str() else {
        return one(tree, selector, &pivot, &normal, false);
    };
    if !is_pattern(text) {
        return one(tree, selector, &pivot, &normal, false);
    }
    // The names before the first wildcard are a plain path, whose links are followed.
    let names: Vec<&str> = text.split('/').collect();
    let first = names.iter().position(|name| is_pattern(name)).unwrap_or(0);
    let plain: PathBuf = names[..first].iter().collect();
    let start = resolve(tree, &pivot.join(&plain), true)?;
    if !start.node.as_ref().is_some_and(Node::is_dir) {
        return Ok(Vec::new());
    }
    let mut matches = Vec::new();
    expand(tree, &start.path, &plain, &names[first..], selector.parents, &mut matches)?;
    let mut selected = Vec::new();
    for found in matches {
        let name = found.file_name().unwrap_or(OsStr::new(""));
        if !selector.parents && is_ignored(selector.exclude, Path::new(name)) {
            continue;
        }
        selected.extend(one(tree, selector, &pivot, &found, true)?);
    }
    Ok(selected)
}

/// Returns whether a word has wildcards or escapes, and is not just a name.
fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?', '[', '\\'])
}

/// Collects the paths (in the words' own terms) that match the remaining names.
fn expand(
    tree: &dyn Tree,
    dir: &Path,
    as_written: &Path,
    names: &[&str],
    is_deep: bool,
    found: &mut Vec<PathBuf>,
) -> Result<()> {
    let Some((&pattern, rest)) = names.split_first() else { return Ok(()) };
    let any_depth = is_deep && pattern == "**";
    if any_depth && !rest.is_empty() {
        expand(tree, dir, as_written, rest, is_deep, found)?;
    }
    for name in tree.list(dir)? {
        let Some(text) = name.to_str() else { continue };
        let is_match = any_depth
            || glob::matches(pattern, text)
                .map_err(|error| Error::Instruction(format!("{error} {pattern:?}")))?;
        if !is_match {
            continue;
        }
        let (path, written) = (dir.join(&name), as_written.join(&name));
        if rest.is_empty() {
            // Only `**` can lead to one path in two ways.
            if !is_deep || !found.contains(&written) {
                found.push(written);
            }
            continue;
        }
        if tree.lookup(&path)?.as_ref().is_some_and(Node::is_dir) {
            let next = if any_depth { names } else { rest };
            expand(tree, &path, &written, next, is_deep, found)?;
        }
    }
    Ok(())
}

/// Selects one plain path.
fn one(
    tree: &dyn Tree,
    selector: &Selector<'_>,
    pivot: &Path,
    path: &Path,
    is_match: bool,
) -> Result<Vec<Selected>> {
    let full = pivot.join(path);
    let resolved = resolve(tree, &full, true)?;
    let Some(node) = resolved.node else {
        if is_match {
            // A dangling link that a pattern happened to match.
            return Ok(Vec::new());
        }
        let ignored = tree.is_ignored(&resolved.path);
        return Err(Error::SourceMissing { path: full, ignored });
    };
    let mut below = Walked::default();
    if node.is_dir() {
        below = tree.walk(&resolved.path)?;
        if !selector.exclude.is_empty() {
            below = without_excluded(below, selector.exclude);
        }
    }
    let (name, above) = if selector.parents {
        (path.to_owned(), ancestors(tree, pivot, path)?)
    } else {
        (path.file_name().map(PathBuf::from).unwrap_or_default(), Vec::new())
    };
    let is_whole = selector.parents && !path.as_os_str().is_empty();
    Ok(vec![Selected { name, path: resolved.path, node, below, above, is_whole }])
}

/// Drops what `exclude` matches; an excluded directory stays if something below it does.
fn without_excluded(below: Walked, exclude: &Ignore) -> Walked {
    let mut next: Option<PathBuf> = None;
    below.retain_from_end(|path, node| {
        let holds_kept = || next.as_ref().is_some_and(|next| next.starts_with(path));
        let keep = !is_ignored(exclude, path) || (node.is_dir() && holds_kept());
        if keep {
            next = Some(path.to_owned());
        }
        keep
    })
}

/// Returns the directories above `path` that `--parents` recreates, topmost first.
fn ancestors(tree: &dyn Tree, pivot: &Path, path: &Path) -> Result<Vec<(PathBuf, Node)>> {
    let mut above = Vec::new();
    let parents: Vec<&Path> =
        path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        if let Some(node) = resolve(tree, &pivot.join(parent), true)?.node {
            above.push((parent.to_owned(), node));
        }
    }
    Ok(above)
}
