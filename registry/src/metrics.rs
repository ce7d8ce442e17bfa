//! What the registry counts, in Prometheus' text format (OpenMetrics 1.0).
//!
//! The numbers are served on a listener of their own: they say who uses what, and
//! the registry's own port may be open to all.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What OpenMetrics calls its text format.
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// How many connections may ask for the numbers at once.
const MAX_CONNECTIONS: usize = 16;

/// How long a client may take to ask.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// All counters of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<MethodLabels, Histogram, fn() -> Histogram>,
    pub(crate) connections: Gauge,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) expired_uploads: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 100 µs, a manifest, to 14 minutes, a large layer on a slow line.
        let durations = Family::new_with_constructor(
            (|| Histogram::new(exponential_buckets(0.0001, 2.5, 18))) as fn() -> Histogram,
        );
        let mut metrics = Self {
            registry: Registry::with_prefix("rregistry"),
            requests: Family::default(),
            durations,
            connections: Gauge::default(),
            received: Counter::default(),
            sent: Counter::default(),
            expired_uploads: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time until the head of the answer was ready",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register(
            "http_connections",
            "Connections that are open",
            self.connections.clone(),
        );
        registry.register_with_unit(
            "http_received",
            "Bytes received from clients",
            Unit::Bytes,
            self.received.clone(),
        );
        registry.register_with_unit(
            "http_sent",
            "Bytes sent to clients",
            Unit::Bytes,
            self.sent.clone(),
        );
        registry.register(
            "expired_uploads",
            "Abandoned uploads removed",
            self.expired_uploads.clone(),
        );
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
    }

    /// Counts a request that was answered after `duration`.
    pub(crate) fn count_request(&self, method: &Method, status: StatusCode, duration: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            // Anybody can make up methods; each label costs memory for ever.
            _ => "other",
        };
        self.requests.get_or_create(&RequestLabels { method, status: status.as_u16() }).inc();
        self.durations.get_or_create(&MethodLabels { method }).observe(duration.as_secs_f64());
    }

    /// Returns all numbers as text.
    fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        process(&mut text)?;
        prometheus_client::encoding::text::encode_eof(&mut text)?;
        Ok(text)
    }
}

/// Writes what Prometheus' own clients say of a process.
fn process(text: &mut String) -> std::fmt::Result {
    let Some((resident, descriptors)) = usage() else { return Ok(()) };
    writeln!(text, "# HELP process_resident_memory_bytes Memory that is resident.")?;
    writeln!(text, "# TYPE process_resident_memory_bytes gauge")?;
    writeln!(text, "process_resident_memory_bytes {resident}")?;
    writeln!(text, "# HELP process_open_fds Descriptors that are open.")?;
    writeln!(text, "# TYPE process_open_fds gauge")?;
    writeln!(text, "process_open_fds {descriptors}")
}

/// Returns resident bytes and the number of open descriptors.
fn usage() -> Option<(u64, usize)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some((kibibytes << 10, descriptors))
}

/// Answers `GET /metrics` on `listener` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let metrics = Arc::clone(&metrics);
                async move { Ok::<_, std::convert::Infallible>(answer(&request, &metrics)) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%peer, %error, "connection for metrics ended");
            }
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    match (request.method().as_str(), request.uri().path(), metrics.encode()) {
        ("GET" | "HEAD", "/metrics", Ok(text)) => {
            answer.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
            *answer.body_mut() = Full::from(text);
        }
        ("GET" | "HEAD", "/metrics", Err(_)) => {
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        _ => {
            *answer.status_mut() = StatusCode::NOT_FOUND;
            *answer.body_mut() = Full::from("the numbers are at /metrics\n");
        }
    }
    answer
}

/// Counts a connection for as long as it lives.
pub(crate) struct Open<'a>(&'a Gauge);

impl<'a> Open<'a> {
    pub(crate) fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Where the numbers are served.
#[derive(Debug)]
pub struct Listener(pub(crate) TcpListener);

impl Listener {
    /// Listens on an address.
    ///
    /// # Errors
    /// When it is taken or not ours.
    pub async fn bind(address: &str) -> std::io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Returns the address.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_the_text_format() {
        let metrics = Metrics::default();
        metrics.count_request(&Method::GET, StatusCode::OK, Duration::from_millis(2));
        metrics.count_request(&Method::GET, StatusCode::OK, Duration::from_millis(2));
        let made_up = Method::from_bytes(b"BREW").unwrap();
        metrics.count_request(&made_up, StatusCode::METHOD_NOT_ALLOWED, Duration::ZERO);
        metrics.sent.inc_by(7);
        let text = metrics.encode().unwrap();
        for line in [
            "rregistry_http_requests_total{method=\"GET\",status=\"200\"} 2",
            "rregistry_http_requests_total{method=\"other\",status=\"405\"} 1",
            "rregistry_http_request_duration_seconds_count{method=\"GET\"} 2",
            "rregistry_http_sent_bytes_total 7",
            "rregistry_http_connections 0",
            concat!("rregistry_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        assert!(text.contains("\nprocess_open_fds "));
        assert!(text.ends_with("# EOF\n"));
    }
}
