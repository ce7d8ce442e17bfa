//! The peak of RssAnon with a layer of 4 GiB: build, push with gzip, pull.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::measure::peak_memory_mib;
use crate::report::{Report, Row};
use crate::server::Server;
use crate::world::World;

const BYTES: u64 = 4 << 30;
/// One MiB of so many is noise, the others are zeros: what takes memory is the length.
const NOISE_EVERY: u64 = 16;
const LIMIT_MIB: f64 = 100.0;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let world = World::new()?;
    let context = world.path("context");
    std::fs::create_dir(&context)?;
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY large /large\n")?;
    make_large(&context.join("large"))?;
    let server = Server::rregistry(&world.path(""))?;
    let name = format!("127.0.0.1:{}/large:1", server.port);

    let mut measured = |what: &str, mut command: Command| -> Result<()> {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let what = format!("peak memory of {what}, a layer of 4 GiB");
        report.add(Row::limited(&what, "MiB", peak_memory_mib(child)?, LIMIT_MIB));
        Ok(())
    };
    let mut build = world.command("rbuild", &["-t", &name])?;
    build.arg(&context);
    measured("a build", build)?;
    measured("a push with gzip", world.command("rbuild", &["push", &name])?)?;
    let mut pull = world.command("rbuild", &["pull", &name])?;
    pull.env("RBUILD_ROOT", world.path("pulled"));
    measured("a pull, unpacked", pull)
}

fn make_large(path: &Path) -> Result<()> {
    let file = File::create(path)?;
    file.set_len(BYTES)?;
    let mut noise = vec![0; 1 << 20];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for piece in (0..BYTES >> 20).step_by(usize::try_from(NOISE_EVERY)?) {
        for byte in &mut noise {
            // xorshift: noise to every compressor, the same in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[0];
        }
        file.write_all_at(&noise, piece << 20)?;
    }
    Ok(())
}
