//! Tar as layers use it: a bounded reader and a deterministic writer.
//!
//! Both are pure: they know streams, not disks. The reader understands what image tools have
//! written over the years (v7, ustar, PAX, GNU and star headers, four kinds of sparse files); the
//! writer knows one form, ustar with PAX records where a value does not fit.
//!
//! # Invariants
//!
//! - No count or length from a header is believed before it was compared with a named limit.
//! - The size of an entry's data is decided in one place: the PAX record where there is one, else
//!   the header that carries the data. A reader that mixes the two can be made to see entries
//!   inside a file's content that other readers do not see.

mod check;
mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use check::{Contents, check};
pub use reader::{MAX_ENTRIES, MAX_SPECIAL_BYTES, Reader, SparseSegment};
pub use writer::Writer;

/// The unit of a tar: headers take one, data is padded to a whole number of them.
pub(crate) const BLOCK_BYTES: usize = 512;
