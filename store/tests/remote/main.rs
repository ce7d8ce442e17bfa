//! Pull and push against registries that misbehave.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod auth;
mod copy;
mod get;
mod pull;
mod push;
mod registry;
mod server;
mod session;
mod tls;

use std::sync::Mutex;
use std::time::Duration;

use oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform};
use registry::Registry;
use store::Store;
use store::remote::{Client, ClientOptions, Event, PullOptions, Retry};

/// A store in a directory of its own.
struct Local {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Local {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        Self { _directory: directory, store }
    }

    /// Whether nothing is being written, so that nothing half-written is left.
    fn has_nothing_unfinished(&self) -> bool {
        std::fs::read_dir(self.store.root().ingest()).unwrap().count() == 0
    }
}

/// Options that lose no time.
fn options() -> ClientOptions {
    let retry = Retry {
        attempts: 4,
        first_delay: Duration::from_millis(2),
        max_delay: Duration::from_millis(10),
        max_retry_after: Duration::from_secs(3),
    };
    ClientOptions { retry, ..ClientOptions::default() }
}

fn client() -> Client {
    Client::new(options())
}

/// Pulls without unpacking: most layers here are no tars.
fn packed() -> PullOptions {
    PullOptions { platform: amd64(), unpack: false, ..PullOptions::default() }
}

fn amd64() -> Platform {
    Platform::new("linux", "amd64", None)
}

fn ignore(_: Event) {}

/// Keeps events for later.
#[derive(Default)]
struct Events(Mutex<Vec<Event>>);

impl Events {
    fn sink(&self) -> impl Fn(Event) + Send + Sync + '_ {
        |event| self.0.lock().unwrap().push(event)
    }

    fn count(&self, is_counted: impl Fn(&Event) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| is_counted(event)).count()
    }
}

/// Bytes that neither repeat nor compress.
fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut block = Digest::sha512(&[seed]);
    while bytes.len() < length {
        bytes.extend_from_slice(block.as_bytes());
        block = Digest::sha512(block.as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn config(platform: &Platform, layers: &[&[u8]]) -> ImageConfig {
    let mut config = ImageConfig::new(platform.clone());
    config.rootfs_diff_ids = layers.iter().map(|layer| DiffId(Digest::sha256(layer))).collect();
    config
}

/// Puts an image into a registry under `app:1`, whose layers are these bytes.
fn put_image(registry: &Registry, platform: &Platform, layers: &[&[u8]]) -> Descriptor {
    let config = config(platform, layers).to_bytes();
    let layers = layers.iter().map(|layer| registry.put_blob("app", layer)).collect();
    let mut config = registry.put_blob("app", &config);
    config.media_type = MediaType::OCI_CONFIG;
    let manifest = Manifest::new(config, layers).to_bytes();
    registry.put_manifest("app", "1", &MediaType::OCI_MANIFEST, &manifest)
}
