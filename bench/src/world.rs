//! Directories, our programs and a docker daemon for the comparisons.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::measure::time;

/// A directory of this run with a store that holds the base images.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    /// Makes the directory and, in its store, the base images.
    pub(crate) fn new() -> Result<Self> {
        let world = Self { dir: TempDir::with_prefix_in("rbuild-bench.", "/var/tmp")? };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/base-images");
        let made = Command::new(script)
            .arg("busybox")
            .env("RBUILD", program("rbuild")?)
            .env("RBUILD_ROOT", world.store())
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "cannot make the base images");
        Ok(world)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// One of our programs on this store.
    pub(crate) fn command(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program(name)?);
        command.env("RBUILD_ROOT", self.store()).args(arguments);
        Ok(command)
    }
}

/// The path of one of our programs: next to this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is missing: run `make build`", path.display());
    Ok(path)
}

/// Waits until `ready`, for at most 20 seconds.
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        ensure!(Instant::now() < deadline, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A docker daemon with its own state, which ends with the value.
#[derive(Debug)]
pub(crate) struct Dockerd {
    child: Child,
    socket: PathBuf,
}

impl Dockerd {
    pub(crate) fn start(world: &World) -> Result<Self> {
        let socket = world.path("docker.sock");
        fs::write(world.path("daemon.json"), "{}")?;
        let log = fs::File::create(world.path("dockerd.log"))?;
        let child = Command::new("dockerd")
            .args([
                "--storage-driver",
                "overlay2",
                "--exec-opt",
                "native.cgroupdriver=cgroupfs",
                "--iptables=false",
                "--bridge",
                "none",
            ])
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--config-file")
            .arg(world.path("daemon.json"))
            .arg("--data-root")
            .arg(world.path("docker-data"))
            .arg("--exec-root")
            .arg(world.path("docker-exec"))
            .arg("--pidfile")
            .arg(world.path("docker.pid"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let dockerd = Self { child, socket };
        wait_until("dockerd", || time(dockerd.command().arg("version")).is_ok())?;
        Ok(dockerd)
    }

    /// Debian's docker client on this daemon, with BuildKit.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command
            .env("DOCKER_BUILDKIT", "1")
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()));
        command
    }
}

/// buildah with storage of its own.
#[derive(Debug)]
pub(crate) struct Buildah {
    root: PathBuf,
    run: PathBuf,
}

impl Buildah {
    pub(crate) fn new(world: &World) -> Self {
        Self { root: world.path("buildah"), run: world.path("buildah-run") }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(&self.root).arg("--runroot").arg(&self.run);
        command.args(["--storage-driver", "overlay"]);
        command
    }
}

impl Drop for Buildah {
    fn drop(&mut self) {
        // It may leave mounts in its storage, which only it knows to undo.
        let _tried = self.command().args(["rm", "--all"]).stdout(Stdio::null()).status();
        for mounted in [&self.root, &self.run] {
            let overlay = mounted.join("overlay");
            let _not_mounted = Command::new("umount").arg(overlay).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // SIGTERM lets it end its containers and containerd; nothing can be done where that fails.
        let _asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
    }
}
