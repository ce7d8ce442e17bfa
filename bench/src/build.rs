//! Builds against docker's BuildKit: nothing to do, and everything to do.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::measure::{by_turns, median, peak_memory_mib, time};
use crate::report::{Report, Row, Target};
use crate::world::{Dockerd, World};

const FILES: usize = 5000;
const STEPS: usize = 10;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let context = world.path("context");
    make_context(&context)?;
    let path = context.to_str().unwrap_or_default().to_owned();

    let docker = Dockerd::start(&world)?;
    let archive = world.path("busybox.tar");
    time(
        &mut world
            .command("rbuild", &["save", "-o", archive.to_str().unwrap_or_default(), "busybox"])?,
    )?;
    time(docker.command().args(["load", "-i"]).arg(&archive))?;

    let ours = |extra: &[&str]| {
        let mut arguments = vec!["--progress", "plain", "-t", "bench"];
        arguments.extend(extra);
        arguments.push(&path);
        world.command("rbuild", &arguments)
    };
    // Both use the host's network: nothing here needs one, and setting one up is not what is compared.
    let theirs = |extra: &[&str]| {
        let mut command = docker.command();
        command
            .args(["build", "--progress", "plain", "--network", "host", "-t", "bench"])
            .args(extra)
            .arg(&path);
        command
    };

    let (cold_ours, cold_theirs) =
        by_turns(5, |_| time(&mut ours(&["--no-cache"])?), |_| time(&mut theirs(&["--no-cache"])))?;
    report.add(Row {
        what: format!("cold build: {STEPS} RUN, COPY of {FILES} files"),
        peer: "BuildKit".into(),
        unit: "ms",
        ours: median(&cold_ours),
        theirs: median(&cold_theirs),
        target: Target::AtMost(0.5),
    });
    let (noop_ours, noop_theirs) =
        by_turns(15, |_| time(&mut ours(&[])?), |_| time(&mut theirs(&[])))?;
    report.add(Row {
        what: "the same again, nothing changed".into(),
        peer: "BuildKit".into(),
        unit: "ms",
        ours: median(&noop_ours),
        theirs: median(&noop_theirs),
        target: Target::AtMost(0.2),
    });

    fs::write(context.join("files/large"), vec![7; 512 << 20])?;
    let memory = peak_memory_mib(ours(&[])?.stderr(std::process::Stdio::null()).spawn()?)?;
    report.add(Row {
        what: "peak memory of a build with a layer of 512 MiB".into(),
        peer: "limit".into(),
        unit: "MiB",
        ours: memory,
        theirs: 100.0,
        target: Target::AtMost(1.0),
    });
    Ok(())
}

fn make_context(context: &Path) -> Result<()> {
    let mut dockerfile = String::from("FROM busybox\n");
    for step in 0..STEPS / 2 {
        writeln!(dockerfile, "RUN echo {step} >/before-{step}")?;
    }
    dockerfile.push_str("COPY files /files\n");
    for step in STEPS / 2..STEPS {
        writeln!(dockerfile, "RUN echo {step} >/after-{step}")?;
    }
    for number in 0..FILES {
        let dir = context.join(format!("files/{:02}", number % 50));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("file-{number}.txt")), format!("file {number}\n").repeat(100))?;
    }
    fs::write(context.join("Dockerfile"), dockerfile)?;
    Ok(())
}
