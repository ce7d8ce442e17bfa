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

/// A Dockerfile with every kind of step that an ordinary user could have trouble with.
const EVERYTHING: &str = r#"FROM busybox AS base
RUN id -u >/id && chown 12:34 /home && chmod 4755 /home
ADD --chown=nobody archive.tar /added/
COPY --chown=7:8 --chmod=0600 file /file
WORKDIR /work
RUN <<EOS
cp /file heredoc
chgrp 34 heredoc
EOS
FROM base AS other
USER 12:34
RUN --network=none touch /tmp/mine
FROM base
COPY --from=other --parents /tmp/./mine /copied/
RUN --mount=type=cache,target=/cache,uid=12 --mount=type=tmpfs,target=/scratch \
    --mount=type=bind,from=other,target=/other --mount=type=secret,id=s,uid=12,mode=0400 \
    touch /cache/x /scratch/x && cat /other/id >/from && stat -c %u:%a /run/secrets/s >/secret && rm /id
CMD ["sh", "-c", "stat -c '%n %u:%g %a' /home /file /added/in /work/heredoc /copied/mine; cat /from /secret"]
"#;

#[test]
fn privileged_an_ordinary_user_builds_what_root_does() {
    let world = world();
    let registry = Registry::start(&world.path("registry"));
    let user = User::new();
    let image = format!("{}/everything", registry.host());
    for (name, content) in [("Dockerfile", EVERYTHING), ("file", "content"), ("secret", "tweet")] {
        world.write(&format!("context/{name}"), content);
    }
    let archive = world.path("context/archive.tar");
    let directory = world.path("archived");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("in"), "archived").unwrap();
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&directory).args([
        "--owner=0",
        "--group=0",
        "--mtime=@1",
        "in",
    ]));
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(world.path("context")));
    let context = world.path("context").display().to_string();
    let secret = format!("id=s,src={context}/secret");
    let build = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-q", "-t", &image, "--secret"];
    let of_root = world.rbuild(&[&build[..], &[&secret, &context]].concat()).text().to_owned();
    let script = format!(
        r#"
rbuild load -i {busybox} >/dev/null
rbuild {build} {secret} {context}
rbuild push {image} >/dev/null
rrun run --rm {image}
for name in {image} busybox; do rbuild rmi $name >/dev/null; done
rbuild prune --all --force >/dev/null
find ~/.local/share/rbuild/layers/sha256 ~/.local/share/rbuild/blobs/sha256 -mindepth 1
"#,
        busybox = world.path("busybox.tar").display(),
        build = build.join(" "),
    );
    let output = user.shell(&world, &script);
    assert_eq!(output.code(), 0, "{output:?}");
    let (id, rest) = output.stdout.split_once('\n').unwrap();
    assert_eq!(id, of_root, "the same image as root's");
    assert_eq!(
        rest,
        "/home 12:34 4755\n/file 7:8 600\n/added/in 65534:65534 644\n/work/heredoc 0:34 600\n\
         /copied/mine 12:34 644\n0\n12:400\n"
    );
    // What the user has pushed runs elsewhere.
    world.rbuild(&["pull", &image]);
    assert!(world.rrun(&["run", "--rm", &image]).stdout.starts_with("/home 12:34 4755\n"));
}

#[test]
fn privileged_with_a_single_id_what_can_work_does_and_the_rest_says_what_to_do() {
    let world = world();
    // A user that nobody has given ids.
    const USER: &str = "61999";
    let home = world.path("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(61999), Some(61999)).unwrap();
    let rbuild = |file: &str, words: &[&str]| {
        let context = world.path(&format!("single-{}", file.len()));
        fs::create_dir_all(&context).unwrap();
        fs::write(context.join("Dockerfile"), file).unwrap();
        try_run(
            Command::new("setpriv")
                .args(["--reuid", USER, "--regid", USER, "--clear-groups", "env", "-i"])
                .arg(format!("HOME={}", home.display()))
                .arg(format!("XDG_RUNTIME_DIR={}", home.display()))
                .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NO_COLOR=1"])
                .arg(world.path("bin/rbuild"))
                .args(words)
                .current_dir(context),
        )
    };
    let archive = world.path("busybox.tar").display().to_string();
    let loaded = rbuild("", &["load", "-i", &archive]);
    assert!(loaded.status.success(), "{loaded:?}");
    let works = "FROM busybox\nCOPY --chmod=0600 Dockerfile /d\nWORKDIR /w\n\
                 RUN cp /d e && id -u >u && rm /d\nRUN --mount=type=cache,target=/c touch /c/x\n";
    let built = rbuild(works, &["-q", "-t", "works", "."]);
    assert!(built.status.success(), "{built:?}");
    for refused in [
        "FROM busybox\nCOPY --chown=12:34 Dockerfile /d\nRUN true\n",
        "FROM busybox\nUSER 12\nRUN true\n",
        "FROM busybox\nRUN chown 12 /bin/busybox\n",
    ] {
        let output = rbuild(refused, &["-t", "refused", "."]);
        assert_eq!(output.code(), 1, "{output:?}");
        for word in ["hint:", "/etc/subuid has no line for 61999", "usermod --add-subuids"] {
            assert!(output.stderr.contains(word), "no {word:?} in {output:?}");
        }
    }
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
