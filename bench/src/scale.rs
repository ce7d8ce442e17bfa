//! The registry with many: images, names, clients, blobs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use oci::Digest;
use tempfile::TempDir;

use crate::measure::{anonymous_kib, by_turns, median, milliseconds};
use crate::registry::{begin, expect, put_manifest};
use crate::report::{Also, Report, Row, Target};
use crate::server::Server;

/// Rounds of each pair; the median counts.
const ROUNDS: usize = 3;
/// How many small images are pushed, and by how many clients.
const IMAGES: usize = 1000;
const CLIENTS: usize = 16;
const LAYER_BYTES: usize = 4096;
/// How many names are listed.
const TAGS: usize = 100_000;
const REPOSITORIES: usize = 10_000;
/// How many names a page has.
const PAGE: usize = 100;
/// How many transfers of 1 GiB are under way at once, half of them each way.
const TRANSFERS: usize = 256;
const LARGE_BYTES: u64 = 1 << 30;
/// How long the memory of that is looked at.
const LOOK: Duration = Duration::from_secs(15);
/// How many blobs a storage has whose start is timed.
const BLOBS: usize = 1_000_000;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let dir = TempDir::with_prefix_in("registry-scale.", "/var/tmp")?;
    pushes(report, dir.path())?;
    let ours = Server::rregistry(dir.path())?;
    pages(report, &ours)?;
    transfers(report, &ours)?;
    drop(ours);
    start(report, dir.path())
}

/// Pushes many small images by many clients.
fn pushes(report: &mut Report, dir: &Path) -> Result<()> {
    let ours = Server::rregistry(dir)?;
    let theirs = Server::docker_registry(dir)?;
    let (a, b) =
        by_turns(ROUNDS, |round| push_images(&ours, round), |round| push_images(&theirs, round))?;
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let rate = |times: &[f64]| IMAGES as f64 * 1000.0 / median(times);
    report.add(Row {
        what: format!("pushes of {IMAGES} small images by {CLIENTS} clients"),
        peer: "docker-registry".into(),
        unit: "images/s",
        ours: rate(&a),
        theirs: rate(&b),
        target: Target::AtLeast(5.0),
        also: Vec::new(),
    });
    Ok(())
}

fn push_images(server: &Server, round: usize) -> Result<Duration> {
    let started = Instant::now();
    together(CLIENTS, |client| {
        for number in (client..IMAGES).step_by(CLIENTS) {
            let name = format!("{}-{round}-{number}", server.name);
            let config = format!(r#"{{"name":"{name}"}}"#);
            let mut layer = name.clone().into_bytes();
            layer.resize(LAYER_BYTES, b'.');
            let repository = format!("many/app{}", number % 50);
            let mut pushed = Vec::new();
            for bytes in [config.as_bytes(), &layer] {
                let (digest, size) = (Digest::sha256(bytes).to_string(), bytes.len() as u64);
                let mut connection = begin(server, &repository, &digest, size)?;
                connection.write_all(bytes)?;
                expect(server, connection, " 201 ")?;
                pushed.push((digest, size));
            }
            let blobs: Vec<(&str, u64)> =
                pushed.iter().map(|(digest, size)| (digest.as_str(), *size)).collect();
            put_manifest(
                server,
                &repository,
                &format!("v{round}-{number}"),
                blobs[0],
                &blobs[1..],
            )?;
        }
        Ok(())
    })?;
    Ok(started.elapsed())
}

/// Does something on many threads at once; the first error counts.
fn together(count: usize, act: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let act = &act;
        let threads: Vec<_> = (0..count).map(|index| scope.spawn(move || act(index))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a client panicked"),
        })
    })
}

/// Asks for pages in the middle of long lists.
fn pages(report: &mut Report, ours: &Server) -> Result<()> {
    let empty = Digest::sha256(b"");
    let connection = begin(ours, "long", &empty.to_string(), 0)?;
    expect(ours, connection, " 201 ")?;
    put_manifest(ours, "long", "t000000", (&empty.to_string(), 0), &[])?;
    let tag = find(&ours.root.join("repo"), "t000000").context("the tag's record is somewhere")?;
    for number in 1..TAGS {
        fs::copy(&tag, tag.with_file_name(format!("t{number:06}")))?;
    }
    let mark = find(&ours.root.join("cat"), "long!").context("the repository's mark")?;
    for number in 1..REPOSITORIES {
        fs::copy(&mark, mark.with_file_name(format!("long{number:06}!")))?;
    }
    // What changed within the last second is not remembered.
    std::thread::sleep(Duration::from_secs(3));
    for (what, path) in [
        (format!("a page of {PAGE} of {TAGS} tags, anywhere"), "/v2/long/tags/list?last=t"),
        (
            format!("a page of {PAGE} of {REPOSITORIES} repositories, anywhere"),
            "/v2/_catalog?last=long",
        ),
    ] {
        let count = if path.contains("tags") { TAGS } else { REPOSITORIES };
        let mut times = Vec::new();
        for step in 0..=50 {
            let path = format!("{path}{:06}&n={PAGE}", step * (count - 200) / 50);
            let started = Instant::now();
            let answer = ours.ask(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ))?;
            times.push(milliseconds(started.elapsed()));
            let names = answer.matches("\"t0").count() + answer.matches("\"long0").count();
            ensure!(names == PAGE, "{path} has {names} names");
        }
        // The first reads the directory; the slowest of the others counts.
        let first = times.remove(0);
        report.add(Row {
            what,
            peer: "limit".into(),
            unit: "ms",
            ours: times.iter().copied().fold(0.0, f64::max),
            theirs: 10.0,
            target: Target::AtMost(1.0),
            also: vec![Also { peer: "the first", value: first }],
        });
    }
    Ok(())
}

/// Finds a file by its name below a directory.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&path, name),
            _ => (entry.file_name() == name).then_some(path),
        }
    })
}

/// Looks at memory while many pull and push 1 GiB each, slowly.
fn transfers(report: &mut Report, ours: &Server) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut hasher = oci::Hasher::new(oci::Algorithm::Sha256);
    for _ in 0..LARGE_BYTES >> 20 {
        hasher.update(&zeros);
    }
    let digest = hasher.finish().to_string();
    let mut connection = begin(ours, "long", &digest, LARGE_BYTES)?;
    for _ in 0..LARGE_BYTES >> 20 {
        connection.write_all(&zeros)?;
    }
    expect(ours, connection, " 201 ")?;
    let status = format!("/proc/{}/status", ours.child.id());
    let is_over = AtomicBool::new(false);
    let mut peak_kib = 0;
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..TRANSFERS)
            .map(|index| {
                let (is_over, zeros, digest) = (&is_over, &zeros, &digest);
                scope.spawn(move || match index % 2 {
                    0 => pull_slowly(ours, digest, is_over),
                    _ => push_slowly(ours, &zeros[..64 << 10], is_over),
                })
            })
            .collect();
        let begun = Instant::now();
        while begun.elapsed() < LOOK {
            peak_kib = peak_kib.max(anonymous_kib(&status).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(5));
        }
        is_over.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(result) => result,
            Err(_) => bail!("a client panicked"),
        })
    })?;
    report.add(Row {
        what: format!("peak memory of rregistry, {TRANSFERS} transfers of 1 GiB at once"),
        peer: "limit".into(),
        unit: "MiB",
        ours: f64::from(peak_kib) / 1024.0,
        theirs: 96.0,
        target: Target::AtMost(1.0),
        also: Vec::new(),
    });
    Ok(())
}

fn pull_slowly(ours: &Server, digest: &str, is_over: &AtomicBool) -> Result<()> {
    let mut answer = ours.send(&format!(
        "GET /v2/long/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ))?;
    let mut buffer = vec![0; 64 << 10];
    while !is_over.load(Ordering::Relaxed) && answer.read(&mut buffer)? > 0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn push_slowly(ours: &Server, bytes: &[u8], is_over: &AtomicBool) -> Result<()> {
    // Of another digest than the bytes have: it is never finished.
    let digest = Digest::sha256(b"never").to_string();
    let mut connection = begin(ours, "long", &digest, LARGE_BYTES)?;
    while !is_over.load(Ordering::Relaxed) {
        connection.write_all(bytes)?;
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Times the start of a registry that has very many blobs.
fn start(report: &mut Report, dir: &Path) -> Result<()> {
    let blobs = dir.join("ours/blob/sha256");
    for number in 0..BLOBS {
        let hex = Digest::sha256(&number.to_le_bytes()).hex();
        let blob = blobs.join(&hex[..2]).join(hex);
        fs::create_dir_all(&blob)?;
        fs::write(blob.join("data"), b"")?;
    }
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let server = Server::rregistry(dir)?;
        times.push(milliseconds(started.elapsed()));
        drop(server);
    }
    report.add(Row {
        what: format!("start to ready, with {BLOBS} blobs"),
        peer: "limit".into(),
        unit: "ms",
        ours: median(&times),
        theirs: 50.0,
        target: Target::AtMost(1.0),
        also: Vec::new(),
    });
    Ok(())
}
