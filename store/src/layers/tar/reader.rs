//! Reads the entries of a tar, one after the other, from any stream.

use std::io::{self, BufRead};

use crate::layers::{
    entry::{Entry, Kind, Metadata, Timestamp},
    error::{LayerError, LayerResult},
    path::display,
};

pub use super::sparse::SparseSegment;
use super::{
    BLOCK_BYTES,
    header::{Field, Format, Header, text},
    pax::{Records, unsigned},
    sparse::{self, MAX_SEGMENTS},
};

/// How many entries one layer may have. The largest images people publish stay below two million;
/// each entry costs an inode.
pub const MAX_ENTRIES: u64 = 1 << 22;
/// How long one extended header may be. Go's reader has the same limit, so nothing that docker can
/// pull is longer.
pub const MAX_SPECIAL_BYTES: u64 = 1 << 20;

/// Reads the entries of a tar and, between them, their data.
///
/// Nothing is believed about the archive, and memory is bounded whatever it says. After each entry
/// its data comes from [`chunk`](Self::chunk); data that is not taken is skipped.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// Bytes taken from the stream.
    position: u64,
    /// Bytes of the current entry's data that are still in the stream, and the padding after them.
    remaining: u64,
    padding: u64,
    /// Which parts of a sparse file the data fills.
    sparse: Option<Vec<SparseSegment>>,
    entries: u64,
    finished: bool,
}

/// Where numbers of a header turn into an error that says where it was.
fn at<T>(offset: u64, field: Field<T>) -> LayerResult<T> {
    field.map_err(|reason| LayerError::Header { offset, reason })
}

impl<R: BufRead> Reader<R> {
    /// Starts to read an uncompressed tar.
    pub fn new(input: R) -> Self {
        Self {
            input,
            position: 0,
            remaining: 0,
            padding: 0,
            sparse: None,
            entries: 0,
            finished: false,
        }
    }

    /// Goes on to the next entry, or returns `None` at the end of the archive.
    ///
    /// # Errors
    ///
    /// Fails for damaged headers, for kinds of entries that a layer cannot have, when a limit is
    /// passed, and when the stream fails or ends too early.
    pub fn next_entry(&mut self) -> LayerResult<Option<Entry>> {
        self.skip(self.remaining + self.padding, "a file's data")?;
        (self.remaining, self.padding, self.sparse) = (0, 0, None);
        let mut special = Special::default();
        while let Some((offset, header)) = self.read_header()? {
            let size = at(offset, header.size())?;
            match header.typeflag() {
                // Records for all later entries: docker and containerd skip them too.
                b'g' => drop(self.read_special(size)?),
                b'x' => {
                    special.records = Records::default();
                    let data = self.read_special(size)?;
                    at(offset, special.records.parse(&data))?;
                }
                b'L' => special.path = Some(text(&self.read_special(size)?).to_vec()),
                b'K' => special.link = Some(text(&self.read_special(size)?).to_vec()),
                _ => return self.entry(offset, &header, special).map(Some),
            }
            special.any = true;
        }
        self.finished = true;
        if special.any {
            return Err(LayerError::Truncated { offset: self.position, what: "an entry" });
        }
        Ok(None)
    }

    /// Which parts of the current file its data fills, for sparse files.
    pub fn sparse(&self) -> Option<&[SparseSegment]> {
        self.sparse.as_deref()
    }

    /// Returns a part of the current entry's data, as long as the stream's buffer has it; empty at
    /// its end. What was used must be given to [`consume`](Self::consume).
    ///
    /// # Errors
    ///
    /// Fails when the stream fails or ends too early.
    pub fn chunk(&mut self) -> LayerResult<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let offset = self.position;
        let buffer = self.input.fill_buf().map_err(LayerError::Read)?;
        if buffer.is_empty() {
            return Err(LayerError::Truncated { offset, what: "a file's data" });
        }
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        Ok(&buffer[..buffer.len().min(wanted)])
    }

    /// Marks `bytes` of the last chunk as used.
    pub fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.position += bytes as u64;
        self.remaining -= bytes as u64;
    }

    /// Returns the stream, which stands behind the end marker once all entries were read.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn entry(&mut self, offset: u64, header: &Header, special: Special) -> LayerResult<Entry> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(LayerError::Limit { what: "the number of entries", limit: MAX_ENTRIES });
        }
        let Special { records, path, link, .. } = special;
        let path = records.sparse.name.clone().or(records.path.clone()).or(path);
        let path = path.unwrap_or_else(|| header.path());
        let link = records.link.clone().or(link).unwrap_or_else(|| header.link());
        let stored = records.size.map_or_else(|| at(offset, header.size()), Ok)?;
        let kind = match header.typeflag() {
            // Before POSIX, a directory was a file whose name ends in a slash.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => {
                let size = self.begin_data(offset, header, &records, stored)?;
                Kind::File { size }
            }
            b'1' => Kind::HardLink { target: link },
            b'2' if link.is_empty() => {
                let reason = "the symbolic link points nowhere";
                return Err(LayerError::Path { path: display(&path), reason });
            }
            b'2' => Kind::Symlink { target: link },
            b'3' | b'4' => {
                let (major, minor) = at(offset, header.device())?;
                match header.typeflag() {
                    b'3' => Kind::CharDevice { major, minor },
                    _ => Kind::BlockDevice { major, minor },
                }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => {
                return Err(LayerError::Unsupported { path: display(&path), kind: other.into() });
            }
        };
        let metadata = at(offset, metadata(header, records))?;
        Ok(Entry { path, kind, metadata })
    }

    /// Notes how much data follows and which parts of the file it fills; returns the file's length.
    fn begin_data(
        &mut self,
        offset: u64,
        header: &Header,
        records: &Records,
        stored: u64,
    ) -> LayerResult<u64> {
        self.remaining = stored;
        self.padding = padding(stored);
        let sparse = &records.sparse;
        let (map, size) = if header.typeflag() == b'S' {
            if header.format() != Format::Gnu {
                return at(offset, Err("it is sparse, but not in GNU's format"));
            }
            (self.read_gnu_map(offset, header)?, at(offset, header.gnu_real_size())?)
        } else if (sparse.major, sparse.minor) == (Some(1), Some(0)) {
            let size = at(offset, sparse.real_size.ok_or("its sparse size is missing"))?;
            (self.read_data_map(offset)?, size)
        } else if let Some(map) = &sparse.map {
            let size = at(offset, sparse.real_size.ok_or("its sparse size is missing"))?;
            (map.clone(), size)
        } else if sparse.major.is_some_and(|major| major > 0) {
            return at(offset, Err("its form of sparse file is unknown"));
        } else {
            return Ok(stored);
        };
        at(offset, sparse::check(&map, size, self.remaining))?;
        self.sparse = Some(map);
        Ok(size)
    }

    /// Reads the map of an old GNU sparse file, which continues in blocks before the data.
    fn read_gnu_map(&mut self, offset: u64, header: &Header) -> LayerResult<Vec<SparseSegment>> {
        let mut map = Vec::new();
        at(offset, sparse::parse_gnu(header.gnu_sparse(), &mut map))?;
        let mut continues = header.gnu_sparse_continues();
        while continues {
            let block = self.read_block("a sparse map")?;
            let before = map.len();
            at(offset, sparse::parse_gnu(&block[..504], &mut map))?;
            if map.len() == before {
                return at(offset, Err("its sparse map is damaged"));
            }
            continues = block[504] != 0;
        }
        Ok(map)
    }

    /// Reads the map of a sparse file of form 1.0, which stands at the start of the data as lines of
    /// decimal numbers, padded to whole blocks.
    fn read_data_map(&mut self, offset: u64) -> LayerResult<Vec<SparseSegment>> {
        let mut lines = Lines::default();
        let count = self.map_number(offset, &mut lines)?;
        if count > MAX_SEGMENTS as u64 {
            return at(offset, Err("its sparse map has too many parts"));
        }
        let mut map = Vec::new();
        for _ in 0..count {
            let (start, bytes) =
                (self.map_number(offset, &mut lines)?, self.map_number(offset, &mut lines)?);
            map.push(SparseSegment { offset: start, bytes });
        }
        Ok(map)
    }

    fn map_number(&mut self, offset: u64, lines: &mut Lines) -> LayerResult<u64> {
        loop {
            if let Some(line) = at(offset, lines.next_line())? {
                return at(offset, unsigned(&line));
            }
            let block_bytes = BLOCK_BYTES as u64;
            let left = self.remaining.checked_sub(block_bytes);
            self.remaining = at(offset, left.ok_or("its sparse map is longer than its data"))?;
            lines.block = Some((self.read_block("a sparse map")?, 0));
        }
    }

    fn read_header(&mut self) -> LayerResult<Option<(u64, Header)>> {
        let offset = self.position;
        // An archive may end without the two empty blocks: its digest says whether it is whole.
        if self.finished || self.input.fill_buf().map_err(LayerError::Read)?.is_empty() {
            return Ok(None);
        }
        let header = Header(self.read_block("a header")?);
        if header.is_zero() {
            if !self.input.fill_buf().map_err(LayerError::Read)?.is_empty()
                && !Header(self.read_block("the end marker")?).is_zero()
            {
                return at(offset, Err("it is empty, but the archive goes on"));
            }
            return Ok(None);
        }
        at(offset, header.verify())?;
        Ok(Some((offset, header)))
    }

    fn read_special(&mut self, size: u64) -> LayerResult<Vec<u8>> {
        if size > MAX_SPECIAL_BYTES {
            let what = "the length of an extended header";
            return Err(LayerError::Limit { what, limit: MAX_SPECIAL_BYTES });
        }
        let mut data = vec![0; usize::try_from(size).expect("the limit fits into a usize")];
        self.read_exact(&mut data, "an extended header")?;
        self.skip(padding(size), "an extended header")?;
        Ok(data)
    }

    fn read_block(&mut self, what: &'static str) -> LayerResult<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        self.read_exact(&mut block, what)?;
        Ok(block)
    }

    fn read_exact(&mut self, buffer: &mut [u8], what: &'static str) -> LayerResult<()> {
        match self.input.read_exact(buffer) {
            Ok(()) => {
                self.position += buffer.len() as u64;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(LayerError::Truncated { offset: self.position, what })
            }
            Err(error) => Err(LayerError::Read(error)),
        }
    }

    fn skip(&mut self, mut bytes: u64, what: &'static str) -> LayerResult<()> {
        while bytes > 0 {
            let available = self.input.fill_buf().map_err(LayerError::Read)?.len();
            if available == 0 {
                return Err(LayerError::Truncated { offset: self.position, what });
            }
            let step = available.min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.input.consume(step);
            self.position += step as u64;
            bytes -= step as u64;
        }
        Ok(())
    }
}

/// What headers in front of an entry say about it.
#[derive(Default)]
struct Special {
    records: Records,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    any: bool,
}

/// Lines that may run across blocks.
#[derive(Default)]
struct Lines {
    block: Option<([u8; BLOCK_BYTES], usize)>,
    partial: Vec<u8>,
}

impl Lines {
    /// Takes the next whole line, or `None` where another block is needed.
    fn next_line(&mut self) -> Field<Option<Vec<u8>>> {
        let Some((block, start)) = &mut self.block else { return Ok(None) };
        let rest = &block[*start..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        self.partial.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        // No number of 64 bits has more digits.
        if self.partial.len() > 20 {
            return Err("its sparse map is damaged");
        }
        match end {
            Some(end) => *start += end + 1,
            None => self.block = None,
        }
        Ok(end.map(|_| std::mem::take(&mut self.partial)))
    }
}

fn metadata(header: &Header, records: Records) -> Field<Metadata> {
    // The largest number means "leave it" to the system, so it is nobody's.
    let id = |value: i64| {
        u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or("its owner is no valid id")
    };
    Ok(Metadata {
        mode: header.mode()?,
        uid: id(records.uid.map_or_else(|| header.uid(), Ok)?)?,
        gid: id(records.gid.map_or_else(|| header.gid(), Ok)?)?,
        mtime: match records.mtime {
            Some(mtime) => mtime,
            None => Timestamp::from_seconds(header.mtime()?),
        },
        xattrs: records.xattrs,
    })
}

/// How many bytes fill the last block.
fn padding(size: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    (block - size % block) % block
}
