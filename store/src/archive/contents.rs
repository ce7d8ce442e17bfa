//! The files of an archive that is being loaded: each becomes a blob as it comes by.
//!
//! An archive is read once, from any stream, and nothing of it is written under a name that it
//! chose. Which of its files matter is known only at the end, since the lists may come last; what
//! does not matter is garbage that nobody refers to.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read, Write as _};

use oci::Digest;

use crate::error::{Error, IoContext as _, Result};
use crate::ingest::Committed;
use crate::layers::tar::Reader;
use crate::layers::{Kind, LayerError, decoder, detect};
use crate::lease::Lease;

/// How many files an archive may have. Docker's older form has three for each layer, so this is
/// room for thousands of images; it bounds the table of names.
const MAX_FILES: usize = 100_000;

/// How long all names together may be, in bytes, for the same reason.
const MAX_NAME_BYTES: usize = 16 * 1024 * 1024;

/// How many links may lead to each other. Docker's older form has one from a repeated layer to the
/// first.
const MAX_LINKS: usize = 4;

/// How much of the tar is read at once.
const READ_BYTES: usize = 256 * 1024;

/// The files of an archive by their normal path.
#[derive(Debug, Default)]
pub(super) struct Contents {
    files: BTreeMap<String, File>,
    name_bytes: usize,
}

#[derive(Debug)]
enum File {
    Blob(Committed),
    LinkTo(String),
}

impl Contents {
    /// Takes in everything that a tar holds.
    pub(super) fn read(lease: &Lease, input: impl Read + Send) -> Result<Self> {
        let mut tar = Reader::new(BufReader::with_capacity(READ_BYTES, uncompressed(input)?));
        let mut contents = Self::default();
        while let Some(entry) = tar.next_entry().map_err(in_archive)? {
            let path = normal(&String::from_utf8_lossy(&entry.path));
            match entry.kind {
                Kind::Directory => {}
                Kind::File { .. } if tar.sparse().is_some() => {
                    return refuse(format!("{path} is a sparse file"));
                }
                Kind::File { .. } => {
                    let blob = ingest(lease, &path, &mut tar)?;
                    contents.insert(path, File::Blob(blob))?;
                }
                Kind::HardLink { target } => {
                    let target = normal(&String::from_utf8_lossy(&target));
                    contents.insert(path, File::LinkTo(target))?;
                }
                Kind::Symlink { target } => {
                    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                    let target = String::from_utf8_lossy(&target);
                    let target = normal(&format!("{directory}/{target}"));
                    contents.insert(path, File::LinkTo(target))?;
                }
                Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                    return refuse(format!("{path} is neither a file nor a directory"));
                }
            }
        }
        Ok(contents)
    }

    /// Returns the blob that a path leads to.
    pub(super) fn get(&self, path: &str) -> Option<Committed> {
        let mut path = normal(path);
        for _ in 0..=MAX_LINKS {
            match self.files.get(&path)? {
                File::Blob(blob) => return Some(*blob),
                File::LinkTo(target) => path.clone_from(target),
            }
        }
        None
    }

    fn insert(&mut self, path: String, file: File) -> Result<()> {
        self.name_bytes += path.len();
        if let File::LinkTo(target) = &file {
            self.name_bytes += target.len();
        }
        // As when a tar is extracted, the last of several files with one name counts.
        self.files.insert(path, file);
        if self.files.len() > MAX_FILES || self.name_bytes > MAX_NAME_BYTES {
            return refuse(format!("it has more than {MAX_FILES} files, or too long names"));
        }
        Ok(())
    }
}

/// Makes a blob of the current file. One that has a digest for its name must match it.
fn ingest<R: io::BufRead>(lease: &Lease, path: &str, tar: &mut Reader<R>) -> Result<Committed> {
    let named = path.strip_prefix("blobs/").map(|name| name.replacen('/', ":", 1));
    let expected: Option<Digest> = named.and_then(|name| name.parse().ok());
    let mut ingest = match expected {
        Some(digest) => lease.ingest_with(digest.algorithm())?,
        None => lease.ingest()?,
    };
    loop {
        let chunk = tar.chunk().map_err(in_archive)?;
        if chunk.is_empty() {
            break;
        }
        ingest.write_all(chunk).doing("write", lease.store().root().ingest())?;
        let count = chunk.len();
        tar.consume(count);
    }
    let size = ingest.size();
    ingest.commit(expected.map(|digest| (digest, size)))
}

/// Undoes the compression of a whole archive, if its first bytes show one.
pub(super) fn uncompressed<'a>(
    mut input: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    input.by_ref().take(6).read_to_end(&mut start).doing("read", "the archive")?;
    let compression = match &start[..] {
        [0xfd, b'7', b'z', b'X', b'Z', 0] => return refuse("it is compressed with xz".to_owned()),
        [b'B', b'Z', b'h', ..] => return refuse("it is compressed with bzip2".to_owned()),
        start => detect(start),
    };
    decoder(Cursor::new(start).chain(input), compression).doing("read", "the archive")
}

/// Returns a path relative to the archive's root, without detours. It is a key, never opened.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn in_archive(source: LayerError) -> Error {
    match source {
        // An error of ours that only passed through the reader is itself again.
        LayerError::Read(error) => match Err::<(), _>(error).doing("read", "the archive") {
            Err(error) => error,
            Ok(()) => unreachable!("an error stays one"),
        },
        source => Error::ArchiveTar { source: Box::new(source) },
    }
}

/// Says why an archive cannot be used.
pub(super) fn refuse<T>(reason: String) -> Result<T> {
    Err(Error::Archive { reason })
}

#[cfg(test)]
mod tests {
    use super::normal;

    #[test]
    fn paths_are_keys_and_cannot_leave_the_archive() {
        for (path, expected) in [
            ("index.json", "index.json"),
            ("./index.json", "index.json"),
            ("/index.json", "index.json"),
            ("abc/../def/layer.tar", "def/layer.tar"),
            ("abc/../../def/layer.tar", "def/layer.tar"),
            ("../../../etc/passwd", "etc/passwd"),
            ("blobs//sha256/./x", "blobs/sha256/x"),
            ("", ""),
        ] {
            assert_eq!(normal(path), expected);
        }
    }
}
