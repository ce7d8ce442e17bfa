//! A bundle with busybox, and the program to run it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) use crate::outcome::Outcome;

/// More than any single command of these tests takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bundle and a state directory of a test's own. Dropping it deletes the
/// containers, and checks that they left no control group.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    /// The configuration, written before each command.
    pub(crate) config: Value,
    /// Where its control groups are: no other test has that.
    cgroup: String,
}

impl Bundle {
    /// Returns a bundle whose process is `sh -c script`.
    pub(crate) fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("bundle/rootfs");
        fs::create_dir_all(&root).unwrap();
        tree(&root);
        let mut bundle = Self {
            dir,
            config: Value::Null,
            cgroup: format!(
                "/rrun-oci-test-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
        };
        bundle.command(&["spec", "--bundle", bundle.path("bundle").to_str().unwrap()]).ok();
        let text = fs::read(bundle.path("bundle/config.json")).unwrap();
        bundle.config = serde_json::from_slice(&text).unwrap();
        bundle.config["process"]["terminal"] = json!(false);
        bundle.config["process"]["args"] = json!(["sh", "-c", script]);
        bundle.config["root"]["readonly"] = json!(false);
        bundle.config["linux"]["cgroupsPath"] = json!(bundle.cgroup);
        bundle
    }

    /// Returns a path among the test's files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a path in the root.
    pub(crate) fn root(&self, name: &str) -> PathBuf {
        self.path("bundle/rootfs").join(name)
    }

    /// Adds to a list of the configuration.
    pub(crate) fn push(&mut self, pointer: &str, value: Value) {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
    }

    /// Takes a namespace away, or replaces it.
    pub(crate) fn namespace(&mut self, kind: &str, with: Option<Value>) {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|namespace| namespace["type"] != kind);
        list.extend(with);
    }

    /// Returns the program with its state directory, ready to be given
    /// arguments.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rrun-oci"));
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RRUN_INIT", helper())
            .arg("--root")
            .arg(self.path("states"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command; outputs go through files, which a container that stays
    /// does not keep open for us.
    pub(crate) fn command(&self, args: &[&str]) -> Outcome {
        if !self.config.is_null() {
            let text = serde_json::to_vec(&self.config).unwrap();
            fs::write(self.path("bundle/config.json"), text).unwrap();
        }
        let mut command = self.program();
        command.args(args);
        run(&mut command)
    }

    /// Runs the bundle in the foreground as the container `c`.
    pub(crate) fn run(&self) -> Outcome {
        let bundle = self.path("bundle");
        self.command(&["run", "--bundle", bundle.to_str().unwrap(), "c"])
    }

    /// Creates the container `c`.
    pub(crate) fn create(&self) -> Outcome {
        let bundle = self.path("bundle");
        self.command(&["create", "--bundle", bundle.to_str().unwrap(), "c"])
    }

    /// Creates and starts the container `c`.
    #[track_caller]
    pub(crate) fn start(&self) {
        self.create().ok();
        self.command(&["start", "c"]).ok();
    }

    /// Returns a field of the container's state.
    #[track_caller]
    pub(crate) fn state(&self, field: &str) -> Value {
        let state: Value = serde_json::from_str(&self.command(&["state", "c"]).ok()).unwrap();
        state[field].clone()
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub(crate) fn wait_status(&self, status: &str) {
        wait_until(status, || (self.state("status") == status).then_some(()));
    }

    /// Returns the directories of the container's control groups.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        trees
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|tree| tree.join(&self.cgroup[1..]))
            .filter(|path| path.is_dir())
            .collect()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let list = self.command(&["list", "--quiet"]).stdout;
        for id in list.lines() {
            self.command(&["delete", "--force", id]);
        }
        if !std::thread::panicking() {
            let left = self.cgroups();
            assert!(left.is_empty(), "control groups are left: {left:?}");
        }
    }
}

/// Runs a command with its outputs in files.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut child =
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let read = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        std::io::Seek::rewind(file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Outcome { code: status.code().unwrap_or(-1), stdout: read(&mut out), stderr: read(&mut err) }
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Fills a root with what a small system has.
fn tree(root: &Path) {
    for name in ["bin", "etc", "tmp", "data"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("Debian's busybox-static"), root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "cat", "ls", "id", "env", "true", "sleep", "echo", "hostname", "pwd", "touch",
        "grep", "stat", "mount", "ps", "readlink", "kill", "wc", "mknod", "dd", "date", "cut",
        "test",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("data/seed"), "from the image\n").unwrap();
}

/// Returns the sandbox's helper, built if it is not there.
pub(crate) fn helper() -> PathBuf {
    static BUILD: std::sync::Once = std::sync::Once::new();
    let target = Path::new(env!("CARGO_BIN_EXE_rrun-oci")).parent().unwrap();
    BUILD.call_once(|| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--package", "sandbox", "--bin", "rrun-init"]);
        if target.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "rrun-init cannot be built");
    });
    target.join("rrun-init")
}
