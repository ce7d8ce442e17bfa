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

/// What is known of selected files after they were read.
#[derive(Clone, Debug)]
pub struct Content {
    /// The digest of all of them.
    pub digest: Digest,
    /// One short digest per path, to tell which changed: path in the source and digest.
    pub files: Vec<(PathBuf, [u8; 8])>,
}

/// Digests the selections of one instruction, in the order of its words.
///
/// # Errors
/// Fails when a file cannot be read.
pub fn digest(tree: &dyn Tree, selections: &[Vec<Selected>], threads: usize) -> Result<Content> {
    let mut files: Vec<(PathBuf, &Node)> = Vec::new();
    for selected in selections.iter().flatten() {
        if matches!(selected.node.kind, Kind::File { .. }) {
            files.push((selected.path.clone(), &selected.node));
        }
        for (relative, node) in &selected.below {
            if matches!(node.kind, Kind::File { .. }) {
                files.push((selected.path.join(relative), node));
            }
        }
    }
    let contents = contents(tree, &files, threads)?;
    let mut contents = contents.into_iter();
    let mut all = oci::Hasher::new(oci::Algorithm::Sha256);
    let mut listed = Vec::with_capacity(files.len());
    let mut add = |name: &Path, path: PathBuf, node: &Node, header: bool| {
        let mut record = Vec::with_capacity(160);
        let name = name.as_os_str().as_bytes();
        record.extend_from_slice(&(name.len() as u64).to_le_bytes());
        record.extend_from_slice(name);
        if header {
            describe(&mut record, node);
        }
        if matches!(node.kind, Kind::File { .. }) {
            record.extend_from_slice(&contents.next().unwrap_or_default());
        }
        let mut short = [0; 8];
        short.copy_from_slice(&sha256(&record)[..8]);
        all.update(&record);
        listed.push((path, short));
    };
    for (word, selection) in selections.iter().enumerate() {
        for selected in selection {
            let marker = format!("{word}:");
            for (path, node) in &selected.above {
                add(path, path.clone(), node, true);
            }
            // The header of a directory whose content is copied does not reach the image.
            let header = !selected.node.is_dir() || selected.is_whole;
            let name = Path::new(&marker).join(&selected.name);
            add(&name, selected.path.clone(), &selected.node, header);
            for (relative, node) in &selected.below {
                add(relative, selected.path.join(relative), node, true);
            }
        }
    }
    Ok(Content { digest: all.finish(), files: listed })
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

/// Returns the content digests of `files` in their order.
fn contents(tree: &dyn Tree, files: &[(PathBuf, &Node)], threads: usize) -> Result<Vec<[u8; 32]>> {
    /// Files that one thread takes at a time: few enough to share out a tail of large ones.
    const CHUNK: usize = 32;
    let read = |(path, node): &(PathBuf, &Node)| tree.content_digest(path, node);
    if threads < 2 || files.len() < PARALLEL_FROM {
        return files.iter().map(read).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Vec<[u8; 32]>)>> {
        let mut done = Vec::new();
        loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            let Some(files) = files.chunks(CHUNK).nth(chunk) else { return Ok(done) };
            done.push((chunk, files.iter().map(read).collect::<Result<Vec<_>>>()?));
        }
    };
    let mut chunks = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut chunks = work()?;
        for worker in workers {
            chunks.extend(worker.join().expect("hashing does not panic")?);
        }
        Ok::<_, crate::Error>(chunks)
    })?;
    chunks.sort_unstable_by_key(|(chunk, _)| *chunk);
    Ok(chunks.into_iter().flat_map(|(_, digests)| digests).collect())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    match Digest::sha256(bytes) {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(_) => unreachable!("a SHA-256 was asked for"),
    }
}
