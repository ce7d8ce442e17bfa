//! The content digest of selected files: what a COPY's key knows of its sources.
//!
//! Names, types, permissions, owners, link targets and content count. Times and inode
//! numbers do not: `touch` is a hit, `chmod` is a miss (as in BuildKit's contenthash).

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use oci::Digest;

use super::select::Selected;
use crate::error::Result;
use crate::tree::{Kind, Node, Tree};

/// From this many files on, several threads read.
const PARALLEL_FROM: usize = 64;

/// How many bytes of records are digested at once.
const RECORDS_BYTES: usize = 64 * 1024;

/// What is known of selected files after they were read.
#[derive(Clone, Debug)]
pub struct Content {
    /// The digest of all of them.
    pub digest: Digest,
    /// The digest of each regular file's content, in their order.
    contents: Vec<[u8; 32]>,
}

impl Content {
    /// Joins what is known of selections that were read one by one, from several trees.
    #[must_use]
    pub fn joined(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = oci::Hasher::new(oci::Algorithm::Sha256);
        let mut contents = Vec::new();
        for part in parts {
            all.update(part.digest.to_string().as_bytes());
            contents.extend(part.contents);
        }
        Self { digest: all.finish(), contents }
    }

    /// Returns one short digest per path of the same selections, to tell which changed: path in
    /// the source and digest.
    #[must_use]
    pub fn files(&self, selections: &[Vec<Selected>]) -> Vec<(PathBuf, [u8; 8])> {
        let mut listed = Vec::new();
        let mut record = Vec::with_capacity(256);
        let mut contents = self.contents.iter();
        each(selections, |entry| {
            record.clear();
            entry.record(&mut record, &mut contents);
            let mut short = [0; 8];
            short.copy_from_slice(&sha256(&record)[..8]);
            listed.push((entry.path(), short));
        });
        listed
    }
}

/// Digests the selections of one instruction, in the order of its words.
///
/// # Errors
/// Fails when a file cannot be read.
pub fn digest(tree: &dyn Tree, selections: &[Vec<Selected>], threads: usize) -> Result<Content> {
    let contents = contents(tree, selections, threads)?;
    let mut all = oci::Hasher::new(oci::Algorithm::Sha256);
    let mut records = Vec::with_capacity(RECORDS_BYTES + 4096);
    let mut known = contents.iter();
    each(selections, |entry| {
        entry.record(&mut records, &mut known);
        if records.len() >= RECORDS_BYTES {
            all.update(&records);
            records.clear();
        }
    });
    all.update(&records);
    Ok(Content { digest: all.finish(), contents })
}

/// One path of a selection.
struct Entry<'a> {
    /// What the digest calls it.
    name: &'a Path,
    node: &'a Node,
    /// Whether its metadata counts.
    header: bool,
    /// Where it is in the source: a path and what comes below it.
    place: (&'a Path, &'a Path),
}

impl Entry<'_> {
    /// Appends what the digest says of it; takes the content's digest from `contents`.
    fn record<'c>(&self, record: &mut Vec<u8>, contents: &mut impl Iterator<Item = &'c [u8; 32]>) {
        let name = self.name.as_os_str().as_bytes();
        record.extend_from_slice(&(name.len() as u64).to_le_bytes());
        record.extend_from_slice(name);
        if self.header {
            describe(record, self.node);
        }
        if matches!(self.node.kind, Kind::File { .. }) {
            record.extend_from_slice(contents.next().unwrap_or(&[0; 32]));
        }
    }

    fn path(&self) -> PathBuf {
        let (path, below) = self.place;
        if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
    }
}

/// Goes through all paths of the selections in the order of the digest.
fn each<'a>(selections: &'a [Vec<Selected>], mut visit: impl FnMut(&Entry<'_>)) {
    let here = Path::new("");
    for (word, selection) in selections.iter().enumerate() {
        for selected in selection {
            for (path, node) in &selected.above {
                visit(&Entry { name: path, node, header: true, place: (path, here) });
            }
            // The header of a directory whose content is copied does not reach the image.
            let header = !selected.node.is_dir() || selected.is_whole;
            let name = Path::new(&format!("{word}:")).join(&selected.name);
            let place = (selected.path.as_path(), here);
            visit(&Entry { name: &name, node: &selected.node, header, place });
            for (relative, node) in selected.below.iter() {
                let place: (&'a Path, &'a Path) = (&selected.path, relative);
                visit(&Entry { name: relative, node, header: true, place });
            }
        }
    }
}

/// Appends everything about a file that reaches the image, but its content and times.
fn describe(record: &mut Vec<u8>, node: &Node) {
    let (letter, number, target) = match &node.kind {
        Kind::File { size } => (b'f', *size, None),
        Kind::Directory => (b'd', 0, None),
        Kind::Symlink { target } => (b'l', 0, Some(target)),
        Kind::Char { major, minor } => (b'c', u64::from(*major) << 32 | u64::from(*minor), None),
        Kind::Block { major, minor } => (b'b', u64::from(*major) << 32 | u64::from(*minor), None),
        Kind::Fifo => (b'p', 0, None),
        Kind::Socket => (b's', 0, None),
    };
    record.push(letter);
    record.extend_from_slice(&number.to_le_bytes());
    for value in [node.mode, node.uid, node.gid] {
        record.extend_from_slice(&value.to_le_bytes());
    }
    if let Some(target) = target {
        record.extend_from_slice(target.as_os_str().as_bytes());
    }
    for (name, value) in &node.xattrs {
        record.push(0);
        record.extend_from_slice(name.as_bytes());
        record.push(0);
        record.extend_from_slice(value);
    }
    record.push(0);
}

/// Returns the content digests of all regular files in their order.
///
/// What the tree remembers is taken; the rest is read, by several threads.
fn contents(
    tree: &dyn Tree,
    selections: &[Vec<Selected>],
    threads: usize,
) -> Result<Vec<[u8; 32]>> {
    let mut contents = Vec::new();
    let mut missing: Vec<(usize, PathBuf, &Node)> = Vec::new();
    let mut add = |node, path: &dyn Fn() -> PathBuf| {
        let known = tree.known_digest(node);
        if known.is_none() {
            missing.push((contents.len(), path(), node));
        }
        contents.push(known.unwrap_or_default());
    };
    // Only directories can be above a path, so that these are all.
    for selected in selections.iter().flatten() {
        if matches!(selected.node.kind, Kind::File { .. }) {
            add(&selected.node, &|| selected.path.clone());
        }
        for (relative, node) in selected.below.iter() {
            if matches!(node.kind, Kind::File { .. }) {
                add(node, &|| selected.path.join(relative));
            }
        }
    }
    for (place, digest) in read(tree, &missing, threads)? {
        contents[place] = digest;
    }
    Ok(contents)
}

/// Reads files and returns the digest of each with its place.
fn read(
    tree: &dyn Tree,
    files: &[(usize, PathBuf, &Node)],
    threads: usize,
) -> Result<Vec<(usize, [u8; 32])>> {
    /// Files that one thread takes at a time: few enough to share out a tail of large ones.
    const CHUNK: usize = 32;
    let read = |(place, path, node): &(usize, PathBuf, &Node)| {
        tree.content_digest(path, node).map(|digest| (*place, digest))
    };
    if threads < 2 || files.len() < PARALLEL_FROM {
        return files.iter().map(read).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, [u8; 32])>> {
        let mut done = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(files) = files.chunks(CHUNK).nth(chunk) else { return Ok(done) };
            for file in files {
                done.push(read(file)?);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work()?;
        for worker in workers {
            done.extend(worker.join().expect("hashing does not panic")?);
        }
        Ok(done)
    })
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    match Digest::sha256(bytes) {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(_) => unreachable!("a SHA-256 was asked for"),
    }
}
