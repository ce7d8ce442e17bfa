//! Bodies of requests.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};

/// How long a client may send nothing in the middle of a body.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of a refused body is read so that the client sees the answer. A
/// manifest that is too large is still drained; a layer is not.
const MAX_DRAINED_BYTES: usize = 32 << 20;

/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request as a stream that fails when the client goes silent.
pub(super) struct Body {
    incoming: Incoming,
    idle: Pin<Box<Sleep>>,
}

impl Body {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self { incoming, idle: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)) }
    }

    /// Reads the whole body, or returns `None` if it is longer than `limit`.
    pub(super) async fn read(&mut self, limit: usize) -> Result<Option<Bytes>, BoxError> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.next().await {
            let chunk = chunk?;
            if bytes.len() + chunk.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.freeze()))
    }

    /// Reads and drops what is left, within limits.
    pub(super) async fn drain(&mut self) {
        let drained = async {
            let mut bytes = 0;
            while let Some(Ok(chunk)) = self.next().await {
                bytes += chunk.len();
                if bytes > MAX_DRAINED_BYTES {
                    break;
                }
            }
        };
        // A body that is not drained in time costs the client its connection.
        tokio::time::timeout(DRAIN_TIMEOUT, drained).await.unwrap_or_default();
    }
}

impl Stream for Body {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                    // Trailers say nothing that we need.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    return match self.idle.as_mut().poll(cx) {
                        Poll::Ready(()) => {
                            let silent = "the client sent nothing for too long";
                            Poll::Ready(Some(Err(silent.into())))
                        }
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }
}
