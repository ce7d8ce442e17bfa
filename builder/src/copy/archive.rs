//! ADD of a local archive: decided by content, not by name.
//!
//! The archive is brought into plain tar form once (a file of its own if it was
//! compressed), its headers become placed entries, and the layer reads the contents at
//! their offsets: nothing is unpacked on disk.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use oci::Compression;

use super::place::{Body, Destination, Placement};
use crate::error::{Error, IoContext as _, Result};
use crate::tree::{Kind, Mtime, Node, Xattrs, check_name, normalize, resolve};

/// Entries of one archive; a distribution's root file system has a few 100,000.
const MAX_ENTRIES: u64 = 10_000_000;
/// What a hard link inside an archive is told by, instead of an inode's device.
const ARCHIVE_LINKS: u64 = u64::MAX;

/// How the bytes of a file are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// Not at all, as far as one can tell.
    Plain,
    /// In a way the store reads.
    Known(Compression),
    /// By a program that has to be there, as docker does it.
    Program(&'static str),
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
    /// Returns [`Error::Archive`] when the archive breaks off or its decoder is missing.
    pub fn open(file: File, path: &Path, scratch: Scratch<'_>) -> Result<Option<Self>> {
        let tar = open(file, path, scratch)?;
        Ok(tar.map(|tar| Self { tar, path: path.to_owned() }))
    }

    /// Places the entries below `to`, which becomes a directory.
    ///
    /// # Errors
    /// Returns [`Error::Archive`] for a broken archive, and what placing returns.
    pub fn place(&self, placement: &mut Placement<'_>, to: &Destination) -> Result<()> {
        place(placement, &self.tar, &self.path, to)
    }
}

fn open(file: File, path: &Path, scratch: Scratch<'_>) -> Result<Option<Arc<File>>> {
    let packing = packing(&file).doing("read", path)?;
    if packing == Packing::Plain {
        return Ok(is_tar(&file).then(|| Arc::new(file)));
    }
    // Look before unpacking all of it: `ADD data.gz` is a common copy of a plain file.
    if let Packing::Known(compression) = packing {
        let mut start = vec![0; 512];
        let reader = store::decoder(&file, compression)
            .map_err(|error| Error::Archive { path: path.to_owned(), reason: error.to_string() })?;
        let count = read_full(reader, &mut start);
        rewind(&file).doing("read", path)?;
        if !looks_like_tar(&start[..count]) {
            return Ok(None);
        }
    }
    let scratch = scratch()?;
    let mut plain = tempfile::tempfile_in(&scratch).doing("create a file in", &scratch)?;
    match packing {
        Packing::Plain => {}
        Packing::Known(compression) => {
            let failed = |reason: String| Error::Archive { path: path.to_owned(), reason };
            let mut reader =
                store::decoder(&file, compression).map_err(|error| failed(error.to_string()))?;
            std::io::copy(&mut reader, &mut plain).map_err(|error| failed(error.to_string()))?;
        }
        Packing::Program(program) => unpack_with(program, &file, &mut plain, path)?,
    }
    rewind(&plain).doing("read", path)?;
    if is_tar(&plain) { Ok(Some(Arc::new(plain))) } else { Ok(None) }
}

fn place(
    placement: &mut Placement<'_>,
    tar: &Arc<File>,
    path: &Path,
    to: &Destination,
) -> Result<()> {
    let broken = |error: &std::io::Error| Error::Archive {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let root = placement.directory(&to.path)?;
    rewind(tar).doing("read", path)?;
    let mut archive = tar::Archive::new(&**tar);
    let entries = archive.entries_with_seek().map_err(|error| broken(&error))?;
    for (number, entry) in (0..).zip(entries) {
        let mut entry = entry.map_err(|error| broken(&error))?;
        if number >= MAX_ENTRIES {
            let reason = format!("it has more than {MAX_ENTRIES} entries");
            return Err(Error::Archive { path: path.to_owned(), reason });
        }
        let name = normalize(&PathBuf::from(bytes_to_os(&entry.path_bytes())));
        let link = entry.link_name_bytes().map(|link| PathBuf::from(bytes_to_os(&link)));
        if name.as_os_str().is_empty() {
            // The archive's own root: the destination keeps its metadata.
            continue;
        }
        check_name(&name)?;
        let xattrs = xattrs(&mut entry).map_err(|error| broken(&error))?;
        let header = entry.header();
        let kind = match kind(&entry, link.as_deref()) {
            Ok(Some(kind)) => kind,
            Ok(None) => continue,
            Err(error) => return Err(broken(&error)),
        };
        let number_of = |value: std::io::Result<u64>| -> Result<u32> {
            let value = value.map_err(|error| broken(&error))?;
            u32::try_from(value).map_err(|_| Error::Archive {
                path: path.to_owned(),
                reason: format!("{} has the number {value} as owner", name.display()),
            })
        };
        let node = Node {
            kind: Kind::Directory,
            mode: header.mode().map_err(|error| broken(&error))? & 0o7777,
            uid: number_of(header.uid())?,
            gid: number_of(header.gid())?,
            mtime: Mtime {
                seconds: header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0),
                nanoseconds: 0,
            },
            xattrs,
            link: None,
            stamp: None,
        };
        let offset = entry.raw_file_position();
        let item = Item { name, kind, node, offset };
        put(placement, tar, &root, item, number)?;
    }
    Ok(())
}

/// One member of an archive on its way to its place.
struct Item {
    name: PathBuf,
    kind: Member,
    node: Node,
    offset: u64,
}

/// What a member of an archive is.
enum Member {
    /// Something with a place and content of its own.
    Own(Kind),
    /// Another name of an earlier member.
    HardLink(PathBuf),
}

fn put(
    placement: &mut Placement<'_>,
    tar: &Arc<File>,
    root: &Path,
    item: Item,
    number: u64,
) -> Result<()> {
    let Item { name, kind, mut node, offset } = item;
    let target = beneath(placement, root, &name)?;
    placement.parents_of(&target)?;
    match kind {
        Member::HardLink(other) => {
            let other = beneath(placement, root, &normalize(&other))?;
            if !placement.link(&other, &target, (ARCHIVE_LINKS, number)) {
                let reason = format!("hard link to {}, which is not in it", other.display());
                return Err(Error::Archive { path: name, reason });
            }
            Ok(())
        }
        Member::Own(Kind::Directory) => {
            // A link to a directory (`/var/run`) stays one, as users of images expect.
            let resolved = resolve(&*placement, &target, true)?;
            node.kind = Kind::Directory;
            match resolved.node {
                Some(there) if there.is_dir() => {
                    placement.parents_of(&resolved.path)?;
                    placement.put(&resolved.path, &node, Body::None, true)
                }
                _ => placement.put(&target, &node, Body::None, true),
            }
        }
        Member::Own(kind) => {
            let body = match kind {
                Kind::File { .. } => Body::Slice { file: Arc::clone(tar), offset },
                _ => Body::None,
            };
            node.kind = kind;
            placement.put(&target, &node, body, true)
        }
    }
}

/// Returns where a member's name leads, links of the directories above it followed.
fn beneath(placement: &Placement<'_>, root: &Path, name: &Path) -> Result<PathBuf> {
    let parent = name.parent().unwrap_or(Path::new(""));
    let parent = resolve(placement, &root.join(parent), true)?.path;
    Ok(parent.join(name.file_name().unwrap_or_default()))
}

/// Returns what a member is; `None` for headers that describe other members.
fn kind<R: Read>(
    entry: &tar::Entry<'_, R>,
    link: Option<&Path>,
) -> std::io::Result<Option<Member>> {
    use tar::EntryType;
    let header = entry.header();
    let device = || -> std::io::Result<(u32, u32)> {
        Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
    };
    let nowhere = || std::io::Error::other("it has a link to nowhere");
    let link = || link.map(Path::to_owned).ok_or_else(nowhere);
    let own = |kind| Ok(Some(Member::Own(kind)));
    match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => own(Kind::File { size: entry.size() }),
        EntryType::Directory => own(Kind::Directory),
        EntryType::Symlink => own(Kind::Symlink { target: link()? }),
        EntryType::Link => Ok(Some(Member::HardLink(link()?))),
        EntryType::Char => {
            device().map(|(major, minor)| Some(Member::Own(Kind::Char { major, minor })))
        }
        EntryType::Block => {
            device().map(|(major, minor)| Some(Member::Own(Kind::Block { major, minor })))
        }
        EntryType::Fifo => own(Kind::Fifo),
        EntryType::GNUSparse => Err(std::io::Error::other("it has sparse files; pack it without")),
        _ => Ok(None),
    }
}

fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> std::io::Result<Xattrs> {
    let mut found = Xattrs::new();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    for extension in extensions {
        let extension = extension?;
        if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
            found.insert(bytes_to_os(name), extension.value_bytes().to_vec());
        }
    }
    Ok(found)
}

fn bytes_to_os(bytes: &[u8]) -> std::ffi::OsString {
    std::ffi::OsString::from_vec(bytes.to_vec())
}

/// Tells how a file is packed by its first bytes.
fn packing(file: &File) -> std::io::Result<Packing> {
    let mut start = [0; 6];
    let count = read_full(file, &mut start);
    rewind(file)?;
    let start = &start[..count];
    Ok(if start.starts_with(&[0x1f, 0x8b, 8]) {
        Packing::Known(Compression::Gzip)
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Packing::Known(Compression::Zstd)
    } else if start.starts_with(b"BZh") {
        Packing::Program("bzip2")
    } else if start.starts_with(b"\xfd7zXZ\0") {
        Packing::Program("xz")
    } else {
        Packing::Plain
    })
}

/// Runs `xz -dc` or `bzip2 -dc` from `file` to `plain`.
fn unpack_with(program: &str, file: &File, plain: &mut File, path: &Path) -> Result<()> {
    let failed = |reason: String| Error::Archive { path: path.to_owned(), reason };
    let output = Command::new(program)
        .args(["-d", "-c", "-q"])
        .stdin(file.try_clone().doing("read", path)?)
        .stdout(plain.try_clone().doing("write", path)?)
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(format!("`{program}` is needed to unpack it: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("`{program}` failed: {}", text.trim())));
    }
    plain.flush().doing("write", path)
}

/// Returns whether a file starts with the header of a tar, which is then at its start again.
fn is_tar(file: &File) -> bool {
    let mut start = [0; 512];
    let count = read_full(file, &mut start);
    rewind(file).is_ok() && looks_like_tar(&start[..count])
}

/// Returns whether a block is a tar header: its checksum says so.
fn looks_like_tar(block: &[u8]) -> bool {
    let Ok(block) = <&[u8; 512]>::try_from(block) else { return false };
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, &byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(byte) })
        .sum();
    block[0] != 0 && header.cksum().is_ok_and(|expected| expected == sum)
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
