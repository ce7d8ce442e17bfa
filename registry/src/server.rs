//! Connections: accepted, encrypted, limited, drained.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::api::{self, Connection};
use crate::content::Registry;
use crate::metrics::{self, Metrics, Open};
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

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a server behaves.
#[derive(Debug)]
pub struct Options {
    /// How long requests in progress may take to end after the shutdown began.
    pub drain: Duration,
    /// What may change while the server runs.
    pub live: Arc<Live>,
    /// Where the numbers for Prometheus are served.
    pub metrics: Option<metrics::Listener>,
}

impl Default for Options {
    fn default() -> Self {
        // Below the ten seconds that container engines wait before they kill.
        Self { drain: Duration::from_secs(8), live: Arc::default(), metrics: None }
    }
}

/// What may change while a server runs. Requests and connections that have begun
/// keep what they began with.
#[derive(Debug, Default)]
pub struct Live {
    access: RwLock<Option<Arc<Access>>>,
    tls: RwLock<Option<Arc<rustls::ServerConfig>>>,
}

impl Live {
    /// Sets who may do what; `None` lets everybody do everything.
    pub fn set_access(&self, access: Option<Access>) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access.map(Arc::new);
    }

    /// Sets the certificate; `None` is plain HTTP.
    pub(crate) fn set_tls(&self, tls: Option<rustls::ServerConfig>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls.map(Arc::new);
    }

    fn tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What all connections share.
pub(crate) struct Shared<S> {
    pub(crate) registry: Arc<Registry<S>>,
    /// Requests that must not end with their connection.
    pub(crate) tasks: TaskTracker,
    pub(crate) is_draining: AtomicBool,
    pub(crate) metrics: Arc<Metrics>,
    live: Arc<Live>,
}

impl<S> Shared<S> {
    /// Returns who may do what at this moment.
    pub(crate) fn access(&self) -> Option<Arc<Access>> {
        self.live.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `registry` on `listener` until `shutdown` completes, then waits for
/// requests in progress, at most [`Options::drain`].
///
/// # Errors
/// When the listener's address cannot be read.
pub async fn run<S: Storage>(
    listener: TcpListener,
    registry: Arc<Registry<S>>,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "serving");
    let shared = Arc::new(Shared {
        registry,
        tasks: TaskTracker::new(),
        is_draining: AtomicBool::new(false),
        metrics: Arc::default(),
        live: options.live,
    });
    let mut helpers = JoinSet::new();
    helpers.spawn(expire(Arc::clone(&shared)));
    if let Some(metrics::Listener(listener)) = options.metrics {
        helpers.spawn(metrics::serve(listener, Arc::clone(&shared.metrics)));
    }
    let graceful = GracefulShutdown::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &free) => accepted,
        };
        let (shared, watcher) = (Arc::clone(&shared), graceful.watcher());
        tokio::spawn(async move {
            if let Err(error) = serve(stream, peer, shared, watcher).await {
                tracing::debug!(%peer, error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    drop(helpers);
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

/// Serves one connection to its end.
async fn serve<S: Storage>(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared<S>>,
    watcher: Watcher,
) -> Result<(), BoxError> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let metrics = Arc::clone(&shared.metrics);
    let _open = Open::new(&metrics.connections);
    let transfers = Arc::new(Transfers::default());
    let socket = Socket::new(stream, Arc::clone(&transfers), &metrics);
    let Some(tls) = shared.live.tls() else {
        let connection = Connection { transfers, peer, scheme: Scheme::Http };
        return speak(socket, connection, shared, watcher).await;
    };
    let accepted = TlsAcceptor::from(tls).accept(socket);
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepted).await??;
    speak(stream, Connection { transfers, peer, scheme: Scheme::Https }, shared, watcher).await
}

/// Speaks HTTP over a stream.
async fn speak<S: Storage>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
    shared: Arc<Shared<S>>,
    watcher: Watcher,
) -> Result<(), BoxError> {
    let service = service_fn(move |request: Request<Incoming>| {
        let (shared, connection) = (Arc::clone(&shared), connection.clone());
        async move { Ok::<_, std::convert::Infallible>(api::serve(shared, request, connection).await) }
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
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    watcher.watch(connection).await
}

/// Removes abandoned uploads from time to time.
async fn expire<S: Storage>(shared: Arc<Shared<S>>) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        match shared.registry.expire_uploads().await {
            Ok(0) => {}
            Ok(removed) => {
                shared.metrics.expired_uploads.inc_by(removed as u64);
                tracing::info!(removed, "abandoned uploads removed");
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot look for abandoned uploads"
            ),
        }
    }
}
