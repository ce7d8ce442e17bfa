//! gzip as a push does it, against `pigz -6`.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use oci::{Compression, Descriptor, DiffId, MediaType};
use store::Store;

use crate::measure::{by_turns, median, time};
use crate::report::{Report, Row, Target};
use crate::world::World;

/// How much of this machine's own files is compressed.
const BYTES: u64 = 256 << 20;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let input = world.path("layer.tar");
    make_layer(&input)?;
    let store = Store::open(&world.store())?;
    let lease = store.lease()?;
    let mut ingest = lease.ingest()?;
    std::io::copy(&mut File::open(&input)?, &mut ingest)?;
    let layer = ingest.commit(None)?;
    let descriptor = Descriptor::new(MediaType::OCI_LAYER_TAR, layer.digest, layer.size);

    let output = world.path("layer.tar.gz");
    let mut size = 0;
    let (a, b) = by_turns(
        3,
        |_| {
            // What is known is not compressed again: it is forgotten before.
            for path in fs::read_dir(store.root().compressed())? {
                fs::remove_file(path?.path())?;
            }
            store.gc()?;
            let lease = store.lease()?;
            let started = Instant::now();
            let diff_id = DiffId(layer.digest);
            size = lease.compressed(&diff_id, &descriptor, Compression::Gzip, None)?.size;
            Ok(started.elapsed())
        },
        |_| {
            // Both end with the bytes on the disk.
            let script = "pigz -6 -c \"$0\" >\"$1\" && sync -d \"$1\"";
            time(Command::new("sh").args(["-c", script]).arg(&input).arg(&output))
        },
    )?;
    let speed = |milliseconds: f64| (BYTES >> 20) as f64 * 1000.0 / milliseconds;
    report.add(Row {
        what: "gzip of a layer of 256 MiB for a push".into(),
        peer: "pigz -6".into(),
        unit: "MiB/s",
        ours: speed(median(&a)),
        theirs: speed(median(&b)),
        target: Target::AtLeast(4.0),
        also: Vec::new(),
    });
    report.add(Row {
        what: "its compressed size".into(),
        peer: "pigz -6".into(),
        unit: "MiB",
        ours: size as f64 / f64::from(1 << 20),
        theirs: fs::metadata(&output)?.len() as f64 / f64::from(1 << 20),
        target: Target::AtMost(1.03),
        also: Vec::new(),
    });
    Ok(())
}

/// Packs programs, libraries and documents of this machine: what layers are made of.
fn make_layer(path: &std::path::Path) -> Result<()> {
    let mut tar = Command::new("tar")
        .args(["-C", "/usr", "--sort=name", "-cf", "-", "bin", "share", "lib"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run tar")?;
    let output = tar.stdout.take().context("its output is piped")?;
    std::io::copy(&mut output.take(BYTES), &mut File::create(path)?)?;
    // It ends because nobody reads on.
    tar.wait()?;
    Ok(())
}
