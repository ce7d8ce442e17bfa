//! A registry on a free port with its own directory, and what clients do to it.

pub(crate) mod process;
pub(crate) mod servers;

use std::path::Path;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use oci::{Algorithm, Digest};
use registry::access::Access;
use registry::config::Config;
use registry::content::{Options, Registry};
use registry::server::{self, Live};
use registry::storage::{Local, Storage};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A registry that serves until it is dropped.
pub(crate) struct Server {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) client: reqwest::Client,
    pub(crate) dir: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
}

#[expect(clippy::disallowed_methods, reason = "the tests' clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Chooses who encrypts, as the program does when it starts.
pub(crate) fn install_crypto() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
    });
}

pub(crate) fn client() -> reqwest::Client {
    install_crypto();
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap()
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::on(Arc::new(tempfile::tempdir().unwrap()), options).await
    }

    /// Another process (as far as storage can tell) on the same directory.
    pub(crate) async fn another(&self) -> Self {
        Self::on(Arc::clone(&self.dir), Options::default()).await
    }

    pub(crate) async fn on(dir: Arc<TempDir>, options: Options) -> Self {
        let storage = Local::open(&dir.path().join("root")).unwrap();
        Self::over(storage, dir, options, now).await
    }

    /// One that heeds a configuration file in its directory.
    pub(crate) async fn configured(dir: TempDir, text: &str, options: Options) -> Self {
        let storage = Local::open(&dir.path().join("root")).unwrap();
        let config = Config::parse(text).unwrap();
        let access = Access::load(&config.access.unwrap(), dir.path(), &[7; 32]).unwrap();
        let live = Live::default();
        live.set_access(Some(access));
        let registry = Registry::new(storage, options, now).unwrap();
        let options = server::Options { live: Arc::new(live), ..server::Options::default() };
        Self::serve(registry, Arc::new(dir), options).await
    }

    pub(crate) async fn over(
        storage: impl Storage,
        dir: Arc<TempDir>,
        options: Options,
        clock: registry::content::Clock,
    ) -> Self {
        let registry = Registry::new(storage, options, clock).unwrap();
        Self::serve(registry, dir, server::Options::default()).await
    }

    async fn serve(
        registry: Registry<impl Storage>,
        dir: Arc<TempDir>,
        options: server::Options,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server::run(listener, Arc::new(registry), options, async {
            stopped.await.unwrap_or_default();
        }));
        Self { address, client: client(), dir, stop: Some(stop), task: Some(task) }
    }

    /// Stops the server as SIGTERM does, and waits for it.
    pub(crate) async fn stop(mut self) -> Arc<TempDir> {
        self.stop.take().unwrap().send(()).unwrap();
        self.task.take().unwrap().await.unwrap().unwrap();
        Arc::clone(&self.dir)
    }

    pub(crate) fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        match path.starts_with("http://") {
            true => path.to_owned(),
            false => format!("http://{}{path}", self.address),
        }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn head(&self, path: &str) -> Response {
        self.request(Method::HEAD, path).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.request(Method::DELETE, path).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> Response {
        self.request(Method::POST, path).send().await.unwrap()
    }

    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status().as_u16()
    }

    /// Begins an upload and returns its location.
    pub(crate) async fn begin(&self, repository: &str) -> String {
        let response = self.post(&format!("/v2/{repository}/blobs/uploads/")).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        header(&response, LOCATION.as_str())
    }

    pub(crate) async fn patch(&self, location: &str, range: Option<&str>, body: &[u8]) -> Response {
        let mut request = self.request(Method::PATCH, location).body(body.to_vec());
        if let Some(range) = range {
            request = request.header("Content-Range", range);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn put(&self, location: &str, digest: &str, body: &[u8]) -> Response {
        self.request(Method::PUT, &with_query(location, &format!("digest={digest}")))
            .body(body.to_vec())
            .send()
            .await
            .unwrap()
    }

    /// Pushes a blob with POST and PUT.
    pub(crate) async fn push(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let location = self.begin(repository).await;
        let response = self.put(&location, &digest.to_string(), bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
        digest
    }

    pub(crate) async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        body: &[u8],
    ) -> Response {
        self.request(Method::PUT, &format!("/v2/{repository}/manifests/{reference}"))
            .header(CONTENT_TYPE, media_type)
            .body(body.to_vec())
            .send()
            .await
            .unwrap()
    }

    /// Pushes a manifest (its type is in the document) and returns its digest.
    pub(crate) async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        manifest: &Value,
    ) -> Digest {
        let body = manifest.to_string().into_bytes();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let response = self.put_manifest(repository, reference, media_type, &body).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
        Digest::sha256(&body)
    }

    /// Pushes an image of one layer that differs by `seed`.
    pub(crate) async fn push_image(&self, repository: &str, reference: &str, seed: &str) -> Digest {
        let manifest = self.image(repository, seed).await;
        self.push_manifest(repository, reference, &manifest).await
    }

    /// Pushes config and layer of an image and returns the manifest.
    pub(crate) async fn image(&self, repository: &str, seed: &str) -> Value {
        let config = format!(r#"{{"seed":"{seed}"}}"#);
        let layer = format!("layer {seed}");
        self.push(repository, config.as_bytes()).await;
        self.push(repository, layer.as_bytes()).await;
        manifest(config.as_bytes(), layer.as_bytes())
    }

    pub(crate) async fn tags(&self, repository: &str) -> Vec<String> {
        let body: Value =
            self.get(&format!("/v2/{repository}/tags/list")).await.json().await.unwrap();
        serde_json::from_value(body["tags"].clone()).unwrap()
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": media_type,
        "digest": Digest::sha256(bytes),
        "size": bytes.len(),
    })
}

pub(crate) fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, layer)],
    })
}

pub(crate) fn index(manifests: &[&Value]) -> Value {
    let manifests: Vec<Value> = manifests
        .iter()
        .map(|manifest| {
            descriptor(manifest["mediaType"].as_str().unwrap(), manifest.to_string().as_bytes())
        })
        .collect();
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests })
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    header_of(response.headers(), name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()))
}

pub(crate) fn header_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// Appends a parameter to a location that may have some.
pub(crate) fn with_query(location: &str, query: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{query}")
}

/// Asserts status and code of an error, and the form of its body.
#[track_caller]
pub(crate) fn assert_error(status: StatusCode, body: &Value, expected: (u16, &str)) {
    let codes: Vec<&str> = body["errors"]
        .as_array()
        .unwrap_or_else(|| panic!("no errors in {body}"))
        .iter()
        .map(|error| error["code"].as_str().unwrap())
        .collect();
    assert_eq!(
        (status.as_u16(), codes.as_slice()),
        (expected.0, [expected.1].as_slice()),
        "{body}"
    );
    assert!(body["errors"][0]["message"].as_str().is_some_and(|message| !message.is_empty()));
}

pub(crate) async fn expect_error(response: Response, expected: (u16, &str)) {
    let status = response.status();
    assert_eq!(header(&response, "content-type"), "application/json");
    let body: Value = response.json().await.unwrap();
    assert_error(status, &body, expected);
}

/// Bytes that do not repeat.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}

/// Checks that every blob below `root` is what its name says, and counts them.
pub(crate) fn verify_blobs(root: &Path) -> usize {
    let mut count = 0;
    for algorithm in ["sha256", "sha512"] {
        let Ok(shards) = root.join("blob").join(algorithm).read_dir() else { continue };
        for shard in shards {
            for blob in shard.unwrap().path().read_dir().unwrap() {
                let blob = blob.unwrap();
                let Ok(bytes) = std::fs::read(blob.path().join("data")) else { continue };
                let digest = Digest::of(algorithm.parse().unwrap(), &bytes);
                assert_eq!(
                    digest.hex(),
                    blob.file_name().to_str().unwrap(),
                    "a blob is not its name"
                );
                count += 1;
            }
        }
    }
    count
}
