//! podman and docker, each with its own state among the test's files.

use std::fs;
use std::process::{Child, Command, Stdio};

use e2e::{Output, World, run, try_run, wait_until};

/// podman with its own storage.
#[derive(Debug)]
pub(crate) struct Podman {
    root: String,
    runroot: String,
    config: String,
}

impl Podman {
    /// Prepares podman to work below the world's files.
    pub(crate) fn new(world: &World) -> Self {
        // Limits that podman would raise by default cannot be raised on every host; the ones that are stay.
        let config = world.write(
            "containers.conf",
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n",
        );
        let text = |name: &str| world.path(name).to_str().unwrap().to_owned();
        Self {
            root: text("podman-root"),
            runroot: text("podman-run"),
            config: config.to_str().unwrap().to_owned(),
        }
    }

    /// Runs a podman command, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run(Command::new("podman")
            .env("CONTAINERS_CONF", &self.config)
            .args(["--root", &self.root, "--runroot", &self.runroot, "--storage-driver", "vfs"])
            .args(args))
    }
}

/// A docker daemon with its own state and socket, which ends with the value.
#[derive(Debug)]
pub(crate) struct Dockerd {
    child: Child,
    socket: String,
}

impl Dockerd {
    /// Starts dockerd and waits until it answers.
    pub(crate) fn start(world: &World) -> Self {
        let socket = world.path("docker.sock").to_str().unwrap().to_owned();
        let log = fs::File::create(world.path("dockerd.log")).unwrap();
        fs::write(world.path("daemon.json"), "{}").unwrap();
        let child = Command::new("dockerd")
            .args(["--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--iptables=false", "--ip6tables=false", "--bridge", "none"])
            .args(["--host", &format!("unix://{socket}")])
            .arg("--config-file")
            .arg(world.path("daemon.json"))
            .arg("--data-root")
            .arg(world.path("docker-data"))
            .arg("--exec-root")
            .arg(world.path("docker-exec"))
            .arg("--pidfile")
            .arg(world.path("docker.pid"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is installed");
        let dockerd = Self { child, socket };
        wait_until("dockerd", || {
            try_run(dockerd.command().arg("version")).status.success().then_some(())
        });
        dockerd
    }

    /// The value of DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket)
    }

    fn command(&self) -> Command {
        // Debian's client: another one may stand first in the PATH.
        let mut command = Command::new("/usr/bin/docker");
        command.args(["--host", &self.host()]);
        command
    }

    /// Runs a docker command, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run(self.command().args(args))
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // SIGTERM lets it end its containers and containerd.
        let pid = self.child.id().to_string();
        let _asked = Command::new("kill").arg(&pid).status();
        let _ended = self.child.wait();
    }
}

/// Lists a tree from inside a container: type, mode, owner, links, path and target of every entry, in order.
/// The link count of a directory is left out: overlayfs does not count.
pub(crate) fn listing(world: &World, image_and_options: &[&str], root: &str) -> String {
    // The files that the engine puts into a container, and the mounts, are not the image's.
    let script = format!(
        "cd {root} && find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' ! -path './unpacked*' \
         ! -path ./etc/hosts ! -path ./etc/hostname ! -path ./etc/resolv.conf ! -path ./dev ! -path ./proc ! -path ./sys ! -path . \
         -exec stat -c '%F %a %u:%g %h %N' {{}} + | sed 's/^\\(directory [^ ]* [^ ]*\\) [0-9]*/\\1 -/' | sort"
    );
    let (image, options) = image_and_options.split_last().unwrap();
    let mut args = vec!["run", "--rm"];
    args.extend(options);
    args.extend([*image, "sh", "-c", &script]);
    world.rrun(&args).stdout
}
