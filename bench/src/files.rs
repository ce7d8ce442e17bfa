//! Many small files: a COPY of 50,000 against the tools that do the least that has to be done.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::measure::{by_turns, median, time};
use crate::report::{Report, Row, Target};
use crate::world::World;

const FILES: usize = 50_000;
const FILES_PER_DIRECTORY: usize = 100;
const FILE_BYTES: usize = 2_000;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let context = world.path("context");
    make_context(&context)?;
    let files = context.join("files");
    let ours = |extra: &[&str]| -> Result<Command> {
        let mut command = world.command("rbuild", &["--progress", "plain", "-t", "many"])?;
        command.args(extra).arg(&context);
        Ok(command)
    };

    // Without a record, and without what is remembered of the files: each is read and hashed.
    let cold = |_| {
        forget_index(&world.store())?;
        time(&mut ours(&["--no-cache"])?)
    };
    cold(0)?;
    let (a, b) = by_turns(7, cold, |_| time(&mut tar_and_hash(&files)))?;
    report.add(Row {
        what: format!("COPY of {FILES} files of {FILE_BYTES} bytes, cold"),
        peer: "tar cf - | openssl sha256".into(),
        unit: "ms",
        ours: median(&a),
        theirs: median(&b),
        target: Target::AtMost(1.5),
        also: Vec::new(),
    });

    time(&mut ours(&[])?)?;
    let (a, b) = by_turns(
        15,
        |_| time(&mut ours(&[])?),
        |_| {
            let started = Instant::now();
            ensure!(walk(&files)? == FILES, "the walk found other files");
            Ok(started.elapsed())
        },
    )?;
    report.add(Row {
        what: format!("the same again, nothing changed ({FILES} files)"),
        peer: "lstat walk".into(),
        unit: "ms",
        ours: median(&a),
        theirs: median(&b),
        target: Target::AtMost(2.0),
        also: Vec::new(),
    });
    Ok(())
}

fn make_context(context: &Path) -> Result<()> {
    for number in 0..FILES {
        let dir = context.join(format!("files/{:03}", number / FILES_PER_DIRECTORY));
        fs::create_dir_all(&dir)?;
        let mut content = format!("file {number}\n").repeat(FILE_BYTES / 6);
        content.truncate(FILE_BYTES);
        fs::write(dir.join(format!("file-{number}.txt")), content)?;
    }
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY files /files\n")?;
    Ok(())
}

/// Removes what the builder remembers of the files of contexts.
fn forget_index(store: &Path) -> Result<()> {
    let indexes = store.join("builds/contexts");
    if indexes.exists() {
        fs::remove_dir_all(&indexes)
            .with_context(|| format!("cannot remove {}", indexes.display()))?;
    }
    Ok(())
}

fn tar_and_hash(files: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "tar cf - -C \"$0\" . | openssl sha256"]).arg(files).stdout(Stdio::null());
    command
}

/// Looks at every file once, as `find -size` does; returns how many are no directories.
fn walk(dir: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        // On Linux this is an lstat relative to the open directory.
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            count += walk(&entry.path())?;
        } else {
            count += 1;
        }
    }
    Ok(count)
}
