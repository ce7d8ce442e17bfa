//! TLS, and numbers for Prometheus.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use oci::Digest;
use reqwest::{Certificate, Client, Method, Version};
use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::{client, noise};

/// Writes a certificate for `localhost` and its key, and returns it.
fn certify(directory: &Path) -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(directory.join("tls.crt"), made.cert.pem()).unwrap();
    Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
}

fn trusting(certificate: &Certificate) -> reqwest::ClientBuilder {
    client();
    Client::builder().tls_certs_only([certificate.clone()]).no_proxy()
}

fn start(directory: &Path, more: &str) -> Process {
    let config = directory.join("config.toml");
    let text = format!(
        "{more}\n[tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n[storage]\nroot = \"root\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let arguments = ["--log=warn", "--no-access-log", "--config"].map(OsStr::new);
    Process::with(arguments.into_iter().chain([config.as_os_str()]), Stdio::inherit())
}

fn secure(process: &Process, path: &str) -> String {
    let port = process.url.rsplit(':').next().unwrap();
    format!("https://localhost:{port}{path}")
}

#[tokio::test]
async fn images_come_and_go_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = certify(directory.path());
    let process = start(directory.path(), "");
    let bytes = noise(5 << 20, 3);
    let digest = Digest::sha256(&bytes);
    for (client, version) in [
        (trusting(&certificate).http1_only().build().unwrap(), Version::HTTP_11),
        (trusting(&certificate).build().unwrap(), Version::HTTP_2),
    ] {
        let path = format!("/v2/a/blobs/uploads/?digest={digest}");
        let pushed = client.post(secure(&process, &path)).body(bytes.clone()).send().await.unwrap();
        assert_eq!((pushed.status().as_u16(), pushed.version()), (201, version));
        let path = format!("/v2/a/blobs/{digest}");
        let pulled = client.get(secure(&process, &path)).send().await.unwrap();
        assert_eq!(pulled.bytes().await.unwrap(), bytes);
    }
    // The port speaks nothing else.
    assert!(client().get(format!("{}/v2/", process.url)).send().await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let old = certify(directory.path());
    let process = start(directory.path(), "");
    let status = async |certificate: &Certificate| {
        let client = trusting(certificate).build().unwrap();
        client.get(secure(&process, "/v2/")).send().await.map(|answer| answer.status().as_u16())
    };
    assert_eq!(status(&old).await.unwrap(), 200);
    let new = certify(directory.path());
    process.signal(Signal::HUP);
    for _ in 0..100 {
        if status(&new).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(status(&new).await.unwrap(), 200);
    assert!(status(&old).await.is_err());
    // A key that does not fit changes nothing.
    std::fs::write(directory.path().join("tls.key"), "nonsense").unwrap();
    process.signal(Signal::HUP);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(status(&new).await.unwrap(), 200);
}

#[tokio::test]
async fn numbers_are_served_on_their_own_port() {
    let directory = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let root = directory.path().join("root");
    let arguments = ["--log=warn", "--no-access-log", "--metrics"].map(OsStr::new);
    let address = free.to_string();
    let process = Process::with(
        arguments.into_iter().chain([OsStr::new(&address), OsStr::new("--root"), root.as_os_str()]),
        Stdio::inherit(),
    );
    let http = client();
    for _ in 0..3 {
        http.get(format!("{}/v2/", process.url)).send().await.unwrap();
    }
    http.request(Method::DELETE, format!("{}/v2/a/manifests/b", process.url)).send().await.unwrap();
    let answer = http.get(format!("http://{address}/metrics")).send().await.unwrap();
    assert!(
        answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text().await.unwrap();
    for line in [
        "rregistry_http_requests_total{method=\"GET\",status=\"200\"} 3",
        "rregistry_http_requests_total{method=\"DELETE\",status=\"404\"} 1",
        "rregistry_http_connections 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    // And on no other.
    let answer = http.get(format!("{}/metrics", process.url)).send().await.unwrap();
    assert_eq!(answer.status(), 404);
}
