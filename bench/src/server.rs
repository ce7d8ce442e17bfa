//! The servers that are compared: ours, distribution's, and nginx.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::world::{program, wait_until};

/// One of the three servers; it ends with the value.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) root: std::path::PathBuf,
}

impl Server {
    /// Starts ours, on a directory beneath `dir`.
    pub(crate) fn rregistry(dir: &Path) -> Result<Self> {
        let root = dir.join("ours");
        let mut child = Command::new(program("rregistry")?)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--no-access-log",
                "--log",
                "error",
                "--root",
            ])
            .arg(&root)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its output is piped")?).read_line(&mut line)?;
        let port = line
            .split([':', ','])
            .nth(1)
            .and_then(|port| port.parse().ok())
            .with_context(|| format!("rregistry said {line}"))?;
        Ok(Self { name: "rregistry", child, port, root })
    }

    /// Starts distribution's, likewise.
    pub(crate) fn docker_registry(dir: &Path) -> Result<Self> {
        let (port, root, config) =
            (free_port()?, dir.join("theirs"), dir.join("docker-registry.yml"));
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                root.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker-registry")?;
        Self { name: "docker-registry", child, port, root }.ready()
    }

    /// Starts nginx, serving the files in `www`.
    pub(crate) fn nginx(dir: &Path, www: &Path) -> Result<Self> {
        let (port, config) = (free_port()?, dir.join("nginx.conf"));
        let dir = dir.display();
        fs::write(
            &config,
            format!(
                "user root; worker_processes 2; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;\nevents {{ worker_connections 1024; }}\n\
                 http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
                www.display()
            ),
        )?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(config)
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start nginx")?;
        Self { name: "nginx", child, port, root: www.to_owned() }.ready()
    }

    fn ready(self) -> Result<Self> {
        wait_until(self.name, || TcpStream::connect(("127.0.0.1", self.port)).is_ok())?;
        Ok(self)
    }

    /// Sends the head of a request on a new connection.
    pub(crate) fn send(&self, head: &str) -> Result<TcpStream> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
        connection.write_all(head.as_bytes())?;
        Ok(connection)
    }

    /// Sends a request and returns the whole answer.
    pub(crate) fn ask(&self, request: &str) -> Result<String> {
        let mut answer = String::new();
        self.send(request)?.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Removes a blob's bytes.
    pub(crate) fn forget(&self, digest: &str) -> Result<()> {
        let hex = digest.split_once(':').context("a digest has a colon")?.1;
        fs::remove_dir_all(self.root.join("blob/sha256").join(&hex[..2]).join(hex))?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM lets nginx end its workers; nothing can be done where that fails.
        let _asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ended = self.child.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
