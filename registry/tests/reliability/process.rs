//! How the real program starts and ends, and what it needs meanwhile.

use std::process::Command;
use std::time::Duration;

use oci::Digest;
use rustix::process::Signal;

use crate::support::process::Process;
use crate::support::{client, noise};

#[tokio::test]
async fn sigterm_and_sigint_stop_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::start(&dir.path().join("root"));
        let response = client().get(format!("{}/healthz", process.url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        process.signal(signal);
        assert_eq!(process.wait().code(), Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_stops_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(&dir.path().join("root"));
    let url = format!("{}/v2/a/blobs/uploads/", process.url);
    let begun = client().post(&url).send().await.unwrap();
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let url = format!("{}{location}", process.url);
    let body = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let endless = tokio::spawn(client().patch(url).body(reqwest::Body::wrap_stream(body)).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(process.child.try_wait().unwrap().is_none(), "it should wait for the upload");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(endless.await.unwrap().is_err());
}

#[test]
fn what_cannot_be_served_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("notes.txt"), "").unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rregistry"))
            .arg("serve")
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let root = dir.path().to_str().unwrap();
    let (code, message) = run(&["--root", root, "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert!(message.contains("it has no version file but contains notes.txt"), "{message}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let empty = tempfile::tempdir().unwrap();
    let (code, message) = run(&["--root", empty.path().to_str().unwrap(), "--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(message.contains("hint: choose another address with --listen"), "{message}");
    assert_eq!(run(&["--nonsense"]).0, Some(2));
}

/// Large blobs leave by another way than small ones: compare every byte, while
/// the program's own memory stays small.
#[tokio::test]
async fn a_large_blob_passes_through_little_memory() {
    const SIZE: usize = 192 << 20;
    const LIMIT_KIB: u64 = 100 << 10;
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(&dir.path().join("root"));
    let bytes = noise(SIZE, 11);
    let digest = Digest::sha256(&bytes);
    let http = client();
    let begun = http.post(format!("{}/v2/a/blobs/uploads/", process.url)).send().await.unwrap();
    let location = begun.headers()["location"].to_str().unwrap().to_owned();
    let url = format!("{}{location}?digest={digest}", process.url);
    let status = http.put(url).body(bytes).send().await.unwrap().status();
    assert_eq!(status, 201);
    let url = format!("{}/v2/a/blobs/{digest}", process.url);
    let mut response = http.get(&url).send().await.unwrap();
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
    while let Some(chunk) = response.chunk().await.unwrap() {
        hasher.update(&chunk);
    }
    assert_eq!(hasher.finish(), digest);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let anonymous: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(anonymous < LIMIT_KIB, "{anonymous} KiB of anonymous memory");
}
