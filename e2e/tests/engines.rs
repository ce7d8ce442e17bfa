//! podman, docker and containerd of Debian run their containers with `rrun-oci`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use e2e::{Dockerd, Output, World, run, try_run, wait_until};

/// Packs a root with busybox, for engines to import.
fn busybox(world: &World) -> PathBuf {
    let root = world.path("busybox");
    for name in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "cat", "id", "sleep", "hostname", "grep", "mount", "test", "touch", "echo"]
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    let archive = world.path("busybox.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg("."));
    archive
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The runtime's path, which engines want to be absolute.
fn runtime() -> PathBuf {
    World::program("rrun-oci")
}

struct Podman<'a>(&'a World);

impl Podman<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let config = self.0.write(
            "containers.conf",
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
        );
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", config)
            .arg("--root")
            .arg(self.0.path("podman-root"))
            .arg("--runroot")
            .arg(self.0.path("podman-run"))
            .args(["--storage-driver", "vfs", "--runtime"])
            .arg(runtime())
            .args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }
}

#[test]
fn privileged_podman_runs_containers_with_it() {
    let world = World::new();
    let podman = Podman(&world);
    podman.run(&["import", text(&busybox(&world)), "busybox"]);
    let shown = podman.run(&[
        "run", "--rm", "--network", "none", "--hostname", "inside", "--memory", "64m", "--tmpfs", "/scratch",
        "busybox", "sh", "-c",
        "hostname; id; touch /scratch/x && cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; grep Seccomp: /proc/self/status",
    ]);
    assert_eq!(shown.stdout, "inside\nuid=0 gid=0\n67108864\nSeccomp:\t2\n");
    let code = |args: &[&str]| {
        let head = ["run", "--rm", "--network", "none", "busybox"];
        try_run(&mut podman.command(&[&head[..], args].concat())).code()
    };
    assert_eq!(code(&["sh", "-c", "exit 42"]), 42);
    assert_eq!(code(&["nosuch"]), 127);
    assert_eq!(code(&["/tmp"]), 126);
    // Ids of a user namespace of its own.
    let map = [
        "run",
        "--rm",
        "--network",
        "none",
        "--uidmap",
        "0:100000:65536",
        "busybox",
        "cat",
        "/proc/self/uid_map",
    ];
    let shown = podman.run(&map).stdout;
    assert_eq!(shown.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);

    podman.run(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "1000"]);
    assert_eq!(podman.run(&["exec", "web", "sh", "-c", "cat /proc/1/comm"]).stdout, "sleep\n");
    assert_eq!(try_run(&mut podman.command(&["exec", "web", "sh", "-c", "exit 5"])).code(), 5);
    podman.run(&["pause", "web"]);
    let status = ["ps", "-a", "--format", "{{.Status}}"];
    assert!(podman.run(&status).stdout.contains("Paused"));
    podman.run(&["unpause", "web"]);
    assert!(podman.run(&["stats", "--no-stream", "web"]).stdout.contains("web"));
    podman.run(&["stop", "-t", "0", "web"]);
    podman.run(&["start", "web"]);
    podman.run(&["rm", "-f", "-t", "0", "web"]);
}

#[test]
fn privileged_docker_runs_containers_with_it() {
    let world = World::new();
    let option = format!("rrun={}", runtime().display());
    let docker = Dockerd::start_with(&world, &["--add-runtime", &option]);
    docker.run(&["import", text(&busybox(&world)), "busybox"]);
    let head = ["run", "--runtime", "rrun", "--network", "none"];
    let with = |args: &[&str]| docker.try_run(&[&head[..], args].concat());
    let shown =
        with(&["--rm", "-u", "5:6", "busybox", "sh", "-c", "id; grep Seccomp: /proc/self/status"]);
    assert_eq!(shown.stdout, "uid=5 gid=6 groups=6\nSeccomp:\t2\n", "{shown:?}");
    assert_eq!(with(&["--rm", "busybox", "sh", "-c", "exit 42"]).code(), 42);
    assert_eq!(with(&["--rm", "busybox", "nosuch"]).code(), 127);
    let shown = with(&["--rm", "--privileged", "busybox", "grep", "CapEff", "/proc/self/status"]);
    assert!(shown.status.success(), "{shown:?}");

    let started = with(&["-d", "--name", "web", "busybox", "sleep", "1000"]);
    assert!(started.status.success(), "{started:?}");
    assert_eq!(docker.run(&["exec", "web", "cat", "/proc/1/comm"]).stdout, "sleep\n");
    docker.run(&["pause", "web"]);
    docker.run(&["unpause", "web"]);
    docker.run(&["update", "--memory", "64m", "--memory-swap", "64m", "web"]);
    assert!(docker.run(&["top", "web"]).stdout.contains("sleep 1000"));
    docker.run(&["restart", "-t", "0", "web"]);
    docker.run(&["rm", "-f", "web"]);
}

/// containerd with its own state, which ends with the value.
struct Containerd {
    child: Child,
    socket: PathBuf,
}

impl Containerd {
    fn start(world: &World) -> Self {
        let socket = world.path("containerd.sock");
        let log = fs::File::create(world.path("containerd.log")).unwrap();
        let child = Command::new("containerd")
            .arg("--root")
            .arg(world.path("containerd-root"))
            .arg("--state")
            .arg(world.path("containerd-state"))
            .arg("--address")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("containerd is installed");
        let containerd = Self { child, socket };
        wait_until("containerd", || containerd.ctr(&["version"]).status.success().then_some(()));
        containerd
    }

    fn ctr(&self, args: &[&str]) -> Output {
        try_run(Command::new("ctr").arg("--address").arg(&self.socket).args(args))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
    }
}

#[test]
fn privileged_containerd_runs_containers_with_it() {
    let world = World::new();
    let podman = Podman(&world);
    podman.run(&["import", text(&busybox(&world)), "busybox"]);
    let archive = world.path("image.tar");
    podman.run(&[
        "save",
        "--format",
        "oci-archive",
        "-o",
        text(&archive),
        "localhost/busybox:latest",
    ]);
    let containerd = Containerd::start(&world);
    let imported = containerd.ctr(&["images", "import", text(&archive)]);
    assert!(imported.status.success(), "{imported:?}");
    let names = containerd.ctr(&["images", "ls", "-q"]).stdout;
    let image = names.lines().next().unwrap();
    let program = runtime();
    let shown = containerd.ctr(&[
        "run",
        "--rm",
        "--runc-binary",
        text(&program),
        image,
        "c1",
        "sh",
        "-c",
        "id; exit 3",
    ]);
    assert_eq!((shown.code(), shown.stdout.as_str()), (3, "uid=0 gid=0 groups=0\n"), "{shown:?}");
}
