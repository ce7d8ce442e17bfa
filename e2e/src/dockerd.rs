//! docker, with its state among a test's files.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::{Output, World, run, try_run, wait_until};

/// A docker daemon with its own state and socket, which ends with the value.
#[derive(Debug)]
pub struct Dockerd {
    child: Child,
    socket: String,
}

impl Dockerd {
    /// Starts dockerd and waits until it answers.
    #[must_use]
    pub fn start(world: &World) -> Self {
        Self::start_with(world, &[])
    }

    /// Starts dockerd with further arguments.
    #[must_use]
    pub fn start_with(world: &World, args: &[&str]) -> Self {
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
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("dockerd is installed");
        let dockerd = Self { child, socket };
        wait_until("dockerd", || dockerd.try_run(&["version"]).status.success().then_some(()));
        dockerd
    }

    /// The value of `DOCKER_HOST`.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket)
    }

    /// A docker command line, which builds with BuildKit.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        // Debian's client: another one may stand first in the PATH.
        let mut command = Command::new("/usr/bin/docker");
        command.env("DOCKER_BUILDKIT", "1").args(["--host", &self.host()]).args(args);
        command
    }

    /// Runs a docker command, which must succeed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs a docker command, whatever its exit code.
    pub fn try_run(&self, args: &[&str]) -> Output {
        try_run(&mut self.command(args))
    }

    /// Asks the daemon itself, which is ten times as fast as its client; returns the answer, which must be one of success.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let text = String::from_utf8_lossy(&answer);
        let is_success = text.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        assert!(is_success, "{method} {path}: {text}");
        answer.split_off(end)
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
