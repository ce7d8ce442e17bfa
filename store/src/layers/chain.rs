//! Chains: what a layer needs on top of the layers below it.
//!
//! A snapshot stacks directories that were unpacked on their own. For most layers that is all. Where
//! a layer's [`index`](super::index) says that something depends on what lies below, the chain gets
//! a fix-up: one more directory, directly above the layer's own, with
//!
//! - *implied directories*, with the metadata that the directory below has: otherwise a layer
//!   without an entry for `tmp` would turn its 1777 into 0755;
//! - *directories that hold whiteouts* and have no counterpart below: overlayfs filters whiteouts
//!   out of a listing only where it merges, so the fix-up is something to merge with;
//! - *files that are linked from above*, copied, so that both names are one file again.
//!
//! The root is special: what counts is the topmost directory, so a fix-up that is needed for the
//! root alone is used only while its chain is the whole snapshot.
//!
//! ```text
//! chains/sha256/<chain id>/
//! ├── fs/        the fix-up, where one is needed
//! └── lowers     the stack, from the top
//!
//! chain 1
//! boot 6f0c… (or: synced)
//! top CQm9b…            only if this chain is the whole snapshot
//! lower LdGhl…          short links, see `l/`
//! end 2
//! ```

use std::{fmt::Write as _, fs, path::Path};

use oci::{ChainId, DiffId};

use super::{
    error::LayerError,
    fixup::Fixup,
    path::split,
    place::{self, TREE, chain_link, ensure_link, layer_error, layer_link},
    stamp,
    view::MergedView,
};
use crate::{
    Lease, Store,
    durable::if_present,
    error::{Error, IoContext as _, Result},
};

const RECORD: &str = "lowers";
const FIRST_LINE: &str = "chain 1";

/// The directories of a chain as names of short links, from the top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stack {
    /// The fix-up that only the top of a snapshot needs.
    top: Option<String>,
    lowers: Vec<String>,
}

impl Stack {
    /// The stack of a snapshot whose top is this chain.
    pub(super) fn whole(&self) -> impl Iterator<Item = &str> {
        self.top.iter().chain(&self.lowers).map(String::as_str)
    }

    fn to_text(&self) -> Result<String> {
        let mut out = format!("{FIRST_LINE}\n{}\n", stamp::of_this_boot()?);
        let top = self.top.iter().map(|name| ("top", name));
        let lines = top.chain(self.lowers.iter().map(|name| ("lower", name)));
        let mut count = 0;
        for (word, name) in lines {
            writeln!(out, "{word} {name}").expect("a string takes all text");
            count += 1;
        }
        writeln!(out, "end {count}").expect("a string takes all text");
        Ok(out)
    }

    /// Reads a record; `None` if it is not whole, or from before a crash of the machine.
    fn parse(text: &str) -> Result<Option<Self>> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) || !stamp::is_valid(lines.next().unwrap_or_default())? {
            return Ok(None);
        }
        let mut stack = Self::default();
        for (count, line) in lines.enumerate() {
            match line.split_once(' ') {
                Some(("end", number)) if number == count.to_string() => return Ok(Some(stack)),
                Some(("top", name)) => stack.top = Some(name.to_owned()),
                Some(("lower", name)) => stack.lowers.push(name.to_owned()),
                _ => break,
            }
        }
        Ok(None)
    }
}

/// Returns the stack of a chain if it is recorded and everything in it is there.
///
/// The caller keeps the layers and the chain by pins.
pub(super) fn recorded(store: &Store, chain: ChainId) -> Result<Option<Stack>> {
    let Some(stack) = read(&store.root().chain(&chain.digest()))? else { return Ok(None) };
    let links = store.root().links();
    for name in stack.whole() {
        let link = links.join(name);
        if if_present(fs::metadata(&link)).doing("read", &link)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(stack))
}

/// Returns the stack of a list of layers, bottom first, making the fix-ups that are missing.
pub(super) fn prepare(lease: &Lease, diff_ids: &[DiffId]) -> Result<Stack> {
    let store = lease.store();
    for diff_id in diff_ids {
        if !lease.is_unpacked(*diff_id)? {
            return Err(Error::LayerMissing { diff_id: *diff_id });
        }
        ensure_link(store, &layer_link(*diff_id), &store.root().layer(&diff_id.0))?;
    }
    let mut stack = Stack::default();
    let mut chain: Option<ChainId> = None;
    for (position, diff_id) in diff_ids.iter().enumerate() {
        let next = chain.map_or_else(|| ChainId::base(*diff_id), |below| below.child(*diff_id));
        let is_last = position + 1 == diff_ids.len();
        stack = match recorded(store, next)? {
            Some(recorded) => recorded,
            None => add(lease, &stack, *diff_id, next, is_last)?,
        };
        chain = Some(next);
    }
    Ok(stack)
}

/// Puts a layer on a stack. What it took to find out is recorded where it may be needed again.
fn add(
    lease: &Lease,
    below: &Stack,
    diff_id: DiffId,
    chain: ChainId,
    is_last: bool,
) -> Result<Stack> {
    let store = lease.store();
    let index = place::layer_index(store, diff_id)?;
    let link = layer_link(diff_id);
    let mut stack = Stack { top: None, lowers: vec![link.clone()] };
    if !index.is_root_opaque {
        // Overlayfs refuses a directory that it has already. Of two occurrences of a layer the upper
        // one has everything the lower one could show.
        stack.lowers.extend(below.lowers.iter().filter(|name| **name != link).cloned());
    }
    let scratch = lease.scratch("chain")?;
    let made = scratch.join("chain");
    let tree = made.join(TREE);
    for directory in [&made, &tree] {
        fs::create_dir(directory).doing("create", directory)?;
    }
    let mut has_tree = false;
    if !index.is_self_contained() || index.is_root_implied() {
        let links = store.root().links();
        let lower: Vec<_> = below.whole().map(|name| links.join(name)).collect();
        let lower = MergedView::open(&lower).doing("open the layers below", &links)?;
        let own = place::layer_tree(store, diff_id);
        let own = MergedView::open(std::slice::from_ref(&own)).doing("open", &own)?;
        let mut fixup =
            Fixup::new(&tree, &index, &own, &lower).map_err(|error| layer_error(diff_id, error))?;
        fixup.fill().map_err(|error| layer_error(diff_id, error))?;
        let made = fixup.finish().map_err(|error| layer_error(diff_id, error))?;
        if made.has_entries {
            stack.lowers.insert(0, chain_link(&chain.digest()));
        } else if made.has_root {
            stack.top = Some(chain_link(&chain.digest()));
        }
        has_tree = made.has_entries || made.has_root;
    }
    if has_tree || is_last {
        if !has_tree {
            fs::remove_dir(&tree).doing("remove", &tree)?;
        }
        record(store, &made, &stack, chain, has_tree)?;
    }
    // What a race made superfluous, and the directory itself.
    lease.discard(&scratch);
    Ok(stack)
}

fn record(store: &Store, made: &Path, stack: &Stack, chain: ChainId, has_tree: bool) -> Result<()> {
    let path = made.join(RECORD);
    fs::write(&path, stack.to_text()?).doing("write", &path)?;
    let target = store.root().chain(&chain.digest());
    place::place(store, made, &target, |target| Ok(read(target)?.is_some()))?;
    if has_tree {
        ensure_link(store, &chain_link(&chain.digest()), &target)?;
    }
    Ok(())
}

fn read(directory: &Path) -> Result<Option<Stack>> {
    let path = directory.join(RECORD);
    match if_present(fs::read_to_string(&path)).doing("read", &path)? {
        Some(text) => Stack::parse(&text),
        None => Ok(None),
    }
}

/// Why a link into lower layers cannot be made.
pub(super) fn broken_link(path: &[u8], target: &[u8], reason: &'static str) -> LayerError {
    let (path, target) = (super::path::display(path), super::path::display(target));
    LayerError::Link { path, target, reason }
}

/// The directory a whiteout is in.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    split(path).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole_or_nothing() {
        let stack = Stack { top: Some("C1".into()), lowers: vec!["L1".into(), "L2".into()] };
        let text = stack.to_text().unwrap();
        assert_eq!(Stack::parse(&text).unwrap(), Some(stack));
        for cut in 0..text.len() - 1 {
            assert_eq!(Stack::parse(&text[..cut]).unwrap(), None, "accepted {cut} bytes");
        }
        let old = text.replace(stamp::of_this_boot().unwrap(), "boot 0");
        assert_eq!(Stack::parse(&old).unwrap(), None);
    }
}
