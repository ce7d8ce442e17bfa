//! The members of a tar and where in it their contents are.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::rc::Rc;

use store::layers::tar::{Reader, SparseSegment};
use store::layers::{Entry, LayerError};

use crate::error::{Error, IoContext as _, Result};

/// How much of an archive is read at once.
const INPUT_BYTES: usize = 256 * 1024;

/// Takes a member, where its content begins, and which parts of the file that is.
type Visit<'a> = &'a mut dyn FnMut(Entry, u64, Option<Vec<SparseSegment>>) -> Result<()>;

/// Visits every member of a plain tar, in its order; `path` is for messages.
///
/// # Errors
/// Returns [`Error::Archive`] for a broken archive, and what `visit` returns.
pub fn members(mut tar: &File, path: &Path, visit: Visit<'_>) -> Result<()> {
    let broken =
        |error: LayerError| Error::Archive { path: path.to_owned(), reason: error.to_string() };
    tar.seek(SeekFrom::Start(0)).doing("read", path)?;
    let position = Rc::new(Cell::new(0));
    let input = BufReader::with_capacity(INPUT_BYTES, tar);
    let mut reader = Reader::new(Counting { input, position: Rc::clone(&position) });
    while let Some(entry) = reader.next_entry().map_err(broken)? {
        visit(entry, position.get(), reader.sparse().map(<[_]>::to_vec))?;
    }
    Ok(())
}

/// Knows how far it has been read: where in the archive the data of a member begins.
struct Counting<R> {
    input: R,
    position: Rc<Cell<u64>>,
}

impl<R: BufRead> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counting<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.position.set(self.position.get() + amount as u64);
    }
}
