//! The hot loops, one at a time, for counting their instructions.
//!
//! `bench hot NAME ROUNDS` prepares what the loop works on, whose cost does not depend on the
//! rounds, and then does it so many times. The difference between two counts is the loop's alone.

use std::fs;
use std::hint::black_box;
use std::io::{Write as _, sink};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use builder::context::{Context, Index};
use builder::copy::{
    Destination, LayerWriting, Placement, Selected, Selector, digest, select, write_layer,
};
use builder::dockerfile;
use builder::ignore::{Ignore, Matched};
use builder::tree::{Empty, Mtime, Stamp};
use oci::{Algorithm, Compression, Descriptor, DiffId, Digest, Hasher, MediaType};
use store::layers::tar::Writer;
use store::layers::{Entry, Kind, LayerOptions, Metadata};
use store::{Lease, Store};
use tempfile::TempDir;

/// One loop: its name, what its count is divided by, how many of those a round has, and itself.
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) units: usize,
    run: fn(usize) -> Result<()>,
}

/// All loops, in the order of a build, a push and a pull.
pub(crate) const LOOPS: &[Loop] = &[
    Loop { name: "parse", unit: "line", units: LINES, run: parse },
    Loop { name: "ignore", unit: "path, 20 patterns", units: PATHS, run: ignore },
    Loop { name: "lookup", unit: "file in the index", units: RECORDS, run: lookup },
    Loop { name: "scan", unit: "unchanged file", units: FILES, run: scan },
    Loop { name: "copy", unit: "file of 1 KiB into a layer", units: FILES, run: copy },
    Loop { name: "tar", unit: "header", units: PATHS, run: tar },
    Loop { name: "sha256", unit: "KiB", units: 1024, run: sha256 },
    Loop { name: "gzip", unit: "KiB", units: GZIP_BYTES / 1024, run: gzip },
    Loop { name: "unpack", unit: "file of 1 KiB from a layer", units: PATHS, run: unpack },
    Loop { name: "pack", unit: "file of 1 KiB that a RUN wrote", units: PACKED, run: pack },
];

const LINES: usize = 200;
const PATHS: usize = 1000;
const RECORDS: usize = 20_000;
const FILES: usize = 1000;
const GZIP_BYTES: usize = 4 << 20;
const PACKED: usize = 200;

/// Runs one loop.
pub(crate) fn run(name: &str, rounds: &str) -> Result<()> {
    let Some(found) = LOOPS.iter().find(|found| found.name == name) else {
        bail!("there is no loop {name}")
    };
    (found.run)(rounds.parse()?)
}

fn parse(rounds: usize) -> Result<()> {
    let mut text = String::from("FROM busybox AS base\n");
    for line in 1..LINES {
        text.push_str(match line % 5 {
            0 => "RUN --mount=type=cache,target=/root/.cache make -j4 && make install\n",
            1 => "ENV NAME=value OTHER=\"two words\" PATH=$PATH:/opt/bin\n",
            2 => "COPY --chown=1:2 --chmod=755 src/main.c src/util.c /work/src/\n",
            3 => "LABEL org.example.version=${VERSION:-1.2.3}\n",
            _ => "ARG VERSION=1\n",
        });
    }
    for _ in 0..rounds {
        black_box(dockerfile::parse(black_box(&text)));
    }
    Ok(())
}

fn ignore(rounds: usize) -> Result<()> {
    let patterns = "node_modules\n**/*.log\n!keep.log\n.git\ntarget/\n*.md\n!README.md\nbuild/**\n\
                    **/.cache\ndocs/*.html\n*.tmp\n**/*~\n.env*\ncoverage\ndist\n**/*.pyc\n\
                    vendor/**/test\n*.swp\nout?\nold-*\n";
    let ignore = Ignore::parse(patterns)?;
    let paths: Vec<String> =
        (0..PATHS).map(|n| format!("src/module-{}/part-{n}.rs", n % 40)).collect();
    for _ in 0..rounds {
        for path in &paths {
            black_box(ignore.check(black_box(path), &Matched::default()));
        }
    }
    Ok(())
}

fn lookup(rounds: usize) -> Result<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("index");
    let stamp = |ino: usize| Stamp {
        dev: 1,
        ino: ino as u64 * 3,
        size: 1,
        mtime_ns: 1,
        ctime_ns: 1,
        mode: 0o100_644,
    };
    let index = Index::open(&path, i64::MAX / 2);
    (0..RECORDS).for_each(|ino| index.put(stamp(ino), [7; 32]));
    index.save(&path)?;
    let index = Index::open(&path, 0);
    for _ in 0..rounds {
        for ino in 0..RECORDS {
            // Directory by directory, in no particular order inside.
            black_box(index.get(&stamp(ino ^ 21)));
        }
    }
    Ok(())
}

/// A context of small files that an index knows.
struct Small {
    dir: TempDir,
}

impl Small {
    fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        for number in 0..FILES {
            let parent = dir.path().join(format!("files/{:02}", number % 20));
            fs::create_dir_all(&parent)?;
            fs::write(parent.join(format!("file-{number}.txt")), content(number))?;
        }
        Ok(Self { dir })
    }

    fn context(&self) -> Result<Context> {
        // Long after the files were made.
        let index = Index::open(&self.index(), i64::MAX / 2);
        Ok(Context::open(self.dir.path(), Ignore::default(), index)?)
    }

    fn index(&self) -> PathBuf {
        self.dir.path().join("index")
    }

    fn select(&self, context: &Context) -> Result<Vec<Selected>> {
        let exclude = Ignore::default();
        let selector = Selector { word: "files", parents: false, exclude: &exclude };
        Ok(select(context, &selector)?)
    }
}

fn scan(rounds: usize) -> Result<()> {
    let small = Small::new()?;
    let context = small.context()?;
    digest(&context, &[small.select(&context)?], 1)?;
    context.index().save(&small.index())?;
    for _ in 0..rounds {
        let context = small.context()?;
        black_box(digest(&context, &[small.select(&context)?], 1)?);
    }
    Ok(())
}

fn copy(rounds: usize) -> Result<()> {
    let small = Small::new()?;
    let context = small.context()?;
    let (_dir, lease) = lease()?;
    for _ in 0..rounds {
        let mut placement = Placement::new(&Empty, None, None, Mtime::default());
        for selected in small.select(&context)? {
            placement.place(&selected, &context, &Destination::new("/files/"))?;
        }
        let how = LayerWriting { clamp: Some(0), check: &|| Ok(()) };
        black_box(write_layer(&lease, &context, &placement.into_entries(), &how)?);
    }
    Ok(())
}

fn tar(rounds: usize) -> Result<()> {
    let entries: Vec<Entry> = (0..PATHS)
        .map(|n| Entry {
            path: format!("usr/share/doc/part-{n}/").into_bytes(),
            kind: Kind::Directory,
            metadata: Metadata::implied_directory(),
        })
        .collect();
    for _ in 0..rounds {
        let mut writer = Writer::new(sink());
        for entry in &entries {
            writer.entry(black_box(entry))?;
        }
        writer.finish()?;
    }
    Ok(())
}

fn sha256(rounds: usize) -> Result<()> {
    let block = vec![7; 1 << 20];
    for _ in 0..rounds {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(black_box(&block));
        black_box(hasher.finish());
    }
    Ok(())
}

fn gzip(rounds: usize) -> Result<()> {
    let (_dir, lease) = lease()?;
    for round in 0..rounds {
        let mut bytes = Vec::with_capacity(GZIP_BYTES + 64);
        let mut state = 7_u32;
        while bytes.len() < GZIP_BYTES {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            writeln!(bytes, "let value_{} = {};", state >> 24, state >> 20)?;
        }
        writeln!(bytes, "{round}")?;
        let blob = lease.put(&bytes)?;
        let layer = Descriptor::new(MediaType::OCI_LAYER_TAR, blob.digest, blob.size);
        lease.compressed(&DiffId(blob.digest), &layer, Compression::Gzip, None)?;
    }
    Ok(())
}

fn unpack(rounds: usize) -> Result<()> {
    let (_dir, lease) = lease()?;
    for round in 0..rounds {
        let mut writer = Writer::new(Vec::new());
        for number in 0..PATHS {
            let content = content(number + round);
            let entry = Entry {
                path: format!("files/{:02}/file-{number}.txt", number % 20).into_bytes(),
                kind: Kind::File { size: content.len() as u64 },
                metadata: Metadata { mode: 0o644, ..Metadata::default() },
            };
            writer.entry(&entry)?;
            writer.data(content.as_bytes())?;
        }
        let tar = writer.finish()?;
        lease.unpack_stream(&tar[..], DiffId(Digest::sha256(&tar)))?;
    }
    Ok(())
}

fn pack(rounds: usize) -> Result<()> {
    let (_dir, lease) = lease()?;
    let snapshot = lease.snapshot(&[])?;
    for round in 0..rounds {
        let active = lease.active(&snapshot)?;
        for number in 0..PACKED {
            fs::write(active.upper().join(format!("file-{number}")), content(number + round))?;
        }
        black_box(active.into_layer(&LayerOptions { clamp: Some(0), ..Default::default() })?);
    }
    Ok(())
}

fn lease() -> Result<(TempDir, Lease)> {
    let dir = TempDir::new()?;
    let lease = Store::open(Path::new(dir.path()))?.lease()?;
    lease.defer_syncs();
    Ok((dir, lease))
}

fn content(number: usize) -> String {
    let mut content = format!("file {number}\n").repeat(103);
    content.truncate(1024);
    content
}
