//! A registry of our own on a free loopback port.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{World, wait_until};

/// A running `rregistry`, which ends with the value.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// Starts one on a free port with its storage in `root`.
    #[must_use]
    pub fn start(root: &Path) -> Self {
        Self::start_on(root, free_port())
    }

    /// Starts one on this port with its storage in `root`.
    #[must_use]
    pub fn start_on(root: &Path, port: u16) -> Self {
        Self::serve(port, |command| command.arg("--root").arg(root))
    }

    /// Starts one on a free port with this configuration file.
    #[must_use]
    pub fn configured(config: &Path) -> Self {
        Self::serve(free_port(), |command| command.arg("--config").arg(config))
    }

    /// Starts one on a free port with what `configure` adds to its command line and environment.
    #[must_use]
    pub fn with(configure: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        Self::serve(free_port(), configure)
    }

    fn serve(port: u16, configure: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(World::program("rregistry"));
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = configure(&mut command).spawn().expect("rregistry is built");
        let registry = Self { child, port };
        wait_until("the registry", || {
            registry.get("/healthz").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        registry
    }

    /// `localhost:PORT`, as the first part of a reference.
    #[must_use]
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one GET request and returns the whole answer, head and body; nothing where no one listens.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A loopback port that nobody listens on.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
