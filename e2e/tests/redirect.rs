//! Clients that are sent to the bucket for large layers.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use e2e::{Registry, World, free_port, run, wait_until};

/// moto's S3 server with an empty bucket, which ends with the value.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/s3-servers");
        let servers = run(&mut Command::new(script)).stdout;
        let port = free_port();
        let child = Command::new(Path::new(servers.trim()).join("moto-5.2.1/bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { child, port };
        let mut connection = wait_until("moto", || TcpStream::connect(("127.0.0.1", port)).ok());
        let request = "PUT /images HTTP/1.0\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n";
        connection.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        moto
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn privileged_clients_fetch_large_layers_from_the_bucket() {
    let world = World::with_busybox();
    let moto = Moto::start();
    let log = std::fs::File::create(world.path("registry.log")).unwrap();
    let registry = Registry::with(|command| {
        command
            .args(["--storage", "s3://images", "--storage-redirect"])
            .args(["--storage-endpoint", &format!("http://localhost:{}", moto.port)])
            .args(["--storage-redirect-from", "100000", "--log-format", "json"])
            .envs([("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "secret")])
            .stderr(log)
    });
    let name = format!("{}/large:1", registry.host());
    world.build(&name, "FROM busybox\nRUN head -c 7000000 /dev/urandom >/large\n", &[]);
    let digest = world.rrun(&["run", "--rm", &name, "sha256sum", "/large"]).stdout;
    world.rbuild(&["push", &name]);

    let redirects = || {
        let log = std::fs::read_to_string(world.path("registry.log")).unwrap();
        log.lines().filter(|line| line.contains("\"status\":307")).count()
    };
    world.rbuild(&["rmi", &name]);
    world.rbuild(&["prune", "--force"]);
    assert_eq!(redirects(), 0);
    world.rbuild(&["pull", &name]);
    assert!(redirects() > 0, "rbuild was not redirected");
    assert_eq!(world.rrun(&["run", "--rm", &name, "sha256sum", "/large"]).stdout, digest);

    let before = redirects();
    let copy = world.path("copy.tar");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .arg(format!("docker://{name}"))
        .arg(format!("oci-archive:{}", copy.display())));
    assert!(redirects() > before, "skopeo was not redirected");
    world.rbuild(&["load", "-i", copy.to_str().unwrap()]);
    // Addresses that open the bucket are not for a log.
    let log = std::fs::read_to_string(world.path("registry.log")).unwrap();
    assert!(!log.contains("X-Amz-Signature"), "{log}");
}
