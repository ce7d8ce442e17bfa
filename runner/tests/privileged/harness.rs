//! A state directory with a busybox image in it, and the program to use it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use oci::{DiffId, Digest, ImageConfig, Manifest, MediaType, Platform};
use store::Store;

pub(crate) use crate::outcome::Outcome;

/// More than any single command of these tests takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A state directory of a test's own; dropping it kills and removes what the
/// test has left, and checks that nothing is left on the host.
///
/// It has a network namespace of its own with `lo` up, so that bridges and
/// rules of a test are not those of the machine, and end with it.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    /// Keeps the network namespace.
    network: Child,
}

impl Host {
    /// Returns a host with the image `busybox`.
    pub(crate) fn new() -> Self {
        let host = Self { dir: tempfile::tempdir().unwrap(), network: new_network() };
        host.add_image("busybox", busybox_tar(), |config| {
            config.config.cmd = Some(vec!["sh".to_owned()]);
            config.config.env = vec!["PATH=/bin".to_owned()];
        });
        host
    }

    /// Returns a directory for files of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the state directory.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Adds an image of one layer.
    pub(crate) fn add_image(&self, name: &str, tar: &[u8], edit: impl FnOnce(&mut ImageConfig)) {
        let store = Store::open(&self.root()).unwrap();
        let lease = store.lease().unwrap();
        let mut ingest = lease.ingest().unwrap();
        ingest.write_all(tar).unwrap();
        let blob = ingest.commit(None).unwrap();
        let layer = oci::Descriptor::new(MediaType::OCI_LAYER_TAR, blob.digest, blob.size);
        let diff_id = DiffId(Digest::sha256(tar));
        lease.unpack(&layer, diff_id).unwrap();
        let mut config = ImageConfig::new(Platform::host());
        config.rootfs_diff_ids = vec![diff_id];
        edit(&mut config);
        let placeholder = oci::Descriptor::new(MediaType::OCI_CONFIG, blob.digest, 0);
        let manifest = Manifest::new(placeholder, vec![layer]);
        let descriptor = lease.put_image(&manifest, &config).unwrap();
        store.images().set(&lease, &name.parse().unwrap(), &descriptor).unwrap();
    }

    /// Returns the program, ready to be given arguments.
    pub(crate) fn command(&self) -> Command {
        // It executes the program in its own place: the process is that one.
        let mut command = Command::new("/usr/bin/nsenter");
        command
            .arg(format!("--net={}", self.namespace().display()))
            .args(["--", env!("CARGO_BIN_EXE_rrun")])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RBUILD_ROOT", self.root())
            .env("RRUN_INIT", helper())
            .stdin(Stdio::null());
        command
    }

    /// Returns the file of the network namespace.
    pub(crate) fn namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.network.id()))
    }

    /// Does something in the network namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network(&self.namespace(), work)
    }

    /// Runs a program of the system in the network namespace.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> Outcome {
        let mut command = Command::new("/usr/bin/nsenter");
        command.arg(format!("--net={}", self.namespace().display()));
        command.args(["--", "sh", "-euc", script]).stdin(Stdio::null());
        finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Starts the program with its output piped.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let piped = Stdio::piped;
        self.command().args(args).stdout(piped()).stderr(piped()).spawn().unwrap()
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn rrun(&self, args: &[&str]) -> Outcome {
        finish(self.start(args))
    }

    /// Runs the program with this input.
    #[track_caller]
    pub(crate) fn rrun_with_input(&self, args: &[&str], input: &str) -> Outcome {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // Meanwhile its output is read, or both would wait for ever. It need
        // not read all that is written.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
        let outcome = finish(child);
        writer.join().unwrap();
        outcome
    }

    /// Asserts that no container is there any more, nor anything of one.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.ids(), [""; 0], "containers are left");
        assert_eq!(names_in(&self.root().join("names")), [".lock"], "names are left");
        self.assert_no_traces();
    }

    /// Asserts that the host has no mounts of ours.
    #[track_caller]
    pub(crate) fn assert_no_traces(&self) {
        let root = self.root();
        let root = root.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours: Vec<_> = mounts.lines().filter(|line| line.contains(root)).collect();
        assert!(ours.is_empty(), "mounts are left: {ours:?}");
    }

    /// Returns a field of `inspect`.
    #[track_caller]
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        self.rrun(&["inspect", "--format", template, container]).ok()
    }

    /// Waits until a container is in this state.
    #[track_caller]
    pub(crate) fn wait_for(&self, container: &str, status: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.rrun(&["inspect", "--format", "{{.State.Status}}", container]);
            if outcome.stdout.trim_end() == status {
                return;
            }
            assert!(Instant::now() < deadline, "{container} is not {status}: {outcome:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the ids of all containers there are.
    pub(crate) fn ids(&self) -> Vec<String> {
        names_in(&self.root().join("containers"))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let ids = self.ids();
        if !ids.is_empty() {
            let mut args = vec!["rm", "-f"];
            args.extend(ids.iter().map(String::as_str));
            // Best effort: the test has passed or failed already.
            drop(finish(self.start(&args)));
        }
        // The namespace ends with the last process in it.
        self.network.kill().ok();
        self.network.wait().ok();
        for id in ids {
            assert!(cgroups(&id).is_empty() || std::thread::panicking(), "cgroups are left");
        }
    }
}

/// Does something in a network namespace.
pub(crate) fn in_network<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        // A thread is in a namespace, and this one ends afterwards.
        let thread = scope.spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// Starts a process in a network namespace of its own, which has begun when this
/// returns.
fn new_network() -> Child {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "ip link set lo up && echo ready && exec sleep 1000000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child
}

/// Waits for a child, for so long and no longer.
#[track_caller]
pub(crate) fn finish(mut child: Child) -> Outcome {
    // Read while waiting: a full pipe would hold the child up.
    let mut readers = Vec::new();
    for stream in [
        child.stdout.take().map(|s| Box::new(s) as Box<dyn std::io::Read + Send>),
        child.stderr.take().map(|s| Box::new(s) as Box<dyn std::io::Read + Send>),
    ] {
        readers.push(std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }));
    }
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the command hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap());
    let stderr = readers.pop().unwrap().join().unwrap();
    let stdout = readers.pop().unwrap().join().unwrap();
    Outcome { code, stdout, stderr }
}

/// Returns the control group directories on this host with `id` in their name.
pub(crate) fn cgroups(id: &str) -> Vec<PathBuf> {
    let find = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name", &format!("*{id}*")])
        .output()
        .unwrap();
    String::from_utf8(find.stdout).unwrap().lines().map(PathBuf::from).collect()
}

/// Returns the sorted names in a directory; none if it is not there.
pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes a tar of a directory, everything in it owned by root.
pub(crate) fn tar_of(dir: &Path) -> Vec<u8> {
    let output: Output = Command::new("tar")
        .args([
            "--create",
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--directory",
        ])
        .arg(dir)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Returns a layer with busybox from Debian's busybox-static.
pub(crate) fn busybox_tar() -> &'static [u8] {
    static TAR: OnceLock<Vec<u8>> = OnceLock::new();
    TAR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        busybox_tree(dir.path());
        tar_of(dir.path())
    })
}

/// Fills a directory with what a small system has.
pub(crate) fn busybox_tree(dir: &Path) {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    let busybox = busybox.expect("Debian's busybox-static is installed");
    for name in ["bin", "etc", "tmp", "home/app", "data"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(busybox, dir.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "ls", "id", "env", "true", "false", "sleep", "echo", "hostname", "pwd",
        "tail", "head", "touch", "mkdir", "rm", "wc", "stty", "tty", "kill", "seq", "yes", "stat",
        "df", "mount", "test", "ps", "ip", "dd", "readlink", "grep", "mknod", "printf", "httpd",
        "nc", "timeout",
    ] {
        symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    fs::write(
        dir.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:2000:app\n").unwrap();
    fs::write(dir.join("data/seed"), "from the image\n").unwrap();
    fs::write(dir.join("etc/not-a-program"), "just text\n").unwrap();
}

/// Returns the sandbox's helper, which is a program of another package: built
/// here unless it is up to date.
pub(crate) fn helper() -> &'static Path {
    static HELPER: OnceLock<PathBuf> = OnceLock::new();
    HELPER.get_or_init(|| {
        let target = Path::new(env!("CARGO_BIN_EXE_rrun")).parent().unwrap();
        let sandbox = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox");
        // Not asking cargo when it has nothing to do: it waits for other builds.
        if let Ok(built) = fs::metadata(target.join("rrun-init"))
            && built.modified().unwrap() > newest(&sandbox.join("src"))
        {
            return target.join("rrun-init");
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--package", "sandbox", "--bin", "rrun-init"]);
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        let status = cargo.status().expect("cargo builds rrun-init");
        assert!(status.success(), "rrun-init cannot be built");
        target.join("rrun-init")
    })
}

/// Returns when anything in a tree was last changed.
fn newest(path: &Path) -> SystemTime {
    let metadata = fs::metadata(path).unwrap();
    let own = metadata.modified().unwrap();
    if !metadata.is_dir() {
        return own;
    }
    fs::read_dir(path)
        .unwrap()
        .map(|entry| newest(&entry.unwrap().path()))
        .fold(own, SystemTime::max)
}
