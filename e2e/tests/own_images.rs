//! The project's own images: built by `rbuild`, they serve, run and build.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Dockerd, World, free_port, run, try_run, wait_until};

/// Builds the image of one of our programs as its Dockerfile says, and returns its name.
fn image(world: &World, name: &str, directory: &str, programs: &[&str]) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
    let context = world.path(&format!("image-{name}"));
    fs::create_dir(&context).unwrap();
    fs::copy(source.join("Dockerfile"), context.join("Dockerfile")).unwrap();
    for program in programs {
        fs::copy(World::program(program), context.join(program)).unwrap();
    }
    world.rbuild(&["-q", "-t", name, context.to_str().unwrap()]);
    name.to_owned()
}

/// Saves an image where everybody can read it.
fn save(world: &World, image: &str, file: &str) {
    let files = world.path("files");
    fs::create_dir_all(&files).unwrap();
    world.rbuild(&["save", "-o", files.join(file).to_str().unwrap(), image]);
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&files));
}

/// Ends a container with the test, however that ends.
struct Container<'a>(&'a World, &'a str);

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.0.try_rrun(&["rm", "-f", self.1]);
    }
}

#[test]
fn privileged_the_image_of_the_registry_serves() {
    let world = World::with_debian();
    let image = image(&world, "rregistry", "registry", &["rregistry"]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let serve = ["serve", "--listen", &listen, "--root", "/var/lib/rregistry"];
    let run = ["run", "-d", "--name", "registry", "--cap-drop", "ALL", &image];
    world.rrun(&[&run[..], &serve].concat());
    let registry = Container(&world, "registry");
    let name = format!("localhost:{port}/app:1");
    wait_until("the registry to take an image", || {
        world.try_rbuild(&["push", "busybox", &name]).status.success().then_some(())
    });
    let other = World::new();
    other.rbuild(&["pull", &name]);
    assert_eq!(other.rrun(&["run", "--rm", &name, "echo", "served"]).stdout, "served\n");
    drop(registry);
    other.assert_leaves_nothing();
    world.assert_nothing_runs();
}

/// A context whose image is the same wherever it is built.
fn context(world: &World) -> String {
    let dockerfile = "FROM busybox\n\
        RUN id -u >/who && echo text >/dev/stdout && rm -r /var/tmp && chown 12:34 /home\n\
        COPY file /copied\n\
        USER nobody\n\
        RUN --mount=type=bind,target=/context cat /context/file >/tmp/file && id -u >>/tmp/file\n\
        CMD [\"cat\", \"/who\", \"/tmp/file\"]\n";
    world.write("job/file", "from the context\n");
    let path = world.write("job/Dockerfile", dockerfile);
    path.parent().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn privileged_the_image_of_the_builder_builds_in_containers() {
    let world = World::with_debian();
    let job = context(&world);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache", "-q", "-t", "app"];
    let outside = world.rbuild(&[&epoch[..], &[&job]].concat()).text().to_owned();
    let image = image(&world, "rbuild", "builder", &["rbuild", "rrun-init"]);
    for (name, file) in [(image.as_str(), "rbuild.tar"), ("busybox", "busybox.tar")] {
        save(&world, name, file);
    }
    fs::create_dir(world.path("volume")).unwrap();
    let dockerd = Dockerd::start(&world);
    dockerd.run(&["load", "-q", "-i", world.path("files/rbuild.tar").to_str().unwrap()]);
    let docker = |options: &[&str], words: &[&str]| {
        let volume = format!("{}:/var/lib/rbuild", world.path("volume").display());
        let files = format!("{}:/files:ro", world.path("files").display());
        let job = format!("{job}:/workspace:ro");
        let always = ["run", "--rm", "--network", "none", "-v", &volume, "-v", &files, "-v", &job];
        try_run(&mut dockerd.command(&[&always[..], options, &["rbuild"], words].concat()))
    };
    let loaded = docker(&[], &["load", "-i", "/files/busybox.tar"]);
    assert!(loaded.status.success(), "{loaded:?}");
    let build = [&epoch[..], &["."]].concat();

    // Docker's default profile denies namespaces: chroot, as the image says.
    let built = docker(&[], &build);
    assert_eq!(built.text(), outside, "{built:?}");
    // Asked for all the same, the error names the remedies.
    let refused = docker(&["-e", "RBUILD_ISOLATION=default"], &build);
    assert_eq!(refused.code(), 1, "{refused:?}");
    for word in ["system call filter", "seccomp=unconfined", "--isolation=chroot"] {
        assert!(refused.stderr.contains(word), "no {word:?} in {refused:?}");
    }
    // An ordinary user of the container has neither namespaces nor chroot.
    let refused = docker(&["--user", "1000"], &["--root", "/tmp/store", "-t", "app", "."]);
    assert!(refused.stderr.contains("container's user 0"), "{refused:?}");
    // With namespaces allowed, root of the container needs no capability more.
    let unconfined = ["-e", "RBUILD_ISOLATION=default", "--security-opt", "seccomp=unconfined"];
    let built = docker(&unconfined, &build);
    assert_eq!(built.text(), outside, "{built:?}");
    // Nor does an ordinary user there, with a store of its own and a single id.
    world.write("files/Dockerfile", "FROM busybox\nRUN id -u >/who\n");
    let user = ["--user", "1000", "-e", "HOME=/home", "--entrypoint", "sh"];
    let script = "rbuild load -i busybox.tar && rbuild -q .";
    fs::create_dir(world.path("home")).unwrap();
    std::os::unix::fs::chown(world.path("home"), Some(1000), Some(1000)).unwrap();
    let home = format!("{}:/home", world.path("home").display());
    let always = ["run", "--rm", "--network", "none", "--workdir", "/files", "-v"];
    let files = format!("{}:/files:ro", world.path("files").display());
    let words =
        [&always[..], &[&files, "-v", &home], &unconfined, &user, &["rbuild", "-c", script]]
            .concat();
    let built = try_run(&mut dockerd.command(&words));
    assert!(built.status.success(), "{built:?}");
}

#[test]
fn privileged_the_image_of_the_runner_runs_containers_in_a_container() {
    let world = World::with_debian();
    let image = image(&world, "rrun", "runner", &["rrun", "rrun-init"]);
    let archive = world.path("rrun.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), &image]);
    let dockerd = Dockerd::start(&world);
    dockerd.run(&["load", "-q", "-i", archive.to_str().unwrap()]);
    // A store that the container may write to: what the runner finds there, it runs.
    let volume = format!("{}:/var/lib/rbuild", world.root().display());
    let words = ["run", "--rm", "busybox", "sh", "-c", "echo inside; exit 3"];
    let options = ["run", "--rm", "--network", "none", "-v", &volume];
    let unconfined = ["--security-opt", "seccomp=unconfined", "rrun"];
    let output = try_run(&mut dockerd.command(&[&options[..], &unconfined, &words].concat()));
    assert_eq!((output.stdout.as_str(), output.code()), ("inside\n", 3), "{output:?}");
    let output = try_run(&mut dockerd.command(&[&options[..], &["rrun"], &words].concat()));
    assert_eq!(output.code(), 125, "{output:?}");
    assert!(output.stderr.contains("seccomp=unconfined"), "{output:?}");
}

#[test]
fn privileged_podman_lets_the_builder_have_namespaces() {
    let world = World::with_debian();
    let job = context(&world);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache", "-q", "-t", "app"];
    let outside = world.rbuild(&[&epoch[..], &[&job]].concat()).text().to_owned();
    let image = image(&world, "rbuild", "builder", &["rbuild", "rrun-init"]);
    for (name, file) in [(image.as_str(), "rbuild.tar"), ("busybox", "busybox.tar")] {
        save(&world, name, file);
    }
    fs::create_dir(world.path("volume")).unwrap();
    let config = world.write(
        "containers.conf",
        "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n",
    );
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", &config).args(["--root"]).arg(world.path("podman"));
        command.arg("--runroot").arg(world.path("podman-run")).args(words);
        command
    };
    run(&mut podman(&["load", "-q", "-i", world.path("files/rbuild.tar").to_str().unwrap()]));
    let volume = format!("{}:/var/lib/rbuild", world.path("volume").display());
    let files = format!("{}:/files:ro", world.path("files").display());
    let job = format!("{job}:/workspace:ro");
    let always = ["run", "--rm", "--network", "none", "-v", &volume, "-v", &files, "-v", &job];
    let default = ["-e", "RBUILD_ISOLATION=default", "rbuild"];
    run(&mut podman(&[&always[..], &default, &["load", "-i", "/files/busybox.tar"]].concat()));
    for isolation in ["RBUILD_ISOLATION=default", "RBUILD_ISOLATION=chroot"] {
        let how = ["-e", isolation, "--security-opt", "seccomp=unconfined", "rbuild"];
        let output = try_run(&mut podman(&[&always[..], &how, &epoch, &["."]].concat()));
        assert_eq!(output.text(), outside, "{isolation}: {output:?}");
    }
    run(&mut podman(&["rmi", "--all", "--force"]));
}
