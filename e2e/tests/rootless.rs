//! Everything as an ordinary user with subordinate ids.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use e2e::{Output, Registry, World, run, try_run};

/// An ordinary user of this machine, removed with the value.
struct User {
    name: String,
}

impl User {
    fn new() -> Self {
        let name = format!("rbuild-{}", std::process::id());
        run(Command::new("useradd").args(["--create-home", &name]));
        Self { name }
    }

    /// Runs a shell script as this user, with our programs on the PATH.
    fn shell(&self, world: &World, script: &str) -> Output {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", world.path("bin").display());
        try_run(
            Command::new("su")
                .args([&self.name, "-s", "/bin/sh", "-c"])
                .arg(format!("cd; set -eu; PATH={path}; {script}")),
        )
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Whatever a failed test left running is this user's.
        let _ended =
            Command::new("su").args([&self.name, "-s", "/bin/sh", "-c", "kill -9 -1"]).output();
        let _removed = Command::new("userdel").args(["--remove", &self.name]).output();
    }
}

/// A world whose files the user may read, with copies of the programs.
fn world() -> World {
    let world = World::with_busybox();
    let open = |path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(world.path("."));
    fs::create_dir(world.path("bin")).unwrap();
    for name in ["rbuild", "rrun", "rrun-init"] {
        fs::copy(World::program(name), world.path("bin").join(name)).unwrap();
        open(world.path("bin").join(name));
    }
    world.rbuild(&["save", "-o", world.path("busybox.tar").to_str().unwrap(), "busybox"]);
    open(world.path("busybox.tar"));
    world
}

#[test]
fn privileged_an_ordinary_user_builds_pushes_pulls_and_runs() {
    let world = world();
    let registry = Registry::start(&world.path("registry"));
    let user = User::new();
    let image = format!("{}/rootless", registry.host());
    let script = format!(
        r#"
rbuild load -i {busybox} >/dev/null
mkdir context
printf 'FROM busybox\nRUN id -u >/id && touch /owned && chown 12:34 /owned\nUSER 1000\nCMD ["sh", "-c", "id -u; cat /id; stat -c %%u:%%g /owned"]\n' >context/Dockerfile
rbuild -q -t {image} context >/dev/null
rbuild push {image} >/dev/null
rbuild rmi {image} >/dev/null
rrun run --rm {image}
rrun run -d --name background busybox sleep 100 >/dev/null
rrun exec background echo inside
rrun stop -t 0 background
rrun rm background
for name in {image} busybox; do rbuild rmi $name >/dev/null; done
rbuild prune --all --force >/dev/null
ls ~/.local/share/rbuild/layers/sha256
"#,
        busybox = world.path("busybox.tar").display()
    );
    let output = user.shell(&world, &script);
    assert_eq!(output.stdout, "1000\n0\n12:34\ninside\nbackground\nbackground\n", "{output:?}");
    assert_eq!(output.code(), 0, "{output:?}");
}

#[test]
fn privileged_a_limit_that_an_ordinary_user_cannot_have_is_an_error_that_says_so() {
    let world = world();
    let user = User::new();
    let output = user.shell(
        &world,
        &format!(
            "rbuild load -i {} >/dev/null; rrun run --rm --memory 64m busybox true",
            world.path("busybox.tar").display()
        ),
    );
    // Where the user's cgroup is delegated, the limit holds instead.
    assert!(
        output.code() == 0 || output.code() == 125 && output.stderr.contains("/sys/fs/cgroup"),
        "{output:?}"
    );
}
