//! ADD of a local archive: decided by content, not by name.
//!
//! The archive is brought into plain tar form once (a file of its own if it was
//! compressed), its headers become placed entries, and the layer reads the contents at
//! their offsets: nothing is unpacked on disk.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::Compression;
use store::layers::{Entry, Kind as LayerKind, Metadata};

use super::members::members;
use super::place::{Body, Destination, Placement};
use crate::context::TarTree;
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Mtime, Node, Slice, check_name, normalize, resolve};

/// What a hard link inside an archive is told by, instead of an inode's device.
const ARCHIVE_LINKS: u64 = u64::MAX;

/// The largest archive, unpacked: above any real one, below what a few bytes can come to.
const MAX_UNPACKED_BYTES: u64 = 64 << 30;
/// The most memory that a decoder of xz may use: `xz -9` needs a quarter of it.
const MAX_XZ_KIB: u32 = 256 << 10;
/// How much is unpacked between two looks at the limits.
const BUFFER_BYTES: usize = 256 * 1024;

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// Not at all, as far as one can tell.
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Makes a directory for the unpacked archive, when one is needed.
type Scratch<'a> = &'a dyn Fn() -> Result<PathBuf, store::Error>;

/// An archive in plain tar form.
#[derive(Debug)]
pub struct Unpacked {
    tar: Arc<File>,
    path: PathBuf,
}

impl Unpacked {
    /// Returns the tar inside `file`, or `None` when it is no archive.
    ///
    /// A compressed archive is unpacked into a file in the directory that `scratch` makes.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] when the archive breaks off, or is a bomb.
    pub fn open(file: File, path: &Path, scratch: Scratch<'_>) -> Result<Option<Self>> {
        let tar = open(file, path, scratch)?;
        Ok(tar.map(|tar| Self { tar, path: path.to_owned() }))
    }

    /// Returns the files in it as a tree.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] for a broken archive.
    pub fn into_tree(self) -> Result<TarTree> {
        TarTree::read(&self.tar, &self.path)
    }

    /// Places the entries below `to`, which becomes a directory.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] for a broken archive, and what placing returns.
    pub fn place(&self, placement: &mut Placement<'_>, to: &Destination) -> Result<()> {
        placement.without_chmod(|placement| place(placement, &self.tar, &self.path, to))
    }
}

fn open(file: File, path: &Path, scratch: Scratch<'_>) -> Result<Option<Arc<File>>> {
    let packing = packing(&file).doing("read", path)?;
    if packing == Packing::Plain {
        return Ok(is_tar(&file).then(|| Arc::new(file)));
    }
    let failed = |reason: String| Error::Archive { path: path.to_owned(), reason };
    // Look before unpacking all of it: `ADD data.gz` is a common copy of a plain file.
    let mut start = Vec::new();
    let reader = decoder(&file, packing).map_err(|error| failed(error.to_string()))?;
    match reader.take(512).read_to_end(&mut start) {
        // What cannot be read may be anything, but this is more than we want to read.
        Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
            return Err(failed(format!("it takes more than {MAX_XZ_KIB} KiB of memory to unpack")));
        }
        Ok(_) | Err(_) => {}
    }
    rewind(&file).doing("read", path)?;
    if !looks_like_tar(&start) {
        return Ok(None);
    }
    let scratch = scratch()?;
    let mut plain = tempfile::tempfile_in(&scratch).doing("create a file in", &scratch)?;
    let mut reader = decoder(&file, packing).map_err(|error| failed(error.to_string()))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        let count = reader.read(&mut buffer).map_err(|error| failed(error.to_string()))?;
        if count == 0 {
            break;
        }
        length += count as u64;
        if length > MAX_UNPACKED_BYTES {
            return Err(failed(format!("it holds more than {MAX_UNPACKED_BYTES} bytes")));
        }
        plain.write_all(&buffer[..count]).doing("write a file in", &scratch)?;
    }
    rewind(&plain).doing("read", path)?;
    Ok(Some(Arc::new(plain)))
}

/// Returns a reader of what a file holds unpacked.
fn decoder<'a>(file: &'a File, packing: Packing) -> std::io::Result<Box<dyn Read + 'a>> {
    let input = std::io::BufReader::with_capacity(BUFFER_BYTES, file);
    Ok(match packing {
        Packing::Plain => Box::new(input),
        Packing::Gzip => store::decoder(file, Compression::Gzip)?,
        Packing::Zstd => store::decoder(file, Compression::Zstd)?,
        Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, MAX_XZ_KIB)),
    })
}

fn place(
    placement: &mut Placement<'_>,
    tar: &Arc<File>,
    path: &Path,
    to: &Destination,
) -> Result<()> {
    let root = placement.directory(&to.path)?;
    let mut number = 0;
    members(tar, path, &mut |entry, offset, sparse| {
        number += 1;
        let name = normalize(&path_of(&entry.path));
        if name.as_os_str().is_empty() {
            // The archive's own root: the destination keeps its metadata.
            return Ok(());
        }
        check_name(&name)?;
        let content = Body::Slice(Slice { file: Arc::clone(tar), offset, sparse });
        put(placement, &root, &name, entry, content, number)
    })
}

/// Places one member of an archive; `content` is where its data is.
fn put(
    placement: &mut Placement<'_>,
    root: &Path,
    name: &Path,
    entry: Entry,
    content: Body,
    number: u64,
) -> Result<()> {
    let target = beneath(placement, root, name)?;
    placement.parents_of(&target)?;
    let kind = match entry.kind {
        LayerKind::HardLink { target: other } => {
            let other = beneath(placement, root, &normalize(&path_of(&other)))?;
            if !placement.link(&other, &target, (ARCHIVE_LINKS, number)) {
                let reason = format!("hard link to {}, which is not in it", other.display());
                return Err(Error::Archive { path: name.to_owned(), reason });
            }
            return Ok(());
        }
        LayerKind::Directory => Kind::Directory,
        LayerKind::File { size } => Kind::File { size },
        LayerKind::Symlink { target } => Kind::Symlink { target: path_of(&target) },
        LayerKind::CharDevice { major, minor } => Kind::Char { major, minor },
        LayerKind::BlockDevice { major, minor } => Kind::Block { major, minor },
        LayerKind::Fifo => Kind::Fifo,
    };
    let Metadata { mode, uid, gid, mtime, xattrs } = entry.metadata;
    let node = Node {
        kind,
        mode,
        uid,
        gid,
        mtime: Mtime { seconds: mtime.seconds, nanoseconds: mtime.nanos },
        xattrs: xattrs.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect(),
        link: None,
        stamp: None,
    };
    let is_file = matches!(node.kind, Kind::File { .. });
    placement.put_member(&target, &node, if is_file { content } else { Body::None })
}

/// Returns where a member's name leads, links of the directories above it followed.
fn beneath(placement: &Placement<'_>, root: &Path, name: &Path) -> Result<PathBuf> {
    let parent = name.parent().unwrap_or(Path::new(""));
    let parent = resolve(placement, &root.join(parent), true)?.path;
    Ok(parent.join(name.file_name().unwrap_or_default()))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Tells how a file is packed by its first bytes.
fn packing(file: &File) -> std::io::Result<Packing> {
    let mut start = [0; 6];
    let count = read_full(file, &mut start);
    rewind(file)?;
    let start = &start[..count];
    Ok(match start {
        [0x1f, 0x8b, 8, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
        [b'B', b'Z', b'h', ..] => Packing::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Packing::Xz,
        _ => Packing::Plain,
    })
}

/// Returns whether a file starts with the header of a tar, which is then at its start again.
fn is_tar(file: &File) -> bool {
    let mut start = [0; 512];
    let count = read_full(file, &mut start);
    rewind(file).is_ok() && looks_like_tar(&start[..count])
}

/// Returns whether a block is a tar header: its checksum says so.
fn looks_like_tar(block: &[u8]) -> bool {
    /// Where a header keeps its checksum, which counts as blanks in itself.
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() != 512 || block[0] == 0 {
        return false;
    }
    let digits = block[CHECKSUM].iter().filter(|byte| byte.is_ascii_digit());
    let expected = digits.fold(0, |sum: u32, digit| sum.wrapping_mul(8) + u32::from(digit - b'0'));
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| u32::from(if CHECKSUM.contains(&at) { b' ' } else { byte }))
        .sum();
    sum == expected
}

/// Reads until the buffer is full or the input ends (or fails, which the caller sees later).
fn read_full(mut reader: impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) | Err(_) => break,
            Ok(count) => filled += count,
        }
    }
    filled
}

fn rewind(mut file: &File) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0)).map(drop)
}
