//! COPY, ADD and WORKDIR: files become a layer without going through a file system.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci::{DiffId, Digest};
use store::Lease;

use super::cancel::Cancel;
use crate::copy::{
    self, Content, Destination, LayerWriting, Owner, Placed, Placement, Selected, Selector,
    Unpacked, Written, select, write_layer,
};
use crate::error::{Error, Result};
use crate::event::{Event, Sink};
use crate::ignore::Ignore;
use crate::key::Key;
use crate::plan::{Copy, CopySource, Workdir};
use crate::tree::{Mtime, Tree};

/// What a COPY takes, found and digested.
#[derive(Debug)]
pub(super) struct Scan {
    /// What each source word selects; none for heredocs.
    pub(super) selections: Vec<Vec<Selected>>,
    /// Their content.
    pub(super) content: Content,
}

/// Finds and digests the sources of a copy in `tree`.
///
/// # Errors
/// Fails for a missing source and when files cannot be read.
pub(super) fn scan(copy: &Copy, tree: &dyn Tree, threads: usize) -> Result<Scan> {
    let exclude = Ignore::parse(&copy.exclude.join("\n"))
        .map_err(|error| Error::Instruction(format!("--exclude: {error}")))?;
    let mut selections = Vec::new();
    for source in &copy.sources {
        selections.push(match source {
            CopySource::Path(word) => {
                select(tree, &Selector { word, parents: copy.parents, exclude: &exclude })?
            }
            CopySource::Inline { .. } => Vec::new(),
        });
    }
    let content = copy::digest(tree, &selections, threads)?;
    Ok(Scan { selections, content })
}

/// Returns the key under which the content of a copy's sources is remembered for a stack
/// of layers, which never changes: files of stages and images are read once.
pub(super) fn content_key(copy: &Copy, layers: &[DiffId]) -> Digest {
    let mut key = Key::new("content");
    key.field("layers", &crate::key::state(layers));
    for source in &copy.sources {
        if let CopySource::Path(word) = source {
            key.field("source", word);
        }
    }
    key.field("parents", &copy.parents.to_string());
    key.list("exclude", copy.exclude.iter().map(String::as_str));
    key.finish()
}

/// What the executors of file steps need besides the step.
pub(super) struct Site<'a> {
    pub(super) lease: &'a Lease,
    /// The layers below.
    pub(super) base: &'a dyn Tree,
    pub(super) now: Mtime,
    pub(super) clamp: Option<i64>,
    /// The number of the step in events.
    pub(super) step: usize,
    pub(super) events: Sink<'a>,
    pub(super) cancel: &'a Cancel,
}

impl Site<'_> {
    fn write(&self, source: &dyn Tree, entries: &BTreeMap<PathBuf, Placed>) -> Result<Written> {
        let how = LayerWriting { clamp: self.clamp, check: &|| self.cancel.check() };
        write_layer(self.lease, source, entries, &how)
    }
}

/// Writes the layer of a COPY or ADD.
///
/// # Errors
/// Fails when types clash at the destination, or a file cannot be read or stored.
pub(super) fn execute(
    copy: &Copy,
    scan: &Scan,
    source: &dyn Tree,
    site: &Site<'_>,
) -> Result<Written> {
    let owner = match &copy.chown {
        Some(text) => {
            let (owner, unknown) = Owner::parse(text, site.base)?;
            for name in unknown {
                let message = format!("--chown={text}: the image has no {name}, 0 is used");
                (site.events)(Event::Warning { step: Some(site.step), message });
            }
            Some(owner)
        }
        None => None,
    };
    let to = Destination::new(&copy.destination);
    let mut placement = Placement::new(site.base, owner, copy.chmod.clone(), site.now);
    for (word, selections) in copy.sources.iter().zip(&scan.selections) {
        if let CopySource::Inline { name, content } = word {
            placement.place_inline(name, content.clone().into_bytes(), &to)?;
        }
        for selected in selections {
            if copy.unpack && unpack(selected, source, &mut placement, &to, site)? {
                continue;
            }
            placement.place(selected, &to)?;
        }
    }
    if scan.selections.iter().all(Vec::is_empty) && copy.parents {
        // With --parents the destination is made even if nothing matched.
        placement.directory(&to.path)?;
    }
    site.write(source, &placement.into_entries())
}

/// Unpacks a selected file if it is an archive; returns whether it was one.
fn unpack(
    selected: &Selected,
    source: &dyn Tree,
    placement: &mut Placement<'_>,
    to: &Destination,
    site: &Site<'_>,
) -> Result<bool> {
    if !matches!(selected.node.kind, crate::tree::Kind::File { .. }) {
        return Ok(false);
    }
    let file = source.open(&selected.path)?;
    let scratch = || site.lease.scratch("archive");
    match Unpacked::open(file, &selected.path, &scratch)? {
        Some(archive) => {
            archive.place(placement, to)?;
            Ok(true)
        }
        None => Ok(false),
    }
}

/// Writes the layer of a WORKDIR: the directories that are missing, possibly none.
///
/// # Errors
/// Fails when a file is in the way.
pub(super) fn workdir(workdir: &Workdir, site: &Site<'_>) -> Result<Written> {
    let owner = if workdir.user.is_empty() {
        Owner::default()
    } else {
        Owner::parse(&workdir.user, site.base)?.0
    };
    let mut placement = Placement::new(site.base, Some(owner), None, site.now);
    placement.directory(&PathBuf::from(workdir.path.trim_start_matches('/')))?;
    let mut entries = placement.into_entries();
    if entries.values().all(|placed| !placed.is_fresh()) {
        // Everything is there: the layer is empty, but it is one.
        entries.clear();
    }
    site.write(&crate::tree::Empty, &entries)
}
