//! Connections: accepted, limited, drained.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::content::Registry;
use crate::socket::{Socket, Transfers};
use crate::storage::Storage;

/// How many connections are served at once; others wait to be accepted. Each may
/// hold [`READ_BUFFER_BYTES`], most hold a fraction.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take to send the head of a request, or to send another
/// request on an open connection. Go's clients give up idle connections after 90
/// seconds; closing later than they do means never closing while they send.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// The most that one connection has read and not yet handled, in bytes; limits
/// heads of requests as well. 256 uploads at once stay below 16 MiB.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// How many header fields a request may have.
const MAX_HEADERS: usize = 64;

/// How many requests an HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 64;

/// How long to wait before accepting again when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often abandoned uploads are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long requests in progress may take to end after the shutdown began.
    pub drain: Duration,
    /// Whether each request leaves a line in the log.
    pub access_log: bool,
}

impl Default for Options {
    fn default() -> Self {
        // Below the ten seconds that container engines wait before they kill.
        Self { drain: Duration::from_secs(8), access_log: true }
    }
}

/// What all connections share.
pub(crate) struct Shared<S> {
    pub(crate) registry: Registry<S>,
    /// Requests that must not end with their connection.
    pub(crate) tasks: TaskTracker,
    pub(crate) is_draining: AtomicBool,
    pub(crate) options: Options,
}

/// Serves `registry` on `listener` until `shutdown` completes, then waits for
/// requests in progress, at most [`Options::drain`].
///
/// # Errors
/// When the listener's address cannot be read.
pub async fn run<S: Storage>(
    listener: TcpListener,
    registry: Registry<S>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "serving");
    let shared = Arc::new(Shared {
        registry,
        tasks: TaskTracker::new(),
        is_draining: AtomicBool::new(false),
        options,
    });
    let expiry = tokio::spawn(expire(Arc::clone(&shared)));
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &free) => accepted,
        };
        let connection = serve(stream, peer, Arc::clone(&shared));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%peer, error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    expiry.abort();
    shared.is_draining.store(true, Ordering::Relaxed);
    shared.tasks.close();
    tracing::info!(connections = graceful.count(), "stopping");
    let drained = async {
        graceful.shutdown().await;
        shared.tasks.wait().await;
    };
    match tokio::time::timeout(options.drain, drained).await {
        Ok(()) => tracing::info!("stopped"),
        Err(_) => tracing::warn!("stopped before all requests had ended"),
    }
    Ok(())
}

/// Accepts a connection when there is room for one.
async fn accept(
    listener: &TcpListener,
    free: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit) {
    let place = Arc::clone(free).acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns the connection as a future that serves it.
fn serve<S: Storage>(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared<S>>,
) -> impl hyper_util::server::graceful::GracefulConnection<
    Error = Box<dyn std::error::Error + Send + Sync>,
> + Send {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let transfers = Arc::new(Transfers::default());
    let socket = Socket::new(stream, Arc::clone(&transfers));
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, transfers) = (Arc::clone(&shared), Arc::clone(&transfers));
        async move {
            Ok::<_, std::convert::Infallible>(api::serve(shared, request, transfers, peer).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(READ_BUFFER_BYTES)
        .max_headers(MAX_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .adaptive_window(true);
    builder.serve_connection(TokioIo::new(socket), service).into_owned()
}

/// Removes abandoned uploads from time to time.
async fn expire<S: Storage>(shared: Arc<Shared<S>>) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        match shared.registry.expire_uploads().await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "abandoned uploads removed"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot look for abandoned uploads"
            ),
        }
    }
}
