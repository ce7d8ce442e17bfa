//! Other people's servers: S3 stores, each with an empty bucket of its own, and nginx.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use registry::storage::{Bucket, Promises, Redirect, UploadId};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// s3s-fs makes one file name of bucket and key, which may be 167 bytes together: ours are short.
const BUCKET: &str = "bkt";
/// Keys as garage wants them; the others take any.
const KEY: &str = "GK0123456789abcdef01234567";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const REGION: &str = "garage";

/// A program that listens on a port, and ends with the value.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// Its files, if it has some.
    _files: Option<TempDir>,
}

impl Server {
    async fn start(mut program: Command, port: u16, files: Option<TempDir>) -> Self {
        let child = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error}"));
        let server = Self { child, address: format!("127.0.0.1:{port}"), _files: files };
        let begun = Instant::now();
        while TcpStream::connect(&server.address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{program:?} does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server
    }

    /// nginx, which takes everything to one of `upstreams`, with these settings for it.
    pub(crate) async fn nginx(upstreams: &[&str], settings: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let dir = files.path().display();
        let port = free_port();
        let upstreams: String = upstreams
            .iter()
            .map(|address| format!("server {address} max_fails=1 fail_timeout=1s; "))
            .collect();
        let config = format!(
            "daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1;
             events {{}}
             http {{
                 access_log off; client_max_body_size 0;
                 client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
                 scgi_temp_path {dir}; uwsgi_temp_path {dir};
                 upstream servers {{ {upstreams} }}
                 server {{
                     listen 127.0.0.1:{port};
                     proxy_http_version 1.1;
                     proxy_request_buffering off;
                     location / {{ proxy_pass http://servers; {settings} }}
                 }}
             }}"
        );
        let file = files.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut program = Command::new("nginx");
        program.arg("-c").arg(file);
        Self::start(program, port, Some(files)).await
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked, not killed: children of the program end with it.
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap_or_default();
        self.child.wait().unwrap();
    }
}

/// A store with an empty bucket.
pub(crate) struct Store {
    /// The one to talk to, and whatever stands behind it.
    servers: Vec<Server>,
    heeds_conditions: bool,
}

impl Store {
    /// moto, which does what conditional writes ask for.
    pub(crate) async fn moto() -> Self {
        let port = free_port();
        let mut program = Command::new(installed().join("moto-5.2.1/bin/moto_server"));
        program.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let server = Server::start(program, port, None).await;
        let bucket = format!("http://{}/{BUCKET}", server.address);
        assert_eq!(crate::support::client().put(bucket).send().await.unwrap().status(), 200);
        Self { servers: vec![server], heeds_conditions: true }
    }

    /// s3s-fs, which looks at conditions first and writes then: of two writers at once, both may
    /// be told that they were first.
    pub(crate) async fn s3s_fs() -> Self {
        let port = free_port();
        let objects = tempfile::tempdir().unwrap();
        std::fs::create_dir(objects.path().join(BUCKET)).unwrap();
        let mut program = Command::new(installed().join("s3s-fs-0.14.1/bin/s3s-fs"));
        program.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        program.args(["--access-key", KEY, "--secret-key", SECRET]).arg(objects.path());
        let server = Server::start(program, port, Some(objects)).await;
        Self { servers: vec![server], heeds_conditions: true }
    }

    /// One that ignores conditions, as many do: nothing that moto receives has any.
    pub(crate) async fn heedless() -> Self {
        let Self { mut servers, .. } = Self::moto().await;
        let settings = "proxy_set_header If-None-Match ''; proxy_set_header If-Match '';
                        proxy_set_header Host $http_host;";
        servers.insert(0, Server::nginx(&[servers[0].address()], settings).await);
        Self { servers, heeds_conditions: false }
    }

    /// Three nodes of garage, which keep everything three times and ignore conditions.
    pub(crate) async fn garage() -> Self {
        let program = installed().join("garage-2.5.0/bin/garage");
        let files = tempfile::tempdir().unwrap();
        let run = |node: usize, words: &[&str]| {
            let config = files.path().join(format!("{node}.toml"));
            let output = Command::new(&program).arg("-c").arg(config).args(words).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "garage {words:?}: {errors}");
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let mut servers = Vec::new();
        let mut ids = Vec::new();
        for node in 0..3 {
            let (rpc, api) = (free_port(), free_port());
            let dir = files.path().join(node.to_string()).display().to_string();
            let config = format!(
                "metadata_dir = '{dir}/meta'\ndata_dir = '{dir}/data'\ndb_engine = 'sqlite'\n\
                 replication_factor = 3\nrpc_secret = '{SECRET}'\n\
                 rpc_bind_addr = '127.0.0.1:{rpc}'\nrpc_public_addr = '127.0.0.1:{rpc}'\n\
                 [s3_api]\ns3_region = '{REGION}'\napi_bind_addr = '127.0.0.1:{api}'\n"
            );
            let file = files.path().join(format!("{node}.toml"));
            std::fs::write(&file, config).unwrap();
            let mut server = Command::new(&program);
            server.arg("-c").arg(file).arg("server");
            servers.push(Server::start(server, api, None).await);
            ids.push(run(node, &["node", "id", "-q"]));
        }
        for id in &ids[1..] {
            run(0, &["node", "connect", id]);
        }
        for id in &ids {
            let id = id.split('@').next().unwrap();
            run(0, &["layout", "assign", "-z", "here", "-c", "10G", id]);
        }
        run(0, &["layout", "apply", "--version", "1"]);
        run(0, &["key", "import", "--yes", KEY, SECRET]);
        run(0, &["bucket", "create", BUCKET]);
        run(0, &["bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", KEY]);
        servers[0]._files = Some(files);
        Self { servers, heeds_conditions: false }
    }

    /// What a registry should find out about it.
    pub(crate) fn promises(&self) -> Promises {
        let heeds = self.heeds_conditions;
        Promises { put_if_absent: heeds, put_if_unchanged: heeds }
    }

    /// The variables by which programs find it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT", format!("http://{}", self.servers[0].address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    pub(crate) fn url(prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// A replica's view of the bucket, below `prefix`.
    pub(crate) async fn bucket(&self, prefix: &str, replica: u8) -> Bucket {
        self.redirecting(prefix, replica, None).await
    }

    /// The same, from which clients may fetch blobs themselves.
    pub(crate) async fn redirecting(
        &self,
        prefix: &str,
        replica: u8,
        redirect: Option<Redirect>,
    ) -> Bucket {
        crate::support::install_crypto();
        let options = self.variables().map(|(name, value)| (name.to_lowercase(), value));
        let nonce = UploadId::from_random([replica; 16]);
        let url = Self::url(prefix).parse().unwrap();
        Bucket::open(&url, options, redirect, nonce).await.unwrap()
    }
}

/// A port that nobody has. Somebody may take it before the server does: the test then talks to a
/// stranger, and fails.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Returns where `testdata/s3-servers` has installed the servers, which it does if it has not.
fn installed() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/s3-servers");
    // One at a time, so that threads of this program do not install it twice.
    static INSTALLED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let output = Command::new(script).output().unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "testdata/s3-servers fails: {message}");
            PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
        })
        .clone()
}
