//! Writes a tar: the same entries give the same bytes, on every machine.

use std::io::{self, Write};

use crate::layers::entry::{Entry, Kind, Metadata};

use super::{
    BLOCK_BYTES,
    pax::{XATTR_PREFIX, push_record},
};

const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
/// The largest number that seven octal digits hold.
const MAX_SHORT: u64 = 0o7_777_777;
/// The largest number that eleven octal digits hold.
const MAX_LONG: u64 = 0o77_777_777_777;

/// Writes entries as ustar headers, with PAX records only for what does not fit there.
///
/// That is the form containerd and Go's `archive/tar` write: no names of users, no access times,
/// times in whole seconds, two empty blocks at the end.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    /// Data of the current file that has still to come, and the padding after it.
    remaining: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Starts a tar.
    pub fn new(output: W) -> Self {
        Self { output, remaining: 0, padding: 0 }
    }

    /// Writes the headers of an entry. The path is written as it is: relative, and with a slash at
    /// the end for a directory. For a file, exactly `size` bytes of [`data`](Self::data) must follow.
    ///
    /// # Errors
    ///
    /// Fails when the output does, and when the file before got less data than it said.
    pub fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_data()?;
        let Entry { path, kind, metadata } = entry;
        let records = records(path, kind, metadata);
        if !records.is_empty() {
            let name = pax_name(path);
            let size = records.len() as u64;
            let header =
                Fields { path: &name, typeflag: b'x', size, mode: 0o644, ..Fields::default() };
            self.output.write_all(&header.block())?;
            self.output.write_all(&records)?;
            self.output.write_all(&ZEROS[..padding(size)])?;
        }
        self.output.write_all(&Fields::of(path, kind, metadata).block())?;
        if let Kind::File { size } = kind {
            self.remaining = *size;
            self.padding = padding(*size);
        }
        Ok(())
    }

    /// Writes a part of the current file.
    ///
    /// # Errors
    ///
    /// Fails when the output does, and for more data than the entry announced: the file grew.
    pub fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let left = self.remaining.checked_sub(data.len() as u64);
        self.remaining = left.ok_or_else(|| io::Error::other("the file grew while it was read"))?;
        self.output.write_all(data)
    }

    /// Ends the archive and returns the output.
    ///
    /// # Errors
    ///
    /// Fails when the output does, and when the last file got less data than it said.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_data()?;
        self.output.write_all(&ZEROS)?;
        self.output.write_all(&ZEROS)?;
        Ok(self.output)
    }

    fn end_data(&mut self) -> io::Result<()> {
        if self.remaining != 0 {
            return Err(io::Error::other("the file shrank while it was read"));
        }
        self.output.write_all(&ZEROS[..std::mem::take(&mut self.padding)])
    }
}

/// The records for what a ustar header cannot hold, in the order of their keys.
fn records(path: &[u8], kind: &Kind, metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in &metadata.xattrs {
        push_record(&mut out, &[XATTR_PREFIX, name].concat(), value);
    }
    if u64::from(metadata.gid) > MAX_SHORT {
        push_record(&mut out, b"gid", metadata.gid.to_string().as_bytes());
    }
    if let Kind::Symlink { target } | Kind::HardLink { target } = kind
        && !fits(target)
    {
        push_record(&mut out, b"linkpath", target);
    }
    if long(metadata.mtime.seconds).is_none() {
        push_record(&mut out, b"mtime", metadata.mtime.seconds.to_string().as_bytes());
    }
    if !fits(path) {
        push_record(&mut out, b"path", path);
    }
    if let Kind::File { size } = kind
        && *size > MAX_LONG
    {
        push_record(&mut out, b"size", size.to_string().as_bytes());
    }
    if u64::from(metadata.uid) > MAX_SHORT {
        push_record(&mut out, b"uid", metadata.uid.to_string().as_bytes());
    }
    out
}

/// Whether a path can stand in the header: short, and of characters that every reader agrees on.
fn fits(path: &[u8]) -> bool {
    path.len() <= 100 && path.is_ascii()
}

/// What eleven octal digits hold of a time.
fn long(seconds: i64) -> Option<u64> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_LONG)
}

/// The name of the header that carries the records; readers ignore it.
fn pax_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (parent, name) = crate::layers::path::split(path);
    crate::layers::path::join(&crate::layers::path::join(parent, b"PaxHeaders.0"), name)
}

/// The fields of a header; numbers that do not fit are left zero, for a record has them.
#[derive(Default)]
struct Fields<'a> {
    path: &'a [u8],
    link: &'a [u8],
    typeflag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: u64,
    major: u32,
    minor: u32,
}

impl<'a> Fields<'a> {
    fn of(path: &'a [u8], kind: &'a Kind, metadata: &Metadata) -> Self {
        let short = |id: u32| Some(u64::from(id)).filter(|id| *id <= MAX_SHORT).unwrap_or(0);
        let fields = Self {
            path,
            mode: metadata.mode,
            uid: short(metadata.uid),
            gid: short(metadata.gid),
            mtime: long(metadata.mtime.seconds).unwrap_or(0),
            ..Self::default()
        };
        match kind {
            Kind::File { size } => {
                let size = if *size > MAX_LONG { 0 } else { *size };
                Self { typeflag: b'0', size, ..fields }
            }
            Kind::HardLink { target } => Self { typeflag: b'1', link: target, ..fields },
            Kind::Symlink { target } => Self { typeflag: b'2', link: target, ..fields },
            Kind::CharDevice { major, minor } => {
                Self { typeflag: b'3', major: *major, minor: *minor, ..fields }
            }
            Kind::BlockDevice { major, minor } => {
                Self { typeflag: b'4', major: *major, minor: *minor, ..fields }
            }
            Kind::Directory => Self { typeflag: b'5', ..fields },
            Kind::Fifo => Self { typeflag: b'6', ..fields },
        }
    }

    fn block(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        put_text(&mut block[..100], self.path);
        put_number(&mut block[100..108], self.mode.into());
        put_number(&mut block[108..116], self.uid);
        put_number(&mut block[116..124], self.gid);
        put_number(&mut block[124..136], self.size);
        put_number(&mut block[136..148], self.mtime);
        block[156] = self.typeflag;
        put_text(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        put_number(&mut block[329..337], self.major.into());
        put_number(&mut block[337..345], self.minor.into());
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        put_number(&mut block[148..155], sum);
        block
    }
}

/// Writes the ASCII part of a text, as much as fits; a record has the whole where that is less.
fn put_text(field: &mut [u8], text: &[u8]) {
    for (byte, character) in field.iter_mut().zip(text.iter().filter(|byte| byte.is_ascii())) {
        *byte = *character;
    }
}

/// Writes octal digits that fill the field up to its final NUL.
fn put_number(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK_BYTES as u64).expect("less than a block");
    (BLOCK_BYTES - over) % BLOCK_BYTES
}

#[cfg(test)]
mod tests;
