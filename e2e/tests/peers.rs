//! Other people's programs, from Debian's packages, against ours.
//!
//! podman cannot raise limits where the host's root may not, and crun refuses hybrid
//! cgroups: both are told to use what works on every host (runc, cgroupfs, the limits as
//! they are).
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod peer;

use std::process::Command;

use e2e::{Dockerd, Registry, World, run};
use peer::{Podman, listing};

const HELLO: &str = "FROM busybox\nRUN echo from rbuild >/hello && ln /hello /hard && ln -s hello /soft && chmod 4755 /hard\nENV A=b\nCMD [\"sh\", \"-c\", \"cat /soft; echo $A\"]\n";

fn skopeo(args: &[&str]) -> e2e::Output {
    run(Command::new("skopeo").arg("--insecure-policy").args(args))
}

#[test]
fn privileged_skopeo_copies_into_and_out_of_the_registry() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let id = world.build("app:1", HELLO, &[]);
    let archive = world.path("app.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "app:1"]);

    let remote = format!("docker://{}/skopeo/app:1", registry.host());
    for (kind, tag) in [("oci-archive", "oci"), ("docker-archive", "docker")] {
        let to = format!("docker://{}/skopeo/app:{tag}", registry.host());
        skopeo(&["copy", "--dest-tls-verify=false", &format!("{kind}:{}", archive.display()), &to]);
    }
    skopeo(&[
        "copy",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{}/skopeo/app:oci", registry.host()),
        &remote,
    ]);

    let layout = world.path("layout");
    skopeo(&["copy", "--src-tls-verify=false", &remote, &format!("oci:{}:app", layout.display())]);
    let inspected = skopeo(&["inspect", "--config", &format!("oci:{}:app", layout.display())]);
    let config: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
    assert_eq!(config["config"]["Env"].as_array().unwrap().last().unwrap(), "A=b");

    let name = format!("{}/skopeo/app:1", registry.host());
    world.rbuild(&["pull", &name]);
    let pulled: serde_json::Value =
        serde_json::from_str(&world.rbuild(&["inspect", &name]).stdout).unwrap();
    assert_eq!(pulled[0]["Id"].as_str().unwrap(), id, "the image id survives skopeo");
    let tags = skopeo(&[
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}/skopeo/app", registry.host()),
    ]);
    for tag in ["1", "docker", "oci"] {
        assert!(tags.stdout.contains(&format!("\"{tag}\"")), "{tags:?}");
    }
    skopeo(&["delete", "--tls-verify=false", &remote]);
}

#[test]
fn privileged_podman_runs_an_image_that_rbuild_built() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/podman/app:1", registry.host());
    world.build(&name, HELLO, &[]);
    world.rbuild(&["push", &name]);
    let podman = Podman::new(&world);
    podman.run(&["pull", "--tls-verify=false", &name]);
    let output = podman.run(&["run", "--rm", "--network", "none", &name]);
    assert_eq!(output.stdout, "from rbuild\nb\n");

    // And back: what podman pushes, rrun runs.
    let back = format!("{}/podman/back:1", registry.host());
    podman.run(&["tag", &name, &back]);
    podman.run(&["push", "--tls-verify=false", &back]);
    assert_eq!(world.rrun(&["run", "--rm", &back]).stdout, "from rbuild\nb\n");
}

#[test]
fn privileged_docker_runs_an_image_that_rbuild_built() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/docker/app:1", registry.host());
    world.build(&name, HELLO, &[]);
    world.rbuild(&["push", &name]);
    let docker = Dockerd::start(&world);
    docker.run(&["pull", &name]);
    assert_eq!(docker.run(&["run", "--rm", "--network", "none", &name]).stdout, "from rbuild\nb\n");

    let archive = world.path("app.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), &name]);
    docker.run(&["rmi", &name]);
    docker.run(&["load", "-i", archive.to_str().unwrap()]);
    assert_eq!(docker.run(&["run", "--rm", "--network", "none", &name]).stdout, "from rbuild\nb\n");

    let back = format!("{}/docker/back:1", registry.host());
    docker.run(&["tag", &name, &back]);
    docker.run(&["push", &back]);
    assert_eq!(world.rrun(&["run", "--rm", &back]).stdout, "from rbuild\nb\n");
}

#[test]
fn privileged_rrun_runs_an_image_that_buildah_built() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let base = format!("{}/library/busybox:latest", registry.host());
    world.rbuild(&["push", "busybox", &base]);
    let name = format!("{}/buildah/app:1", registry.host());
    let dockerfile = world.write(
        "buildah/Dockerfile",
        format!("FROM {base}\nRUN echo from buildah >/hello && rm /bin/wget\nENV A=c\nCMD [\"sh\", \"-c\", \"cat /hello; echo $A; ls /bin/wget\"]\n"),
    );
    let buildah = |args: &[&str]| {
        run(Command::new("buildah")
            .args([
                "--root",
                world.path("buildah-root").to_str().unwrap(),
                "--runroot",
                world.path("buildah-run").to_str().unwrap(),
            ])
            .args(["--storage-driver", "vfs"])
            .args(args))
    };
    buildah(&[
        "build",
        "--isolation",
        "chroot",
        "--tls-verify=false",
        "-t",
        &name,
        dockerfile.parent().unwrap().to_str().unwrap(),
    ]);
    buildah(&["push", "--tls-verify=false", &name]);

    let output = world.try_rrun(&["run", "--rm", &name]);
    assert_eq!(output.stdout, "from buildah\nc\n");
    assert_eq!(output.code(), 1, "the deleted file is gone: {output:?}");
}

#[test]
fn privileged_umoci_unpacks_the_tree_that_rrun_sees() {
    let world = World::with_busybox();
    let dockerfile = "FROM busybox\nRUN mkdir -p /a/b /gone && echo 1 >/a/b/f && echo x >/gone/x && chmod 2755 /a && ln /a/b/f /a/hard && mkfifo /a/pipe\nRUN rm -rf /gone /a/b && mkdir /a/b && echo 2 >/a/b/g && rm /bin/vi && chown 12:34 /a/hard\nCOPY data /data\n";
    world.build("tree:1", dockerfile, &[("data/one", "1"), ("data/sub/two", "2")]);
    let archive = world.path("tree.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "tree:1"]);
    let layout = world.path("layout");
    skopeo(&[
        "copy",
        &format!("oci-archive:{}", archive.display()),
        &format!("oci:{}:tree", layout.display()),
    ]);
    let bundle = world.path("bundle");
    run(Command::new("umoci")
        .args(["unpack", "--image", &format!("{}:tree", layout.display())])
        .arg(&bundle));

    // The same program lists both trees, from inside a container and with the unpacked one mounted into it.
    let ours = listing(&world, &["tree:1"], "/");
    let theirs = listing(
        &world,
        &["-v", &format!("{}:/unpacked:ro", bundle.join("rootfs").display()), "busybox"],
        "/unpacked",
    );
    assert!(ours.contains("./a/b/g"), "{ours}");
    assert_eq!(ours, theirs);
}
