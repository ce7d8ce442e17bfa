//! Connections that send large blobs from the page cache, without a copy.
//!
//! hyper knows only bytes in memory. So a large blob becomes a mapping that
//! nobody ever touches, and the body is that memory. When hyper hands the
//! connection a buffer that lies in such a mapping, the connection knows which
//! file it is and asks the kernel to send it from there (`sendfile`). Where a
//! layer between copies the bytes (HTTP/2, TLS), reading the mapping gives
//! the same bytes: the shortcut can be missed, but it cannot be wrong.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use memmap2::Mmap;
use prometheus_client::metrics::counter::Counter;
use rustix::io::ReadWriteFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::metrics::Metrics;
use crate::sys;

/// Up to this size, in bytes, a blob is read rather than mapped: making and
/// removing a mapping costs about as much as copying this much.
const MAX_COPIED_BYTES: u64 = 128 << 10;

/// The most that one call sends. A connection gives way to others in between.
const SEND_BYTES: usize = 1 << 20;

/// How much of a file that is not in memory is asked for at a time.
const AHEAD_BYTES: u64 = 4 << 20;

/// How long a client may take none of what is sent to it.
const WRITE_STALL: Duration = Duration::from_secs(120);

/// A blob's file and the memory that stands for it.
struct Mapped {
    file: Arc<File>,
    map: Mmap,
}

impl Mapped {
    /// Returns where in the file `bytes` begins, if it lies in the mapping.
    fn offset_of(&self, bytes: &[u8]) -> Option<u64> {
        let begin = self.map.as_ptr().addr();
        let offset = bytes.as_ptr().addr().checked_sub(begin)?;
        (offset + bytes.len() <= self.map.len()).then_some(offset as u64)
    }
}

/// A part of a mapping, as the owner of a [`Bytes`].
struct Part {
    mapped: Arc<Mapped>,
    range: Range<usize>,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.mapped.map[self.range.clone()]
    }
}

/// The mappings whose bytes are on their way through one connection.
#[derive(Default)]
pub(crate) struct Transfers(Mutex<Vec<Weak<Mapped>>>);

impl Transfers {
    /// Returns part of a blob, whose file has `size` bytes, as a body.
    pub(crate) fn body(&self, file: &Arc<File>, size: u64, range: Range<u64>) -> io::Result<Bytes> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let length = usize::try_from(range.end - range.start).map_err(too_large)?;
        if range.end - range.start <= MAX_COPIED_BYTES {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, range.start)?;
            return Ok(bytes.into());
        }
        let size = usize::try_from(size).map_err(too_large)?;
        let map = sys::map_blob(file, size)?;
        let mapped = Arc::new(Mapped { file: Arc::clone(file), map });
        let mut known = self.lock();
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(&mapped));
        drop(known);
        let start = usize::try_from(range.start).map_err(too_large)?;
        Ok(Bytes::from_owner(Part { mapped, range: start..start + length }))
    }

    /// Returns the file that `bytes` stands for, and where in it.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<Mapped>, u64)> {
        self.lock().iter().filter_map(Weak::upgrade).find_map(|mapped| {
            let offset = mapped.offset_of(bytes)?;
            Some((mapped, offset))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Mapped>>> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// A TCP connection that recognises mapped blobs.
pub(crate) struct Socket {
    stream: TcpStream,
    transfers: Arc<Transfers>,
    /// Reads the next part of a file from the disk.
    warming: Option<JoinHandle<()>>,
    /// Ends a connection whose client takes nothing.
    stall: Pin<Box<Sleep>>,
    is_stalled: bool,
    received: Counter,
    sent: Counter,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, transfers: Arc<Transfers>, metrics: &Metrics) -> Self {
        Self {
            stream,
            transfers,
            warming: None,
            stall: Box::pin(tokio::time::sleep(WRITE_STALL)),
            is_stalled: false,
            received: metrics.received.clone(),
            sent: metrics.sent.clone(),
        }
    }

    /// Sends `length` bytes of a file, or as many as fit.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mapped: &Arc<Mapped>,
        mut offset: u64,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(warming) = &mut self.warming {
                // A failed read shows again when the bytes are sent.
                ready!(Pin::new(warming).poll(cx)).unwrap_or_default();
                self.warming = None;
            } else if is_cold(&mapped.file, offset) {
                let mapped = Arc::clone(mapped);
                let last = offset + length.min(SEND_BYTES) as u64 - 1;
                self.warming =
                    Some(tokio::task::spawn_blocking(move || warm(&mapped.file, offset, last)));
                continue;
            }
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let count = length.min(SEND_BYTES);
                Ok(rustix::fs::sendfile(&self.stream, &mapped.file, Some(&mut offset), count)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Counts what was sent, and turns a wait that lasts too long into an error.
    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(sent) = &result {
            self.is_stalled = false;
            if let Ok(sent) = sent {
                self.sent.inc_by(*sent as u64);
            }
            return result;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.stall.as_mut().reset(Instant::now() + WRITE_STALL);
        }
        ready!(self.stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Whether reading at `offset` would have to wait for the disk.
fn is_cold(file: &File, offset: u64) -> bool {
    let mut byte = [0];
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT)
        .is_err_and(|errno| errno == rustix::io::Errno::AGAIN)
}

/// Waits until what is sent next, from `first` to `last`, is in memory, and has
/// the kernel read on from there.
fn warm(file: &File, first: u64, last: u64) {
    let ahead = std::num::NonZeroU64::new(AHEAD_BYTES);
    // Only advice; and a failed read shows again when the bytes are sent.
    rustix::fs::fadvise(file, first, ahead, rustix::fs::Advice::WillNeed).unwrap_or_default();
    for offset in [first, last] {
        file.read_at(&mut [0], offset).unwrap_or_default();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.received.inc_by((buffer.filled().len() - before) as u64);
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut plain = 0;
        for buffer in buffers {
            let found = match buffer.len() > MAX_PLAIN_BUFFER {
                true => self.transfers.find(buffer),
                false => None,
            };
            match found {
                // What comes before goes first.
                Some(_) if plain > 0 => break,
                Some((mapped, offset)) => {
                    let result = self.poll_send(cx, &mapped, offset, buffer.len());
                    return self.watch(cx, result);
                }
                None => plain += 1,
            }
        }
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, &buffers[..plain]);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Buffers up to this size are written as they are: heads of responses, and the
/// last few bytes of a blob, for which looking the file up gains nothing.
const MAX_PLAIN_BUFFER: usize = 4 << 10;
