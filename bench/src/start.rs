//! Start to end of a container that does nothing, and of one more command in one that runs, against
//! bare crun on the same root.
//!
//! crun refuses hosts with hybrid cgroups, so both run in a mount namespace in which a bare
//! cgroup v2 mount is not there.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::measure::{by_turns, median, peak_memory_mib, time};
use crate::report::{Report, Row, Target};
use crate::world::World;

const ROUNDS: usize = 200;
const STEPS: usize = 20;

/// The container in which commands are executed.
const RUNNING: &str = "bench-running";

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" start-inside";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(std::env::current_exe()?)
        .output()
        .context("cannot run unshare")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name: &str| figures[name].as_f64().unwrap_or(f64::NAN);
    let step = format!("a step RUN true, its layer recorded (one of {STEPS})");
    for (what, ours, peer, theirs, target) in [
        ("run --rm --network none busybox true", "rrun", "crun run", "crun", 0.9),
        ("rrun-oci run of a bundle", "rrun-oci", "crun run", "crun-beside-rrun-oci", 0.9),
        ("exec of true", "rrun-exec", "crun exec", "crun-exec", 0.8),
        (step.as_str(), "step", "crun run", "crun", 1.2),
    ] {
        report.add(Row {
            what: what.into(),
            peer: peer.into(),
            unit: "ms",
            ours: figure(ours),
            theirs: figure(theirs),
            target: Target::AtMost(target),
            also: Vec::new(),
        });
    }
    report.add(Row::limited("peak memory of rrun run", "MiB", figure("memory"), 100.0));
    Ok(())
}

/// Measures inside the mount namespace and prints the medians as JSON.
#[expect(clippy::print_stdout, reason = "the result for the process that started this one")]
pub(crate) fn inside() -> Result<()> {
    let world = World::new()?;
    let bundle = world.path("bundle");
    crun_bundle(&world, &bundle)?;
    let run_with = |mut program: Command, round: usize| {
        time(program.args(["run", "--bundle"]).arg(&bundle).arg(format!("bench-{round}")))
    };
    let crun = |round| run_with(Command::new("crun"), round);
    let run = ["run", "--rm", "--network", "none", "busybox", "true"];
    let (ours, theirs) = by_turns(ROUNDS, |_| time(&mut world.command("rrun", &run)?), crun)?;
    let states = world.path("states");
    let root = ["--root", states.to_str().context("a path that is text")?];
    let (oci, beside_oci) =
        by_turns(ROUNDS, |round| run_with(world.command("rrun-oci", &root)?, round), crun)?;
    let (exec, crun_exec) = exec(&world, &bundle)?;
    let memory = peak_memory_mib(
        world
            .command("rrun", &["run", "--rm", "--network", "none", "busybox", "sleep", "0.2"])?
            .spawn()?,
    )?;
    let figures = json!({
        "rrun": median(&ours),
        "crun": median(&theirs),
        "rrun-oci": median(&oci),
        "crun-beside-rrun-oci": median(&beside_oci),
        "rrun-exec": median(&exec),
        "crun-exec": median(&crun_exec),
        "memory": memory,
        "step": step(&world)?,
    });
    println!("{figures}");
    Ok(())
}

/// Starts what stays, and would hold open whatever it inherits.
fn start(command: &mut Command) -> Result<()> {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = quiet.status().with_context(|| format!("cannot run {quiet:?}"))?;
    ensure!(status.success(), "{quiet:?}: {status}");
    Ok(())
}

/// Executes a command in a container of each.
fn exec(world: &World, bundle: &Path) -> Result<(Vec<f64>, Vec<f64>)> {
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["args"] = json!(["sleep", "1000"]);
    spec["root"]["path"] = json!(bundle.join("rootfs"));
    let sleeping = world.path("sleeping");
    fs::create_dir(&sleeping)?;
    fs::write(sleeping.join("config.json"), serde_json::to_vec(&spec)?)?;
    let theirs = || Command::new("crun");
    start(theirs().args(["run", "--detach", "--bundle"]).arg(&sleeping).arg(RUNNING))?;
    let run = ["run", "-d", "--network", "none", "--name", RUNNING, "busybox", "sleep", "1000"];
    start(&mut world.command("rrun", &run)?)?;
    let measured = by_turns(
        ROUNDS,
        |_| time(&mut world.command("rrun", &["exec", RUNNING, "true"])?),
        |_| time(theirs().args(["exec", RUNNING, "true"])),
    );
    time(&mut world.command("rrun", &["rm", "-f", RUNNING])?)?;
    time(theirs().args(["delete", "--force", RUNNING]))?;
    measured
}

/// What one more RUN costs: builds with many and with one, by turns.
fn step(world: &World) -> Result<f64> {
    let context = world.path("steps");
    fs::create_dir(&context)?;
    for (name, steps) in [("one", 1), ("many", 1 + STEPS)] {
        let dockerfile = format!("FROM busybox\n{}", "RUN true\n".repeat(steps));
        fs::write(context.join(name), dockerfile)?;
    }
    let build = |name: &str| {
        let mut command =
            world.command("rbuild", &["--progress", "plain", "--no-cache", "-t", "steps"])?;
        time(command.arg("-f").arg(context.join(name)).arg(&context))
    };
    build("many")?;
    let (many, one) = by_turns(9, |_| build("many"), |_| build("one"))?;
    Ok((median(&many) - median(&one)) / f64::from(u32::try_from(STEPS)?))
}

/// Makes a bundle of the same root file system, with the namespaces that rrun makes.
fn crun_bundle(world: &World, bundle: &Path) -> Result<()> {
    let root = bundle.join("rootfs");
    fs::create_dir_all(&root)?;
    let tree = world
        .command(
            "rrun",
            &[
                "run",
                "--rm",
                "--network",
                "none",
                "busybox",
                "tar",
                "-C",
                "/",
                "-cf",
                "-",
                "bin",
                "etc",
                "root",
                "tmp",
            ],
        )?
        .output()?;
    fs::write(bundle.join("root.tar"), tree.stdout)?;
    time(Command::new("tar").arg("-xf").arg(bundle.join("root.tar")).arg("-C").arg(&root))?;
    time(Command::new("crun").arg("spec").current_dir(bundle))?;
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
    spec["process"]["args"] = json!(["true"]);
    spec["process"]["terminal"] = json!(false);
    spec["root"]["readonly"] = json!(false);
    // The default limit of descriptors cannot be raised on every host.
    spec["process"]["rlimits"] = json!([]);
    fs::write(config, serde_json::to_vec(&spec)?)?;
    Ok(())
}
