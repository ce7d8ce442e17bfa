//! Bodies of responses: bytes in memory or in a mapped file, or a stream from a
//! bucket.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use crate::storage;

/// The body of a response.
pub(crate) enum Payload {
    /// All of it.
    Whole(Full<Bytes>),
    /// What comes from elsewhere, and how many bytes are left of it.
    Stream(Pin<Box<dyn Stream<Item = storage::Result<Bytes>> + Send>>, u64),
}

impl Payload {
    /// Sends `length` bytes of a stream.
    pub(super) fn stream(
        stream: impl Stream<Item = storage::Result<Bytes>> + Send + 'static,
        length: u64,
    ) -> Self {
        Self::Stream(Box::pin(stream), length)
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Full::new(bytes))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = storage::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, storage::Error>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(cx).map_err(|never| match never {}),
            Self::Stream(stream, left) => stream.poll_next_unpin(cx).map_ok(|bytes| {
                *left = left.saturating_sub(bytes.len() as u64);
                Frame::data(bytes)
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(_, left) => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(_, left) => SizeHint::with_exact(*left),
        }
    }
}
