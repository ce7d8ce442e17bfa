//! Start to end of a container that does nothing, against bare crun on the same root.
//!
//! crun refuses hosts with hybrid cgroups, so both run in a mount namespace in which a bare
//! cgroup v2 mount is not there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::measure::{by_turns, median, peak_memory_mib, time};
use crate::report::{Report, Row, Target};
use crate::world::World;

const ROUNDS: usize = 200;
const STEPS: usize = 20;

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
    report.add(Row {
        what: "run --rm --network none busybox true".into(),
        peer: "crun run".into(),
        unit: "ms",
        ours: figure("rrun"),
        theirs: figure("crun"),
        target: Target::AtMost(1.5),
        also: Vec::new(),
    });
    report.add(Row::limited("peak memory of rrun run", "MiB", figure("memory"), 100.0));
    report.add(Row {
        what: format!("a step RUN true, its layer recorded (one of {STEPS})"),
        peer: "crun run".into(),
        unit: "ms",
        ours: figure("step"),
        theirs: figure("crun"),
        target: Target::AtMost(1.2),
        also: Vec::new(),
    });
    Ok(())
}

/// Measures inside the mount namespace and prints the medians as JSON.
#[expect(clippy::print_stdout, reason = "the result for the process that started this one")]
pub(crate) fn inside() -> Result<()> {
    let world = World::new()?;
    let bundle = world.path("bundle");
    crun_bundle(&world, &bundle)?;
    let (ours, theirs) = by_turns(
        ROUNDS,
        |_| {
            time(
                &mut world
                    .command("rrun", &["run", "--rm", "--network", "none", "busybox", "true"])?,
            )
        },
        |round| {
            time(
                Command::new("crun")
                    .arg("run")
                    .arg("--bundle")
                    .arg(&bundle)
                    .arg(format!("bench-{round}")),
            )
        },
    )?;
    let memory = peak_memory_mib(
        world
            .command("rrun", &["run", "--rm", "--network", "none", "busybox", "sleep", "0.2"])?
            .spawn()?,
    )?;
    let (rrun, crun) = (median(&ours), median(&theirs));
    println!("{}", json!({"rrun": rrun, "crun": crun, "memory": memory, "step": step(&world)?}));
    Ok(())
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
