//! One blob from a registry: resumed after a drop, verified while it is written.
//!
//! ```text
//! connection ──► pieces (bounded queue) ──► a thread with an Ingest: hash, write, commit
//! ```

use bytes::Bytes;
use oci::{Descriptor, Digest, Repository};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::auth::Scope;
use super::error::{Error, Result};
use super::event::{Event, Sink, Task};
use super::hosts::Host;
use super::retry::{Failure, Patience};
use super::transport::{Call, Transport};
use crate::lease::Lease;

/// How many pieces may wait to be written. A piece is what one read of the connection gives, at
/// most a few hundred kilobytes, so this bounds the memory of a download to a few megabytes.
const PIECES_WAITING: usize = 8;

/// How many bytes go by between two events.
const EVENT_BYTES: u64 = 256 << 10;

/// What everything that travels to or from one repository has in common.
#[derive(Clone, Copy)]
pub(super) struct Journey<'a> {
    pub(super) transport: &'a Transport,
    pub(super) host: &'a Host,
    pub(super) repository: &'a Repository,
    pub(super) scope: &'a Scope,
    pub(super) lease: &'a Lease,
    pub(super) sink: &'a Sink<'a>,
}

impl Journey<'_> {
    /// Downloads a blob into the store.
    pub(super) async fn download(&self, blob: &Descriptor) -> Result<()> {
        let (digest, task) = (blob.digest, Task::Download);
        (self.sink)(Event::Started { digest, task, size: blob.size });
        let what = format!("blob {digest}");
        let mut call = self.blob_call(&digest, &what);
        call.understood =
            &[StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE];
        let patience = self.transport.patience();
        let mut download =
            Download { journey: self, blob, call, patience, received: 0, furthest: 0 };
        download.run().await?;
        (self.sink)(Event::Finished { digest, task });
        Ok(())
    }

    /// Returns the request for a blob.
    pub(super) fn blob_call<'a>(&'a self, digest: &Digest, what: &'a str) -> Call<'a> {
        Call {
            host: self.host,
            what,
            method: Method::GET,
            url: self.host.url(&format!("{}/blobs/{digest}", self.repository)),
            headers: HeaderMap::new(),
            scope: self.scope,
            understood: &[StatusCode::OK, StatusCode::PARTIAL_CONTENT],
        }
    }
}

struct Download<'a> {
    journey: &'a Journey<'a>,
    blob: &'a Descriptor,
    call: Call<'a>,
    patience: Patience,
    /// How many bytes the writer has.
    received: u64,
    /// The most it ever had: progress is what goes beyond.
    furthest: u64,
}

impl Download<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut writer = Writer::start(self.journey.lease, self.blob);
        let mut was_resumed = false;
        loop {
            match self.attempt(&mut writer).await {
                Ok(()) => match writer.commit().await {
                    Ok(()) => return Ok(()),
                    // Halves of two different things, perhaps; once more in one piece.
                    Err(crate::Error::DigestMismatch { .. }) if was_resumed => {
                        was_resumed = false;
                        self.received = 0;
                        writer = Writer::start(self.journey.lease, self.blob);
                    }
                    Err(crate::Error::DigestMismatch { actual, .. }) => {
                        let (host, what) = (self.call.host.name.clone(), self.call.what.to_owned());
                        return Err(Error::Corrupt { host, what, actual });
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(failure) => {
                    let journey = self.journey;
                    journey
                        .transport
                        .pause(&mut self.patience, failure, &self.call, journey.sink)
                        .await?;
                    was_resumed = self.received > 0;
                }
            }
        }
    }

    /// Asks for what is missing, and passes on what comes.
    async fn attempt(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        if self.received == self.blob.size && self.received > 0 {
            return Ok(());
        }
        self.call.headers.remove(RANGE);
        if self.received > 0 {
            self.call.headers.insert(RANGE, range_from(self.received));
        }
        let mut response = self.journey.transport.exchange(&self.call, None).await?;
        self.position(&response, writer).await?;
        let mut told = self.received;
        loop {
            let piece = self.journey.transport.piece(&mut response, &self.call).await?;
            let Some(piece) = piece else { break };
            self.received += piece.len() as u64;
            if self.received > self.blob.size {
                return Err(self.too_long().into());
            }
            writer.write(piece).await?;
            if self.received > self.furthest {
                self.furthest = self.received;
                self.patience.progress();
            }
            if self.received - told >= EVENT_BYTES {
                told = self.received;
                self.tell();
            }
        }
        self.tell();
        match self.received < self.blob.size {
            // It may be a proxy that cut it off, so the rest is asked for.
            true => Err(Failure::passing(self.truncated(self.received))),
            false => Ok(()),
        }
    }

    /// Makes sure that what comes continues what the writer has, or starts again.
    async fn position(&mut self, response: &Response, writer: &mut Writer) -> Result<(), Failure> {
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = content_range(response.headers());
                if let Some((_, Some(total))) = range {
                    self.check_length(total)?;
                }
                if range.map(|(start, _)| start) != Some(self.received) {
                    self.restart(writer).await?;
                    let reason = "it sends another range than was asked for".to_owned();
                    let host = self.call.host.name.clone();
                    return Err(Failure::passing(Error::Protocol { host, reason }));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let received = self.received;
                self.restart(writer).await?;
                return Err(Failure::passing(self.truncated(received)));
            }
            _ => {
                if let Some(length) = response.content_length() {
                    self.check_length(length)?;
                }
                // Ranges are optional: this is the whole blob again.
                if self.received > 0 {
                    self.restart(writer).await?;
                }
            }
        }
        Ok(())
    }

    async fn restart(&mut self, writer: &mut Writer) -> Result<(), Failure> {
        self.received = 0;
        self.tell();
        writer.restart().await
    }

    /// Compares the length that a registry announces with the descriptor's.
    fn check_length(&self, length: u64) -> Result<()> {
        match length.cmp(&self.blob.size) {
            std::cmp::Ordering::Less => Err(self.truncated(length)),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(self.too_long()),
        }
    }

    fn truncated(&self, received: u64) -> Error {
        let (digest, expected) = (self.blob.digest, self.blob.size);
        Error::Truncated { host: self.call.host.name.clone(), digest, expected, received }
    }

    fn too_long(&self) -> Error {
        let (digest, expected) = (self.blob.digest, self.blob.size);
        Error::TooLong { host: self.call.host.name.clone(), digest, expected }
    }

    fn tell(&self) {
        let (digest, done) = (self.blob.digest, self.received);
        (self.journey.sink)(Event::Progress { digest, task: Task::Download, done });
    }
}

/// Returns the header that asks for everything from an offset on.
pub(super) fn range_from(offset: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes={offset}-")).expect("digits and signs are a header")
}

/// Returns where a partial answer starts, and the length of the whole if it says so.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _end) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// A thread that writes a blob. Dropping it discards the blob.
struct Writer {
    pieces: mpsc::Sender<Piece>,
    thread: JoinHandle<crate::Result<()>>,
}

enum Piece {
    Bytes(Bytes),
    Restart,
    Commit,
}

impl Writer {
    fn start(lease: &Lease, blob: &Descriptor) -> Self {
        let (pieces, received) = mpsc::channel(PIECES_WAITING);
        let (lease, digest, size) = (lease.clone(), blob.digest, blob.size);
        let thread = tokio::task::spawn_blocking(move || write(&lease, digest, size, received));
        Self { pieces, thread }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.send(Piece::Bytes(bytes)).await
    }

    async fn restart(&mut self) -> Result<(), Failure> {
        self.send(Piece::Restart).await
    }

    async fn commit(mut self) -> crate::Result<()> {
        // If the thread has ended already, its result says why.
        let _ended = self.pieces.send(Piece::Commit).await;
        (&mut self.thread).await.expect("writing does not panic")
    }

    async fn send(&mut self, piece: Piece) -> Result<(), Failure> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        let result = (&mut self.thread).await.expect("writing does not panic");
        Err(result.expect_err("the thread ends early only for an error").into())
    }
}

fn write(
    lease: &Lease,
    digest: Digest,
    size: u64,
    mut pieces: mpsc::Receiver<Piece>,
) -> crate::Result<()> {
    use std::io::Write as _;

    use crate::error::IoContext as _;

    let start = || lease.ingest_with(digest.algorithm());
    let mut ingest = start()?;
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                ingest.write_all(&bytes).doing("write", lease.store().root().blob(&digest))?;
            }
            Piece::Restart => ingest = start()?,
            Piece::Commit => return ingest.commit(Some((digest, size))).map(drop),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let range = |text: &'static str| {
            content_range(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]))
        };
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */10"), None);
        assert_eq!(range("5-9/10"), None);
        assert_eq!(range("bytes x-9/10"), None);
        assert_eq!(content_range(&HeaderMap::new()), None);
    }
}
