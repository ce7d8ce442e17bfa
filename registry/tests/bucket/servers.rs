//! Other people's S3 servers, each with an empty bucket of its own.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use registry::storage::{Bucket, UploadId};

/// moto's server, which keeps put-if-absent.
pub(crate) struct Moto {
    child: Child,
    address: String,
}

impl Moto {
    pub(crate) async fn start() -> Self {
        // The port may be taken by somebody else before moto has it: the check
        // below then talks to a stranger, and the test fails.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(moto_server())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, address: format!("127.0.0.1:{port}") };
        let begun = Instant::now();
        while TcpStream::connect(&moto.address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "moto does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let created = crate::support::client()
            .put(format!("http://{}/bucket", moto.address))
            .send()
            .await
            .unwrap();
        assert_eq!(created.status(), 200);
        moto
    }

    /// A replica's view of the bucket, below `prefix`.
    pub(crate) async fn bucket(&self, prefix: &str, replica: u8) -> Bucket {
        let url = format!("s3://bucket/{prefix}").parse().unwrap();
        let options = [
            ("aws_endpoint", format!("http://{}", self.address)),
            ("aws_allow_http", "true".to_owned()),
            ("aws_region", "us-east-1".to_owned()),
            ("aws_access_key_id", "test".to_owned()),
            ("aws_secret_access_key", "test".to_owned()),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value));
        Bucket::open(&url, options, UploadId::from_random([replica; 16])).await.unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Returns where `testdata/s3-servers` has installed moto, which it does if it
/// has not.
fn moto_server() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/s3-servers");
    // One at a time, so that threads of this program do not install it twice.
    static INSTALLED: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let output = Command::new(script).output().unwrap();
            let message = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "testdata/s3-servers cannot install moto: {message}");
            let cache = String::from_utf8(output.stdout).unwrap();
            PathBuf::from(cache.trim()).join("moto-5.2.1/bin/moto_server")
        })
        .clone()
}
