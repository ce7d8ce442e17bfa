//! The registry behind nginx: TLS ends there, names are longer by a prefix.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::process::{Child, Command, Stdio};

use e2e::{Registry, World, free_port, run, wait_until};

/// A running nginx, which ends with the value.
struct Nginx(Child);

impl Nginx {
    /// Forwards `https://localhost:PORT/v2/team/…` to the registry's `/v2/…`.
    fn start(world: &World, port: u16, registry: &Registry) -> Self {
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(world.path("nginx.key"))
            .arg("-out")
            .arg(world.path("nginx.crt")));
        let (directory, upstream) = (world.path("nginx"), registry.port());
        let config = format!(
            "daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes 1;
             events {{}}
             http {{
                 access_log off;
                 client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
                 scgi_temp_path {dir}; uwsgi_temp_path {dir};
                 server {{
                     listen 127.0.0.1:{port} ssl;
                     ssl_certificate {crt};
                     ssl_certificate_key {key};
                     client_max_body_size 0;
                     location /v2/team/ {{
                         proxy_pass http://127.0.0.1:{upstream}/v2/;
                         proxy_http_version 1.1;
                         proxy_request_buffering off;
                         proxy_buffering off;
                         proxy_set_header X-Forwarded-Prefix /v2/team;
                     }}
                     location = /v2/ {{ proxy_pass http://127.0.0.1:{upstream}; }}
                     location /v2/small/ {{
                         client_max_body_size 1k;
                         proxy_pass http://127.0.0.1:{upstream}/v2/;
                         proxy_set_header X-Forwarded-Prefix /v2/small;
                     }}
                 }}
             }}",
            dir = directory.display(),
            crt = world.path("nginx.crt").display(),
            key = world.path("nginx.key").display(),
        );
        std::fs::create_dir(&directory).unwrap();
        let config = world.write("nginx.conf", config);
        let child = Command::new("nginx")
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed");
        let nginx = Self(child);
        wait_until("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only if it may say goodbye.
        let _asked = Command::new("kill").arg(self.0.id().to_string()).status();
        let _reaped = self.0.wait();
    }
}

#[test]
fn privileged_images_pass_a_proxy_that_ends_tls_and_takes_a_prefix_off() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let port = free_port();
    let _nginx = Nginx::start(&world, port, &registry);
    world.build("app:1", "FROM busybox\nCMD [\"echo\", \"through\"]\n", &[]);
    let archive = world.path("app.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "app:1"]);

    // skopeo pushes a layer in a stream; where to is what the registry says.
    let skopeo = |args: &[&str]| run(Command::new("skopeo").arg("--insecure-policy").args(args));
    let name = format!("localhost:{port}/team/app:1");
    let remote = format!("docker://{name}");
    let from = format!("oci-archive:{}", archive.display());
    skopeo(&["copy", "--dest-tls-verify=false", &from, &remote]);
    let tags = skopeo(&[
        "list-tags",
        "--tls-verify=false",
        &format!("docker://localhost:{port}/team/app"),
    ]);
    assert!(tags.stdout.contains("\"1\""), "{tags:?}");
    // The registry itself knows nothing of the prefix.
    assert!(registry.get("/v2/app/tags/list").unwrap().contains("[\"1\"]"));

    // And rbuild, which trusts nginx's certificate.
    let certificate = world.path("nginx.crt");
    let trusting = |program: &str, args: &[&str]| {
        run(world.command(program, args).env("SSL_CERT_FILE", &certificate))
    };
    let own = format!("localhost:{port}/team/own:1");
    trusting("rbuild", &["tag", "app:1", &own]);
    trusting("rbuild", &["push", &own]);
    trusting("rbuild", &["rmi", &own]);
    trusting("rbuild", &["pull", &own]);
    assert_eq!(world.rrun(&["run", "--rm", &own]).stdout, "through\n");

    // A proxy with a limit refuses the layer; the push says so and ends.
    let small = format!("localhost:{port}/small/app:1");
    world.rbuild(&["tag", "app:1", &small]);
    let refused =
        e2e::try_run(world.command("rbuild", &["push", &small]).env("SSL_CERT_FILE", &certificate));
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("413"), "{refused:?}");
}
