//! COPY, ADD and WORKDIR: files become a layer without going through a file system.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::{DiffId, Digest};
use store::Lease;

use super::cancel::Cancel;
use crate::copy::{
    self, Body, Content, Destination, LayerWriting, Owner, Placed, Placement, Selected, Selector,
    Unpacked, Written, select, write_layer,
};
use crate::error::{Error, IoContext as _, Result};
use crate::event::{Event, Sink};
use crate::fetch::{Checkout, Download, Fetcher, file_name, without_password};
use crate::ignore::Ignore;
use crate::key::Key;
use crate::plan::{Copy, CopySource, Workdir};
use crate::tree::{Kind, Mtime, Node, Slice, Tree};

/// What a COPY takes, found and digested.
#[derive(Debug)]
pub(super) struct Scan {
    /// What each source word selects of the step's origin; nothing for other sources.
    selections: Vec<Vec<Selected>>,
    /// What is to be fetched for each source word.
    fetched: Vec<Option<Fetched>>,
    /// Their content.
    pub(super) content: Content,
}

/// What a source word stands for that is no file of the origin.
#[derive(Debug)]
enum Fetched {
    /// A file on a web server, and its address.
    Http(Download, String),
    /// A commit.
    Git(Checkout),
}

impl Scan {
    /// Returns what the mounts of a RUN show, one selection each.
    pub(super) fn of_mounts(selections: Vec<Vec<Selected>>, content: Content) -> Self {
        Self { selections, fetched: Vec::new(), content }
    }

    /// Returns what the mount of this index shows.
    pub(super) fn selected(&self, index: usize) -> &Selected {
        &self.selections[index][0]
    }

    /// Returns one short digest per path or address, to tell which changed.
    pub(super) fn files(&self) -> Vec<(PathBuf, [u8; 8])> {
        let mut files = self.content.files(&self.selections);
        files.extend(self.fetched.iter().flatten().map(|fetched| {
            let (name, digest) = fetched.identity();
            let mut short = [0; 8];
            short.copy_from_slice(&digest.as_bytes()[..8]);
            (PathBuf::from(name), short)
        }));
        files
    }
}

impl Fetched {
    /// Returns what people call it, and the digest of what it is now.
    fn identity(&self) -> (String, Digest) {
        match self {
            Self::Http(file, url) => (without_password(url), file.digest),
            Self::Git(checkout) => (checkout.remote(), checkout.key()),
        }
    }
}

/// Finds and digests the sources of a copy in `tree`, and what is to be fetched.
///
/// # Errors
/// Fails for a missing source and when files cannot be read.
pub(super) fn scan(
    copy: &Copy,
    tree: &dyn Tree,
    fetcher: Option<&Fetcher<'_>>,
    threads: usize,
) -> Result<Scan> {
    let exclude = exclude(copy)?;
    let (mut selections, mut fetched) = (Vec::new(), Vec::new());
    for source in &copy.sources {
        let mut files = Vec::new();
        fetched.push(match source {
            CopySource::Path(word) => {
                let selector = Selector { word, parents: copy.parents, exclude: &exclude };
                files = select(tree, &selector)?;
                None
            }
            CopySource::Inline { .. } => None,
            CopySource::Http { url, checksum, .. } => {
                let file = needed(fetcher).resolve_http(url, checksum.as_ref())?;
                Some(Fetched::Http(file, url.clone()))
            }
            CopySource::Git { git, keep_git_dir } => {
                Some(Fetched::Git(needed(fetcher).resolve_git(git, *keep_git_dir)?))
            }
        });
        selections.push(files);
    }
    let mut content = copy::digest(tree, &selections, threads)?;
    if fetched.iter().any(Option::is_some) {
        let mut key = Key::new("sources");
        key.field("files", &content.digest.to_string());
        for fetched in fetched.iter().flatten() {
            if let Fetched::Http(_, url) = fetched {
                key.field("name", &file_name(url));
            }
            key.field("fetched", &fetched.identity().1.to_string());
        }
        content.digest = key.finish();
    }
    Ok(Scan { selections, fetched, content })
}

fn exclude(copy: &Copy) -> Result<Ignore> {
    Ignore::parse(&copy.exclude.join("\n"))
        .map_err(|error| Error::Instruction(format!("--exclude: {error}")))
}

fn needed<'a, 'f>(fetcher: Option<&'a Fetcher<'f>>) -> &'a Fetcher<'f> {
    fetcher.expect("only ADD fetches, and takes its files from the build context")
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
    fetcher: Option<&Fetcher<'_>>,
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
    let words = copy.sources.iter().zip(&scan.selections).zip(&scan.fetched);
    for ((word, selections), fetched) in words {
        if let CopySource::Inline { name, content } = word {
            placement.place_inline(name, content.clone().into_bytes(), &to)?;
        }
        match fetched {
            None => {}
            Some(Fetched::Http(file, url)) => {
                let content = needed(fetcher).open_http(url, file)?;
                let unpack = matches!(word, CopySource::Http { unpack: true, .. });
                http(url, unpack, file, content, &mut placement, &to, site)?;
            }
            Some(Fetched::Git(checkout)) => {
                let tree = needed(fetcher).open_git(checkout)?;
                let exclude = exclude(copy)?;
                let all = Selector { word: ".", parents: false, exclude: &exclude };
                for selected in select(&tree, &all)? {
                    placement.place(&selected, &tree, &to)?;
                }
            }
        }
        for selected in selections {
            if !(copy.unpack && unpack(selected, source, &mut placement, &to, site)?) {
                placement.place(selected, source, &to)?;
            }
        }
    }
    if scan.selections.iter().all(Vec::is_empty) && copy.parents {
        // With --parents the destination is made even if nothing matched.
        placement.directory(&to.path)?;
    }
    site.write(source, &placement.into_entries())
}

/// Places a downloaded file, or what is in it.
fn http(
    url: &str,
    unpack: bool,
    file: &Download,
    content: File,
    placement: &mut Placement<'_>,
    to: &Destination,
    site: &Site<'_>,
) -> Result<()> {
    let name = file_name(url);
    let path = Path::new(&name);
    if unpack {
        let scratch = || site.lease.scratch("archive");
        let copy = content.try_clone().doing("read", path)?;
        if let Some(archive) = Unpacked::open(copy, path, &scratch)? {
            return archive.place(placement, to);
        }
    }
    let size = content.metadata().doing("look at", path)?.len();
    let mtime = match file.last_modified {
        Some(seconds) => Mtime { seconds, nanoseconds: 0 },
        None => site.now,
    };
    let node = Node { kind: Kind::File { size }, ..Node::directory(0o600, 0, 0, mtime) };
    let slice = Slice { file: Arc::new(content), offset: 0, sparse: None };
    placement.place_file(&name, &node, Body::Slice(slice), to)
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
