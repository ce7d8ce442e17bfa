//! The registry against docker-registry (distribution) and nginx with sendfile.
//!
//! Requests per second are wrk's; large blobs are sent and received by a client
//! of our own that does nothing with them, the same for every peer.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::measure::{anonymous_kib, by_turns, median, milliseconds, time};
use crate::report::{Report, Row, Target};
use crate::server::Server;

/// Rounds of each pair; the median counts.
const ROUNDS: usize = 5;
/// The blob that is pushed and pulled: 1 GiB.
const LARGE_BYTES: u64 = 1 << 30;
const SMALL_BYTES: u64 = 64 << 10;
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// One measurement of wrk, in seconds.
const WRK_S: u32 = 3;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let dir = TempDir::with_prefix_in("registry-bench.", "/var/tmp")?;
    let (large, small) = (dir.path().join("large"), dir.path().join("small"));
    make_noise(&large, LARGE_BYTES)?;
    make_noise(&small, SMALL_BYTES)?;
    let ours = Server::rregistry(dir.path())?;
    let theirs = Server::docker_registry(dir.path())?;
    let (large_digest, small_digest) = (digest(&large)?, digest(&small)?);
    let mut manifest = String::new();
    for server in [&ours, &theirs] {
        push(server, &small, &small_digest)?;
        manifest = push_manifest(server, &small_digest)?;
    }
    let www = dir.path().join("www");
    fs::create_dir(&www)?;
    fs::write(www.join("manifest"), &manifest)?;
    fs::copy(&small, www.join("small"))?;
    let nginx = Server::nginx(dir.path(), &www)?;

    let manifest_path = "/v2/bench/manifests/latest";
    rate(report, "manifest GET", (&ours, manifest_path), (&theirs, manifest_path), 30.0)?;
    rate(report, "manifest GET", (&ours, manifest_path), (&nginx, "/manifest"), 0.5)?;
    let small_path = format!("/v2/bench/blobs/{small_digest}");
    rate(report, "64 KiB blob GET", (&ours, &small_path), (&theirs, &small_path), 5.0)?;
    rate(report, "64 KiB blob GET", (&ours, &small_path), (&nginx, "/small"), 0.5)?;
    put(report, dir.path(), &ours, &large, &large_digest)?;
    fs::rename(&large, www.join("large"))?;
    get(report, (&ours, &format!("/v2/bench/blobs/{large_digest}")), (&nginx, "/large"))?;
    let peak = memory(&ours, &www.join("large"), &large_digest)?;
    report.add(Row {
        what: "peak memory of rregistry, 4 pushes and 4 pulls of 1 GiB at once".into(),
        peer: "limit".into(),
        unit: "MiB",
        ours: peak,
        theirs: 100.0,
        target: Target::AtMost(1.0),
        also: Vec::new(),
    });
    Ok(())
}

/// Compares requests per second.
fn rate(
    report: &mut Report,
    what: &str,
    ours: (&Server, &str),
    theirs: (&Server, &str),
    target: f64,
) -> Result<()> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(wrk(ours.0, ours.1)?);
        b.push(wrk(theirs.0, theirs.1)?);
    }
    report.add(Row {
        what: what.into(),
        peer: theirs.0.name.into(),
        unit: "requests/s",
        ours: median(&a),
        theirs: median(&b),
        target: Target::AtLeast(target),
        also: Vec::new(),
    });
    Ok(())
}

/// Asks for one path with 16 connections and returns successful requests per second.
fn wrk(server: &Server, path: &str) -> Result<f64> {
    let output = Command::new("wrk")
        .args(["-t2", "-c16", &format!("-d{WRK_S}s")])
        // docker-registry hides manifests from clients that do not name their type.
        .args(["-H", &format!("Accept: {MANIFEST_TYPE}")])
        .arg(format!("http://127.0.0.1:{}{path}", server.port))
        .output()
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.trim().parse::<f64>().ok()
    };
    let all = number("Requests/sec:").with_context(|| format!("wrk said {text}"))?;
    // docker-registry fails some requests under load: those do not count.
    let failed = number("Non-2xx or 3xx responses:").unwrap_or(0.0);
    Ok(all - failed / f64::from(WRK_S))
}

/// Pushes 1 GiB, paired with `openssl sha256` of it; `dd` to the same disk stands beside.
fn put(report: &mut Report, dir: &Path, ours: &Server, large: &Path, digest: &str) -> Result<()> {
    let mut disk = Vec::new();
    let (a, b) = by_turns(
        ROUNDS,
        |_| {
            let started = Instant::now();
            push(ours, large, digest)?;
            let elapsed = started.elapsed();
            // The next round is to be stored again, not recognised.
            ours.forget(digest)?;
            Ok(elapsed)
        },
        |_| {
            let output = dir.join("dd");
            let written = time(
                Command::new("dd")
                    .args(["if=/dev/zero", "bs=1M", "count=1024", "conv=fdatasync"])
                    .arg(format!("of={}", output.display())),
            )?;
            fs::remove_file(output)?;
            disk.push(milliseconds(written));
            time(Command::new("openssl").arg("sha256").arg(large))
        },
    )?;
    report.add(Row {
        what: "1 GiB blob PUT, durable".into(),
        peer: "openssl sha256".into(),
        unit: "ms",
        ours: median(&a),
        theirs: median(&b),
        target: Target::AtMost(1.8),
        also: Vec::new(),
    });
    report.note(format!("1 GiB by dd conv=fdatasync to the same disk: {:.0} ms", median(&disk)));
    push(ours, large, digest)
}

/// Pulls 1 GiB with four clients at once, and throws it away.
fn get(report: &mut Report, ours: (&Server, &str), theirs: (&Server, &str)) -> Result<()> {
    let four = |(server, path): (&Server, &str)| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(server, path))).collect();
            clients.into_iter().try_for_each(|client| match client.join() {
                Ok(pulled) => pulled.map(drop),
                Err(_) => bail!("a client panicked"),
            })
        })?;
        Ok(started.elapsed())
    };
    let (a, b) = by_turns(ROUNDS, |_| four(ours), |_| four(theirs))?;
    let speed = |times: &[f64]| 4.0 * 1024.0 * 1000.0 / median(times);
    report.add(Row {
        what: "1 GiB blob GET, four clients".into(),
        peer: theirs.0.name.into(),
        unit: "MiB/s",
        ours: speed(&a),
        theirs: speed(&b),
        target: Target::AtLeast(0.95),
        also: Vec::new(),
    });
    Ok(())
}

fn pull(server: &Server, path: &str) -> Result<Duration> {
    let started = Instant::now();
    let mut answer = server
        .send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))?;
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match answer.read(&mut buffer)? {
            0 => break,
            read => bytes += u64::try_from(read)?,
        }
    }
    ensure!(bytes >= LARGE_BYTES, "{} ended after {bytes} bytes", server.name);
    Ok(started.elapsed())
}

/// Pushes and pulls with four clients each, and returns the peak of the server's memory in MiB.
fn memory(server: &Server, large: &Path, digest: &str) -> Result<f64> {
    const CLIENTS: usize = 4;
    let path = format!("/v2/bench/blobs/{digest}");
    let status = format!("/proc/{}/status", server.child.id());
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .flat_map(|_| {
                let pushing = scope.spawn(|| push(server, large, digest));
                let pulling = scope.spawn(|| pull(server, &path).map(drop));
                [pushing, pulling]
            })
            .collect();
        let mut peak_kib = 0;
        while clients.iter().any(|client| !client.is_finished()) {
            peak_kib = peak_kib.max(anonymous_kib(&status).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(1));
        }
        for client in clients {
            match client.join() {
                Ok(result) => result?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(f64::from(peak_kib) / 1024.0)
    })
}

/// Pushes a file as clients do: POST, then PUT.
pub(crate) fn push(server: &Server, file: &Path, digest: &str) -> Result<()> {
    let mut file = File::open(file)?;
    let size = file.metadata()?.len();
    let mut connection = begin(server, "bench", digest, size)?;
    std::io::copy(&mut file, &mut connection)?;
    expect(server, connection, " 201 ")
}

/// Begins an upload of `size` bytes to a repository; the connection takes them.
pub(crate) fn begin(
    server: &Server,
    repository: &str,
    digest: &str,
    size: u64,
) -> Result<TcpStream> {
    let begun = server.ask(&format!("POST /v2/{repository}/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))?;
    let location = begun
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase().starts_with("location:").then(|| line[9..].trim().to_owned())
        })
        .with_context(|| format!("{} said {begun}", server.name))?;
    let location = location
        .split_once("://")
        .map_or(location.as_str(), |(_, rest)| &rest[rest.find('/').unwrap_or(0)..]);
    let separator = if location.contains('?') { '&' } else { '?' };
    server.send(&format!(
        "PUT {location}{separator}digest={digest} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    ))
}

/// Pushes a manifest of eight layers and returns it.
fn push_manifest(server: &Server, blob: &str) -> Result<String> {
    let layers = vec![(blob, SMALL_BYTES); 8];
    put_manifest(server, "bench", "latest", (blob, SMALL_BYTES), &layers)
}

/// Pushes a manifest of these blobs, each with its size, and returns it.
pub(crate) fn put_manifest(
    server: &Server,
    repository: &str,
    tag: &str,
    config: (&str, u64),
    layers: &[(&str, u64)],
) -> Result<String> {
    let describe = |kind: &str, (digest, size): (&str, u64)| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let config = describe("config.v1+json", config);
    let layers: Vec<_> = layers.iter().map(|layer| describe("layer.v1.tar", *layer)).collect();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers}).to_string();
    let connection = server.send(&format!(
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MANIFEST_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{manifest}",
        manifest.len()
    ))?;
    expect(server, connection, " 201 ")?;
    Ok(manifest)
}

/// Reads an answer to its end and checks its status.
pub(crate) fn expect(server: &Server, mut connection: TcpStream, status: &str) -> Result<()> {
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    ensure!(
        answer.lines().next().is_some_and(|line| format!("{line} ").contains(status)),
        "{} said {answer}",
        server.name
    );
    Ok(())
}

fn make_noise(path: &Path, bytes: u64) -> Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    std::io::copy(&mut random, &mut File::create(path)?)?;
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let output = Command::new("openssl").args(["sha256", "-r"]).arg(path).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(format!("sha256:{}", text.split(' ').next().context("openssl printed nothing")?))
}
