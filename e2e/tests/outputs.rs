//! What builds write, read by other people's programs; and pushes that begin before the build ends.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e::{Dockerd, Registry, World, run, wait_until};
use serde_json::Value;

const FILE: &str = "FROM scratch\nCOPY busybox /bin/busybox\nCOPY text /usr/share/text\n\
                    ENV A=b\nENTRYPOINT [\"/bin/busybox\"]\n";

/// A context with a static program and a text that compresses.
fn context(world: &World) -> String {
    world.write("context/Dockerfile", FILE);
    world.write("context/text", "the same words again and again\n".repeat(100_000));
    fs::copy("/bin/busybox", world.path("context/busybox"))
        .expect("Debian's package busybox-static is installed");
    world.path("context").to_str().unwrap().to_owned()
}

fn text(world: &World, name: &str) -> String {
    world.path(name).to_str().unwrap().to_owned()
}

fn skopeo(args: &[&str]) -> Value {
    let said = run(Command::new("skopeo").arg("--insecure-policy").args(args));
    serde_json::from_str(&said.stdout).unwrap_or_default()
}

#[test]
fn privileged_docker_loads_and_runs_what_type_docker_writes() {
    let world = World::new();
    let context = context(&world);
    let archive = text(&world, "app.tar");
    let output = format!("type=docker,dest={archive}");
    let built = world.rbuild(&["-q", "-t", "app:1", "-t", "other:2", "-o", &output, &context]);
    let docker = Dockerd::start(&world);
    let loaded = docker.run(&["load", "-i", &archive]);
    assert!(loaded.stdout.contains("Loaded image: app:1"), "{loaded:?}");
    let id = docker.run(&["image", "inspect", "--format", "{{.Id}} {{.Config.Env}}", "other:2"]);
    assert!(id.text().starts_with(built.text()), "docker has the same image ID: {id:?}, {built:?}");
    assert!(
        id.text()
            .ends_with("[PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin A=b]"),
        "{id:?}"
    );
    // By a pipe, and without any file: docker is asked itself.
    let mut command = world.command("rbuild", &["-t", "direct:1", "-o", "type=docker", &context]);
    command.env("DOCKER_HOST", docker.host()).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    let said = run(&mut command);
    assert!(said.stderr.contains("loaded into docker"), "{said:?}");
    docker.run(&["image", "inspect", "direct:1"]);
}

#[test]
fn oci_layouts_are_read_by_skopeo_and_umoci() {
    let world = World::new();
    let context = context(&world);
    for (codec, expected) in [("gzip", "+gzip"), ("zstd", "+zstd"), ("uncompressed", ".tar")] {
        let archive = text(&world, &format!("{codec}.tar"));
        let output = format!("type=oci,dest={archive},compression={codec}");
        world.rbuild(&["-t", "app:1", "-o", &output, &context]);
        let manifest = skopeo(&["inspect", "--raw", &format!("oci-archive:{archive}:1")]);
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for layer in layers {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(expected), "{codec}: {layer}");
        }
        // Copying makes skopeo unpack and verify every byte.
        let to = format!("oci:{}:app", text(&world, &format!("{codec}-copy")));
        skopeo(&["copy", "-q", &format!("oci-archive:{archive}:1"), &to]);
    }
    let layout = text(&world, "layout");
    let output = format!("type=oci,tar=false,dest={layout}");
    world.rbuild(&["-t", "app:1", "-o", &output, &context]);
    let bundle = text(&world, "bundle");
    run(Command::new("umoci").args([
        "unpack",
        "--rootless",
        "--image",
        &format!("{layout}:1"),
        &bundle,
    ]));
    let unpacked = fs::read(format!("{bundle}/rootfs/bin/busybox")).unwrap();
    assert!(unpacked == fs::read("/bin/busybox").unwrap());
    // Two platforms, and what each is for.
    let archive = text(&world, "platforms.tar");
    let output = format!("type=oci,dest={archive}");
    let platforms = "linux/amd64,linux/arm64";
    world.rbuild(&["-t", "app:1", "--platform", platforms, "-o", &output, &context]);
    for architecture in ["amd64", "arm64"] {
        let image = format!("oci-archive:{archive}:1");
        let inspected = skopeo(&["--override-arch", architecture, "inspect", &image]);
        assert_eq!(inspected["Architecture"], architecture);
    }
}

#[test]
fn a_root_file_system_comes_by_a_pipe() {
    let world = World::new();
    let context = context(&world);
    let mut build = world
        .command("rbuild", &["-o", "-", &context])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let listed = Command::new("tar")
        .arg("-tf")
        .arg("-")
        .stdin(build.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(build.wait().unwrap().success());
    assert_eq!(
        String::from_utf8(listed.stdout).unwrap(),
        "bin/\nbin/busybox\nusr/\nusr/share/\nusr/share/text\n"
    );
}

#[test]
fn privileged_layers_leave_while_later_steps_run() {
    let world = World::new();
    let context = context(&world);
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/team/app:1", registry.host());
    // What the first layer will be, compressed.
    let archive = text(&world, "first.tar");
    let output = format!("type=oci,dest={archive}");
    world.rbuild(&["--reproducible", "-o", &output, "-t", "app:1", &context]);
    let manifest = skopeo(&["inspect", "--raw", &format!("oci-archive:{archive}:1")]);
    let first = manifest["layers"][0]["digest"].as_str().unwrap().to_owned();

    world.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"sleep\", \"5\"]\n",
    );
    let started = Instant::now();
    let mut build = world
        .command(
            "rbuild",
            &[
                "--reproducible",
                "--push",
                "-t",
                &name,
                "--metadata-file",
                &text(&world, "m.json"),
                &context,
            ],
        )
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let blob = format!("/v2/team/app/blobs/{first}");
    wait_until("the first layer", || {
        registry.get(&blob).filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    assert!(
        build.try_wait().unwrap().is_none(),
        "after {:?} the build still runs",
        started.elapsed()
    );
    let manifest = registry.get("/v2/team/app/manifests/1").unwrap();
    assert!(manifest.starts_with("HTTP/1.1 404"), "the name comes last: {manifest}");
    let said = build.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let metadata: Value = serde_json::from_slice(&fs::read(world.path("m.json")).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    let inspected = skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(inspected["Digest"], digest, "the metadata has the digest to deploy by");
    assert!(String::from_utf8_lossy(&said.stderr).contains(&format!("@{digest}")));
    assert_eq!(world.try_rbuild(&["inspect", &name]).code(), 1, "it is in the registry only");
}

#[test]
fn indexes_and_digests_are_pushed() {
    let world = World::new();
    let context = context(&world);
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/team/app:1", registry.host());
    world.rbuild(&[
        "--push",
        "--load",
        "-t",
        &name,
        "--platform",
        "linux/amd64,linux/arm64",
        &context,
    ]);
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(raw["manifests"].as_array().unwrap().len(), 2, "{raw}");
    assert_eq!(raw["manifests"][1]["platform"]["architecture"], "arm64");
    world.rbuild(&["inspect", &name]);
    let other = format!("{}/team/other", registry.host());
    let output = format!(
        "type=image,name={other},push=true,push-by-digest=true,store=false,compression=zstd"
    );
    let metadata = text(&world, "m.json");
    world.rbuild(&["-o", &output, "--metadata-file", &metadata, &context]);
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    let raw =
        skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{other}@{digest}")]);
    let media_type = raw["layers"][0]["mediaType"].as_str().unwrap();
    assert_eq!(media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
    let tags = registry.get("/v2/team/other/tags/list").unwrap();
    assert!(!tags.contains("latest"), "no tag was set: {tags}");
}
