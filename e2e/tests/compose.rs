//! The compose file at the top of the repository, with docker-compose from Debian's packages.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Dockerd, Output, World, run, wait_until};

/// A project of docker-compose; what it started goes with it.
struct Project {
    docker: Dockerd,
    files: Vec<PathBuf>,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    /// Copies the repository's file, and what it mounts, to where the daemon's containers may
    /// read it; loads `images`.
    fn new(world: &World, images: &[&str]) -> Self {
        let archive = world.path("images.tar");
        world.rbuild(&[&["save", "-o", archive.to_str().unwrap()], images].concat());
        let docker = Dockerd::start(world);
        docker.run(&["load", "-i", archive.to_str().unwrap()]);
        fs::create_dir(world.path("registry")).unwrap();
        for file in ["docker-compose.yml", "registry/nginx.conf"] {
            fs::copy(repository().join(file), world.path(file)).unwrap();
        }
        Self { docker, files: vec![world.path("docker-compose.yml")], variables: Vec::new() }
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker-compose");
        command.env("DOCKER_HOST", self.docker.host()).envs(self.variables.iter().cloned());
        command.args(["--project-name", "e2e"]);
        for file in &self.files {
            command.arg("--file").arg(file);
        }
        run(command.args(args))
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the registry's image: its context is the program and the Dockerfile.
fn build_registry(world: &World) {
    fs::create_dir(world.path("context")).unwrap();
    fs::copy(World::program("rregistry"), world.path("context/rregistry")).unwrap();
    fs::copy(repository().join("registry/Dockerfile"), world.path("context/Dockerfile")).unwrap();
    world.rbuild(&["-t", "rregistry", world.path("context").to_str().unwrap()]);
}

#[test]
fn privileged_one_registry_keeps_its_images_on_a_volume() {
    let world = World::with_debian();
    build_registry(&world);
    let mut project = Project::new(&world, &["rregistry"]);
    let port = e2e::free_port();
    project.variables.push(("RREGISTRY_PORT", port.to_string()));
    project.run(&["up", "-d"]);
    let name = format!("localhost:{port}/compose/busybox");
    wait_until("the registry in compose", || {
        let pushed = world.try_rbuild(&["push", "busybox", &name]);
        pushed.status.success().then_some(())
    });
    // What was pushed outlives the container: it is on the named volume.
    project.run(&["down"]);
    project.run(&["up", "-d"]);
    wait_until("the registry after a restart", || {
        world.try_rbuild(&["pull", &name]).status.success().then_some(())
    });
    project.run(&["down", "--volumes"]);
}

#[test]
fn privileged_two_replicas_over_a_bucket_stand_in_for_each_other() {
    let world = World::with_debian();
    build_registry(&world);
    world.build(
        "nginx:e2e",
        "FROM debian:bookworm-slim
         RUN apt-get update && apt-get install --yes --no-install-recommends nginx-light
         CMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
        &[],
    );
    // s3s-fs stands for somebody's S3 store; its names must be short.
    let servers = run(&mut Command::new(repository().join("testdata/s3-servers"))).stdout;
    let store = Path::new(servers.trim()).join("s3s-fs-0.14.1/bin");
    let dockerfile = world.write(
        "store.Dockerfile",
        "FROM debian:bookworm-slim
         COPY s3s-fs /usr/bin/
         RUN mkdir -p /data/bkt
         CMD [\"s3s-fs\", \"--host\", \"0.0.0.0\", \"--port\", \"9000\", \"--access-key\", \"me\", \"--secret-key\", \"secret\", \"/data\"]\n",
    );
    world.rbuild(&["-t", "store", "-f", dockerfile.to_str().unwrap(), store.to_str().unwrap()]);

    let mut project = Project::new(&world, &["rregistry", "nginx:e2e", "store"]);
    project.files.push(world.write(
        "store.yml",
        "services: { store: { image: \"store:latest\", profiles: [replicas] } }\n",
    ));
    let port = e2e::free_port();
    project.variables.extend([
        ("NGINX_IMAGE", "nginx:e2e".to_owned()),
        ("RREGISTRY_PROXY_PORT", port.to_string()),
        ("RREGISTRY_STORAGE", "s3://bkt".to_owned()),
        ("AWS_ENDPOINT", "http://store:9000".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "me".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
    ]);
    project.run(&["--profile", "replicas", "up", "-d", "store", "proxy"]);
    let name = format!("localhost:{port}/app");
    world.rbuild(&["tag", "busybox", &name]);
    wait_until("replicas in compose", || {
        world.try_rbuild(&["push", &name]).status.success().then_some(())
    });
    // Either replica has what the other one took.
    for (killed, left) in [("replica-1", "replica-2"), ("replica-2", "replica-1")] {
        project.run(&["kill", killed]);
        world.rbuild(&["rmi", &name]);
        wait_until(left, || world.try_rbuild(&["pull", &name]).status.success().then_some(()));
        project.run(&["--profile", "replicas", "up", "-d", killed]);
    }
    project.run(&["--profile", "replicas", "down", "--volumes"]);
}
