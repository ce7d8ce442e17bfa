//! Repositories that are reached by ssh, with a real server. These need root: the server knows who
//! may log in from root's home, which it gets a private one of.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fetch::{publish, repository};
use crate::world::{Built, World};

/// A program that ends with the value.
struct Running(Child);

impl Running {
    /// Starts a program and waits until `is_ready`.
    fn start(command: &mut Command, is_ready: impl Fn() -> bool) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Self(child.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_ready() {
            assert!(Instant::now() < deadline, "{command:?} does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(program: &str, arguments: &[&str], agent: Option<&Path>) {
    let mut command = Command::new(program);
    let output = command.args(arguments).envs(agent.map(|path| ("SSH_AUTH_SOCK", path))).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A directory with keys, the repository `r.git`, and the home that lets the owner of `key` in.
fn keys(root: &Path) {
    let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path("key")], None);
    for name in ["host", "other"] {
        run("dropbearkey", &["-t", "ed25519", "-f", &path(name)], None);
    }
    let ssh = root.join("home/.ssh");
    fs::create_dir_all(&ssh).unwrap();
    fs::copy(root.join("key.pub"), ssh.join("authorized_keys")).unwrap();
    for (path, mode) in [(root.join("home"), 0o700), (ssh.clone(), 0o700)] {
        fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    fs::set_permissions(ssh.join("authorized_keys"), PermissionsExt::from_mode(0o600)).unwrap();
    publish(&repository(root, "r"));
}

fn serve(root: &Path, host_key: &str, port: u16) -> Running {
    let script = "mount --bind \"$1\" ~root && exec dropbear -F -E -s -r \"$2\" -p \"$3\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command.arg(root.join("home")).arg(root.join(host_key)).arg(format!("127.0.0.1:{port}"));
    Running::start(&mut command, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
}

#[test]
fn privileged_a_repository_comes_over_ssh_from_a_host_that_stays_the_same() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    keys(root.path());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket: PathBuf = root.path().join("agent");
    let mut agent = Command::new("ssh-agent");
    let _agent = Running::start(agent.arg("-D").arg("-a").arg(&socket), || socket.exists());
    run("ssh-add", &["-q", root.path().join("key").to_str().unwrap()], Some(&socket));
    let home = root.path().join("home of the builder");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let url = format!("ssh://root@127.0.0.1:{port}{}/r.git", root.path().display());
    let build = |agent: Option<&Path>| {
        let mut command = world.build_command(&format!("FROM scratch\nADD {url}#v1 /d\n"), &[]);
        command.env("HOME", &home).env_remove("SSH_AUTH_SOCK");
        Built::of(command.envs(agent.map(|path| ("SSH_AUTH_SOCK", path))).output().unwrap())
    };

    let server = serve(root.path(), "host", port);
    let built = build(Some(&socket));
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(world.files()["d/sub/deep/b"], "644 \"two\"");
    let known = fs::read_to_string(home.join(".ssh/known_hosts")).unwrap();
    assert!(known.contains(&format!("[127.0.0.1]:{port} ssh-ed25519 ")), "{known}");
    // Nobody is asked for a password.
    let refused = build(None);
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);

    drop(server);
    let _server = serve(root.path(), "other", port);
    let refused = build(Some(&socket));
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("Host key verification failed"), "{}", refused.stderr);
}
