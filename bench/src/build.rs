//! Builds against docker's BuildKit and buildah: nothing to do, everything to do, one file changed.
//!
//! All keep layers uncompressed and sync what they acknowledge. All use the host's network: nothing
//! here needs one, and setting one up is not what is compared.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::measure::{median, milliseconds, time};
use crate::report::{Also, Report, Row, Target};
use crate::world::{Buildah, Dockerd, World};

/// 5,000 files of 10 kB: 50 MB.
const FILES: usize = 5000;
const FILE_BYTES: usize = 10_000;
const STEPS: usize = 10;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let context = world.path("context");
    make_context(&context)?;
    let docker = Dockerd::start(&world)?;
    let archive = world.path("busybox.tar");
    let path = archive.to_str().unwrap_or_default();
    time(&mut world.command("rbuild", &["save", "-o", path, "busybox"])?)?;
    time(docker.command().args(["load", "-i"]).arg(&archive))?;
    let buildah = Buildah::new(&world);
    time(buildah.command().arg("pull").arg(format!("docker-archive:{path}")))?;
    let bench = Bench { world: &world, docker: &docker, buildah: &buildah };

    bench.compare(
        report,
        Case {
            what: format!("cold build: {STEPS} RUN, COPY of {FILES} files / 50 MB"),
            context: &context,
            extra: &["--no-cache"],
            target: 8.0,
            rounds: (7, 2),
            before: &|_| Ok(()),
        },
    )?;
    bench.compare(
        report,
        Case {
            what: "the same again, nothing changed".into(),
            context: &context,
            extra: &[],
            target: 12.0,
            rounds: (21, 2),
            before: &|_| Ok(()),
        },
    )?;
    bench.compare(
        report,
        Case {
            what: format!("the same again, one file of {FILES} changed"),
            context: &context,
            extra: &[],
            target: 8.0,
            rounds: (7, 2),
            before: &|round| {
                let file = context.join("files/07/file-2007.txt");
                Ok(fs::write(file, format!("changed {round}\n").repeat(900))?)
            },
        },
    )?;
    stages(report, &bench)
}

/// Two stages that do not need each other sleep at the same time.
fn stages(report: &mut Report, bench: &Bench<'_>) -> Result<()> {
    let context = bench.world.path("stages");
    fs::create_dir(&context)?;
    fs::write(
        context.join("Dockerfile"),
        "FROM busybox AS one\nRUN sleep 2 && echo 1 >/one\n\
         FROM busybox AS two\nRUN sleep 2 && echo 2 >/two\n\
         FROM busybox\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
    )?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ours.push(milliseconds(time(&mut bench.ours(&["--no-cache"], &context)?)?));
        theirs.push(milliseconds(time(&mut bench.theirs(&["--no-cache"], &context))?));
    }
    let also = vec![Also { peer: "BuildKit", value: median(&theirs) }];
    let what = "two independent stages of sleep 2";
    report.add(Row { also, ..Row::limited(what, "ms", median(&ours), 2150.0) });
    Ok(())
}

/// What is built, and how it is judged.
struct Case<'a> {
    what: String,
    context: &'a Path,
    extra: &'a [&'a str],
    /// How many times faster than BuildKit ours must be.
    target: f64,
    /// How often ours and BuildKit, and how often buildah, which is slow.
    rounds: (usize, usize),
    /// Done before each build; every round of every builder has its own number.
    before: &'a dyn Fn(usize) -> Result<()>,
}

struct Bench<'a> {
    world: &'a World,
    docker: &'a Dockerd,
    buildah: &'a Buildah,
}

impl Bench<'_> {
    fn ours(&self, extra: &[&str], context: &Path) -> Result<Command> {
        let mut arguments = vec!["--progress", "plain", "-t", "bench"];
        arguments.extend(extra);
        let mut command = self.world.command("rbuild", &arguments)?;
        command.arg(context);
        Ok(command)
    }

    fn theirs(&self, extra: &[&str], context: &Path) -> Command {
        let mut command = self.docker.command();
        command
            .args(["build", "--progress", "plain", "--network", "host", "-t", "bench"])
            .args(extra)
            .arg(context);
        command
    }

    fn buildahs(&self, extra: &[&str], context: &Path) -> Command {
        let mut command = self.buildah.command();
        command
            .args([
                "build",
                "--layers",
                "--isolation",
                "chroot",
                "--network",
                "host",
                "-t",
                "bench",
            ])
            .args(extra)
            .arg(context);
        command
    }

    fn compare(&self, report: &mut Report, case: Case<'_>) -> Result<()> {
        let Case { what, context, extra, target, rounds, before } = case;
        let mut number = 0;
        let mut measured = |command: &mut Command| -> Result<f64> {
            number += 1;
            before(number)?;
            // What was written a moment ago may change again without a trace: builders look twice.
            std::thread::sleep(Duration::from_millis(50));
            Ok(milliseconds(time(command)?))
        };
        // Once without counting: caches of both are warm, and what changed before is built.
        measured(&mut self.ours(extra, context)?)?;
        measured(&mut self.theirs(extra, context))?;
        let (mut ours, mut theirs, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.0 {
            ours.push(measured(&mut self.ours(extra, context)?)?);
            theirs.push(measured(&mut self.theirs(extra, context))?);
        }
        measured(&mut self.buildahs(extra, context))?;
        for _ in 0..rounds.1 {
            others.push(measured(&mut self.buildahs(extra, context))?);
        }
        report.add(Row {
            what,
            peer: "BuildKit".into(),
            unit: "ms",
            ours: median(&ours),
            theirs: median(&theirs),
            target: Target::AtMost(1.0 / target),
            also: vec![Also { peer: "buildah", value: median(&others) }],
        });
        Ok(())
    }
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
        let mut content = format!("file {number}\n").repeat(FILE_BYTES / 6);
        content.truncate(FILE_BYTES);
        fs::write(dir.join(format!("file-{number}.txt")), content)?;
    }
    fs::write(context.join("Dockerfile"), dockerfile)?;
    Ok(())
}
