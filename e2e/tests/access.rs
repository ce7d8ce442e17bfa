//! A registry with users: other people's clients log in, push what they may, and
//! are refused the rest.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

#[expect(dead_code, reason = "other tests use the rest")]
mod peer;

use std::io::Write as _;
use std::process::{Command, Stdio};

use e2e::{Dockerd, Output, Registry, World, run, try_run};
use peer::Podman;

const DOCKERFILE: &str = "FROM busybox\nCMD [\"echo\", \"let in\"]\n";

/// `maker` may push below `team`; everybody may pull from `library`.
const CONFIG: &str = r#"
[storage]
root = "registry"

[access]
users-file = "users"
policies = [
    { users = ["@anyone"], repositories = ["library/**"], actions = ["pull"] },
    { users = ["maker"], repositories = ["team/**", "library/**"], actions = ["pull", "push"] },
]
"#;

const PASSWORD: &str = "open sesame";

fn guarded(world: &World) -> Registry {
    let config = world.write("config.toml", CONFIG);
    let mut child = Command::new(World::program("rregistry"))
        .args(["user", "add", "--password-stdin", "maker", "--file"])
        .arg(world.path("users"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(child.wait().unwrap().success());
    Registry::configured(&config)
}

#[test]
fn privileged_rbuild_logs_in_and_pushes_what_it_may() {
    let world = World::with_busybox();
    let registry = guarded(&world);
    let (team, other) =
        (format!("{}/team/app:1", registry.host()), format!("{}/other/app:1", registry.host()));
    world.build(&team, DOCKERFILE, &[]);
    world.rbuild(&["tag", &team, &other]);
    let config = world.path("docker-config");
    let rbuild = |args: &[&str]| -> Output {
        try_run(world.command("rbuild", args).env("DOCKER_CONFIG", &config))
    };
    assert!(!rbuild(&["push", &team]).status.success(), "pushed without a name");
    let login = |password: &str| {
        let mut child = world
            .command("rbuild", &["login", "-u", "maker", "--password-stdin", &registry.host()])
            .env("DOCKER_CONFIG", &config)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        child.wait().unwrap().success()
    };
    assert!(!login("wrong"));
    assert!(login(PASSWORD));
    assert!(rbuild(&["push", &team]).status.success());
    let refused = rbuild(&["push", &other]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("denies access"), "{refused:?}");
    world.rbuild(&["rmi", &team]);
    assert!(rbuild(&["pull", &team]).status.success());
    assert!(rbuild(&["logout", &registry.host()]).status.success());
    assert!(!rbuild(&["pull", &team]).status.success(), "pulled without a name");
}

#[test]
fn privileged_skopeo_podman_and_docker_log_in() {
    let world = World::with_busybox();
    let registry = guarded(&world);
    let local = world.build("app:1", DOCKERFILE, &[]);
    assert!(!local.is_empty());
    let archive = world.path("app.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "app:1"]);
    let host = registry.host();

    // skopeo brings its credentials along.
    let skopeo =
        |args: &[&str]| try_run(Command::new("skopeo").arg("--insecure-policy").args(args));
    let from = format!("oci-archive:{}", archive.display());
    let copy = |credentials: &str, name: &str| {
        let to = format!("docker://{host}/{name}");
        skopeo(&["copy", "--dest-tls-verify=false", "--dest-creds", credentials, &from, &to])
    };
    assert!(copy(&format!("maker:{PASSWORD}"), "team/app:1").status.success());
    assert!(copy(&format!("maker:{PASSWORD}"), "library/app:1").status.success());
    assert!(!copy("maker:wrong", "team/app:2").status.success());
    assert!(!copy(&format!("maker:{PASSWORD}"), "other/app:1").status.success());
    let inspect = |name: &str| {
        skopeo(&["inspect", "--tls-verify=false", "--no-creds", &format!("docker://{host}/{name}")])
    };
    assert!(inspect("library/app:1").status.success(), "what is open needs no name");
    assert!(!inspect("team/app:1").status.success());

    // podman and docker log in first; docker's daemon learns at `/v2/` how.
    let podman = Podman::new(&world);
    let team = format!("{host}/team/app:1");
    podman.run(&["login", "--tls-verify=false", "-u", "maker", "-p", PASSWORD, &host]);
    podman.run(&["pull", "--tls-verify=false", &team]);
    let back = format!("{host}/team/podman:1");
    podman.run(&["tag", &team, &back]);
    podman.run(&["push", "--tls-verify=false", &back]);

    let docker = Dockerd::start(&world);
    let config = world.path("docker-config");
    let docker_run = |args: &[&str]| run(docker.command(args).env("DOCKER_CONFIG", &config));
    let refused = try_run(docker.command(&["pull", &team]).env("DOCKER_CONFIG", &config));
    assert!(!refused.status.success(), "docker pulled without a name");
    docker_run(&["pull", &format!("{host}/library/app:1")]);
    docker_run(&["login", "-u", "maker", "-p", PASSWORD, &host]);
    docker_run(&["pull", &team]);
    let back = format!("{host}/team/docker:1");
    docker_run(&["tag", &team, &back]);
    docker_run(&["push", &back]);
    assert!(copy(&format!("maker:{PASSWORD}"), "team/docker:2").status.success());
}
