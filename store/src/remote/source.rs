//! Where the bytes of an upload come from: the store, or another registry, without a stop on disk.

use std::io::{Error as IoError, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::stream;
use oci::{Descriptor, Digest};
use reqwest::header::RANGE;
use reqwest::{Body, Response, StatusCode};

use super::download::{Journey, content_range, range_from};
use super::error::{Error, Result, innermost};
use super::retry::Failure;
use crate::blobs::Blob;
use crate::lease::Lease;

/// How much of a file is read at once.
const READ_BYTES: usize = 256 << 10;

/// Where the bytes of a blob are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// In the store.
    Store(&'a Lease),
    /// In a repository. They are hashed by whoever receives them: a registry accepts no blob that
    /// is not what its digest says.
    Registry(Journey<'a>),
}

impl Source<'_> {
    /// Reads a small blob into memory, and verifies it.
    pub(super) async fn read(&self, blob: &Descriptor) -> Result<Bytes, Failure> {
        let journey = match self {
            Self::Store(lease) => {
                return Ok(Bytes::from(lease.store().blobs().read(&blob.digest, blob.size)?));
            }
            Self::Registry(journey) => journey,
        };
        let what = format!("blob {}", blob.digest);
        let call = journey.blob_call(&blob.digest, &what);
        let mut response = journey.transport.exchange(&call, None).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = journey.transport.piece(&mut response, &call).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > blob.size {
                let (host, digest) = (journey.host.name.clone(), blob.digest);
                return Err(Error::TooLong { host, digest, expected: blob.size }.into());
            }
        }
        let actual = Digest::of(blob.digest.algorithm(), &bytes);
        if actual != blob.digest {
            return Err(Error::Corrupt { host: journey.host.name.clone(), what, actual }.into());
        }
        Ok(Bytes::from(bytes))
    }

    /// Returns the rest of a blob as the body of a request that counts what was taken.
    pub(super) async fn body(
        &self,
        blob: &Descriptor,
        offset: u64,
        sent: Arc<AtomicU64>,
    ) -> Result<Body, Failure> {
        match self {
            Self::Store(lease) => {
                let mut file = lease.store().blobs().open(&blob.digest)?;
                let path = || lease.store().root().blob(&blob.digest);
                crate::error::IoContext::doing(file.seek(SeekFrom::Start(offset)), "read", path())?;
                Ok(file_body(file, sent))
            }
            Self::Registry(journey) => {
                let (response, unwanted) = open(journey, blob, offset).await?;
                let timeout = journey.transport.hosts.options().timeout;
                let (host, left) = (journey.host.name.clone(), blob.size - offset);
                Ok(relayed_body(Relay { response, host, timeout, unwanted, left, sent }))
            }
        }
    }
}

/// Asks a registry for a blob, from an offset on; returns how many bytes come that were not asked for
/// as well.
async fn open(
    journey: &Journey<'_>,
    blob: &Descriptor,
    offset: u64,
) -> Result<(Response, u64), Failure> {
    let what = format!("blob {}", blob.digest);
    let mut call = journey.blob_call(&blob.digest, &what);
    if offset > 0 {
        call.headers.insert(RANGE, range_from(offset));
    }
    let response = journey.transport.exchange(&call, None).await?;
    if response.status() != StatusCode::PARTIAL_CONTENT {
        // Ranges are optional: this is the whole blob again.
        return Ok((response, offset));
    }
    if content_range(response.headers()).map(|(start, _)| start) != Some(offset) {
        let reason = "it sends another range than was asked for".to_owned();
        return Err(Error::Protocol { host: journey.host.name.clone(), reason }.into());
    }
    Ok((response, 0))
}

/// Returns the rest of a file as the body of a request, counting what was taken.
fn file_body(file: Blob, sent: Arc<AtomicU64>) -> Body {
    Body::wrap_stream(stream::try_unfold((file, sent), |(mut file, sent)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = BytesMut::zeroed(READ_BYTES);
            let count = file.read(&mut bytes)?;
            bytes.truncate(count);
            std::io::Result::Ok((bytes.freeze(), file))
        });
        let (bytes, file) = read.await.expect("reading a file does not panic")?;
        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        std::io::Result::Ok((!bytes.is_empty()).then_some((bytes, (file, sent))))
    }))
}

/// Returns what one registry sends as the body of a request to another.
///
/// Its errors end the upload, which is resumed on both sides: they say whose they are.
fn relayed_body(relay: Relay) -> Body {
    Body::wrap_stream(stream::try_unfold(relay, |mut relay| async move {
        Ok::<_, IoError>(relay.next().await?.map(|piece| (piece, relay)))
    }))
}

/// A blob on its way from one registry to another.
struct Relay {
    response: Response,
    host: String,
    timeout: Duration,
    /// How many bytes are to be left out.
    unwanted: u64,
    /// How many bytes are still to come after these.
    left: u64,
    sent: Arc<AtomicU64>,
}

impl Relay {
    /// Returns the next bytes, or `None` at the end of the blob.
    async fn next(&mut self) -> Result<Option<Bytes>, IoError> {
        let failed = |reason: String| Err(IoError::other(format!("{} {reason}", self.host)));
        loop {
            let mut piece = match tokio::time::timeout(self.timeout, self.response.chunk()).await {
                Ok(Ok(Some(piece))) => piece,
                Ok(Ok(None)) if self.left == 0 => return Ok(None),
                Ok(Ok(None)) => return failed(format!("stops {} bytes early", self.left)),
                Ok(Err(error)) => return failed(format!("stops sending: {}", innermost(&error))),
                Err(_) => return failed("stops sending".to_owned()),
            };
            let unwanted = usize::try_from(self.unwanted).unwrap_or(usize::MAX).min(piece.len());
            piece.advance(unwanted);
            self.unwanted -= unwanted as u64;
            if piece.is_empty() {
                continue;
            }
            let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                return failed("sends more than the blob has".to_owned());
            };
            self.left = left;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            return Ok(Some(piece));
        }
    }
}
