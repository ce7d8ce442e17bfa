//! RUN --mount, in all its kinds. These need root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::privileged::{BASE, logs, output, world};
use crate::world::{Built, World};

/// Builds with more arguments and returns the output of the steps.
#[track_caller]
pub(crate) fn said(world: &World, lines: &str, arguments: &[&str]) -> Vec<String> {
    let arguments = [arguments, &["--progress", "json"]].concat();
    let built = world.build_with(&format!("{BASE}{lines}\n"), &arguments);
    assert_eq!(built.status, 0, "{lines}\n{}", built.stderr);
    logs(&built)
}

/// Returns the names in each layer.
fn names(world: &World) -> Vec<Vec<String>> {
    let names = |layer: &Vec<u8>| {
        let mut archive = tar::Archive::new(&layer[..]);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    };
    world.layers().iter().map(names).collect()
}

#[test]
fn privileged_a_bind_shows_the_context_as_a_copy_would() {
    let world = world();
    world.write(".dockerignore", "hidden\nbusybox.tar.x\n");
    world.write("src/a/f", "content");
    world.write("src/hidden", "no");
    world.write("hidden", "no");
    world.chmod("src/a/f", 0o640);
    world.link("src/link", "a/f");
    let table: [(&str, &[&str]); 8] = [
        ("RUN --mount=target=/m ls /m/src", &["a", "hidden", "link"]),
        ("RUN --mount=target=/m ls /m/hidden 2> /dev/null || echo none", &["none"]),
        (
            "RUN --mount=source=src,target=/m cat /m/link && stat -c '%a %u:%g' /m /m/a/f",
            &["content", "755 0:0", "640 0:0"],
        ),
        ("RUN --mount=source=src/a/f,target=/m/file cat /m/file", &["content"]),
        ("WORKDIR /w\nRUN --mount=source=src/a,target=here cat here/f", &["content"]),
        ("WORKDIR /w\nRUN --mount=source=src/a cat f", &["content"]),
        ("RUN --mount=source=src,target=/m touch /m/x 2> /dev/null || echo refused", &["refused"]),
        (
            "RUN --mount=source=src,target=/m,rw echo new > /m/a/f && cat /m/a/f && rm -r /m/a && ls /m",
            &["new", "hidden", "link"],
        ),
    ];
    for (lines, expected) in table {
        let said = output(&world, lines).concat();
        assert_eq!(said, expected.concat(), "{lines}");
    }
    assert_eq!(fs::read_to_string(world.context().join("src/a/f")).unwrap(), "content");
    assert_eq!(names(&world).last().unwrap(), &[""; 0], "nothing of it is in the layer");
    let failed = world.fail(&format!("{BASE}RUN --mount=source=no/such,target=/m true\n"));
    assert!(failed.contains("failed to compute cache key: \"/no/such\": not found"), "{failed}");
    let failed = world.fail(&format!("{BASE}RUN --mount=source=hidden,target=/m true\n"));
    assert!(failed.contains("/hidden exists, but .dockerignore excludes it"), "{failed}");
    let failed = world.fail(&format!("{BASE}RUN --mount=target=/ true\n"));
    assert!(failed.contains("invalid mount target \"/\""), "{failed}");
}

#[test]
fn privileged_a_bind_shows_a_stage_or_an_image() {
    let world = world();
    let stage = format!(
        "{BASE}FROM base AS made\nRUN mkdir -p /out/d && echo made > /out/d/f && chown 7:8 /out/d/f\n\
         FROM base\n"
    );
    let said = |lines: &str| {
        let built = world.build_with(&format!("{stage}{lines}\n"), &["--progress", "json"]);
        assert_eq!(built.status, 0, "{lines}\n{}", built.stderr);
        logs(&built)
    };
    assert_eq!(said("RUN --mount=from=made,target=/m cat /m/out/d/f"), ["made"]);
    let line = "RUN --mount=from=made,source=/out,target=/m stat -c %u:%g /m/d/f";
    assert_eq!(said(line), ["7:8"]);
    assert_eq!(said("RUN --mount=from=1,source=out/d/f,target=/f cat /f"), ["made"]);
    // A stack shows its own layers, too: they are those of the root.
    assert_eq!(said("RUN --mount=from=base,target=/m /m/bin/busybox echo yes"), ["yes"]);
    let line =
        "RUN --mount=from=made,target=/m,rw echo x > /m/out/d/f && cat /m/out/d/f; ls /m/bin/sh";
    assert_eq!(said(line), ["x", "/m/bin/sh"]);
    assert_eq!(said("RUN --mount=from=made,source=/out,target=/m cat /m/d/f"), ["made"]);
    assert_eq!(said("RUN --mount=from=scratch,target=/m ls /m | wc -l"), ["0"]);
    let failed = world.fail(&format!("{stage}RUN --mount=from=made,source=/no,target=/m true\n"));
    assert!(failed.contains("\"/no\": not found"), "{failed}");
    let failed = world.fail(&format!("{stage}RUN --mount=from=$x,target=/m true\n"));
    assert!(failed.contains("'from' doesn't support variable expansion"), "{failed}");
    world.build(&format!("{stage}RUN true\n"));
    assert_eq!(world.run(&["tag", crate::world::NAME, "other/image"]).status, 0);
    assert_eq!(
        said("RUN --mount=from=other/image,source=bin,target=/m /m/busybox echo image"),
        ["image"]
    );
}

#[test]
fn privileged_a_run_is_keyed_by_what_its_mounts_show() {
    let world = world();
    world.write("a/f", "1");
    world.write("b", "1");
    let file = format!("{BASE}RUN --mount=source=a,target=/m cat /m/f\n");
    world.build(&file);
    assert_eq!(world.build(&file).counts(), (2, 0));
    world.write("b", "2");
    assert_eq!(world.build(&file).counts(), (2, 0), "what is not mounted does not count");
    world.write("a/f", "2");
    let built = world.build(&file);
    assert_eq!(built.counts(), (1, 1));
    assert!(built.stderr.contains("because a/f changed"), "{}", built.stderr);
    world.chmod("a/f", 0o600);
    assert_eq!(world.build(&file).counts(), (1, 1));
    // Of a stage only what is mounted counts, not how it was made.
    let file = |how: &str, from: &str| {
        format!(
            "{BASE}FROM base AS {from}\nRUN {how}\nFROM base\n\
             RUN --mount=from={from},source=/out,target=/m cat /m/f\n"
        )
    };
    world.build(&file("mkdir /out && echo x > /out/f", "s"));
    let built = world.build(&file("mkdir /out && echo x > /out/f && touch /other", "renamed"));
    assert_eq!(built.counts(), (2, 1), "{}", built.stderr);
    let built = world.build(&file("mkdir /out && echo y > /out/f", "s"));
    assert_eq!(built.counts(), (1, 2), "{}", built.stderr);
}

#[test]
fn privileged_mount_points_leave_no_trace() {
    let world = world();
    world.write("f", "");
    world.build(&format!(
        "{BASE}RUN mkdir -p /has/been && ln -s /has /link\n\
         RUN --mount=type=cache,target=/new/deep/cache --mount=type=tmpfs,target=/has/t \
         --mount=source=f,target=/etc/f --mount=type=cache,target=/link/been/c \
         --mount=type=secret,id=none,target=/s/x true\n\
         RUN --mount=type=cache,target=/new/c touch /new/own\n"
    ));
    let names = names(&world);
    assert_eq!(names[2], [""; 0]);
    assert_eq!(names[3], ["new/", "new/own"]);
}

/// CVE-2024-23652: the mount point that is taken away after a step was replaced by a link.
#[test]
fn privileged_mount_points_are_not_followed_to_the_host() {
    let world = world();
    let host = world.context().join("canary");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("empty"), "").unwrap();
    fs::create_dir(host.join("directory")).unwrap();
    let path = host.to_str().unwrap();
    // The link is made first, so that the mount point is found through it; then it is exchanged.
    world.write(".dockerignore", "canary\n");
    world.build(&format!(
        "{BASE}RUN mkdir /real && ln -s /real /way\n\
         RUN --mount=type=secret,id=none,target=/way/x --mount=type=tmpfs,target=/way/directory \
         --mount=source=busybox.tar,target=/way/empty \
         rm /way && ln -s {path} /way && ln -s {path} /real/link\n\
         RUN --mount=type=tmpfs,target=/way/more true\n"
    ));
    assert!(host.join("empty").exists() && host.join("directory").exists());
    assert_eq!(fs::read_dir(&host).unwrap().count(), 2, "nothing was made there, either");
}

/// The same where the mount point has to be made in the root itself, because a directory hides
/// what is below it: its parent is moved away and a link put there.
#[test]
fn privileged_mount_points_that_moved_are_not_looked_for_on_the_host() {
    let world = world();
    let host = world.root().with_file_name("canary");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "").unwrap();
    fs::create_dir(host.join("directory")).unwrap();
    let path = host.to_str().unwrap();
    world.build(&format!(
        "{BASE}RUN mkdir -p /d/old && touch /d/old/f\nRUN rm -r /d && mkdir /d\n\
         RUN --mount=source=busybox.tar,target=/d/new/f --mount=type=tmpfs,target=/d/new/directory \
         mv /d/new /d/moved && ln -s {path} /d/new && test -L /d/new\n"
    ));
    assert!(host.join("f").exists() && host.join("directory").exists());
    assert_eq!(world.files()["d/new"], format!("777 -> {path}"));
}

/// CVE-2024-1753: a link in what is mounted must not show the host.
#[test]
fn privileged_a_mount_never_shows_the_host() {
    let world = world();
    let outside = world.root().with_file_name("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "host").unwrap();
    symlink(&outside, world.context().join("absolute")).unwrap();
    symlink("../outside", world.context().join("relative")).unwrap();
    for source in ["absolute", "relative", "relative/canary", "../outside", "absolute/../../etc"] {
        let line = format!("RUN --mount=source={source},target=/m ls -R /m; cat /m/canary; true");
        let built = world.build_with(&format!("{BASE}{line}\n"), &["--progress", "json"]);
        assert!(!built.stderr.contains("host\""), "{source}: {}", built.stderr);
        assert!(!logs(&built).contains(&"canary".to_owned()), "{source}: {}", built.stderr);
    }
    // From a stage: the stage's own root is meant.
    let target = outside.display();
    let lines = format!(
        "FROM base AS evil\nRUN ln -s / /all && ln -s {target} /out && ln -s /proc/self/root /magic\n\
         FROM base\nRUN --mount=from=evil,source=/all,target=/m ls /m/all\n\
         RUN --mount=type=cache,from=evil,source=/all,id=c,target=/m ls /m/bin/busybox"
    );
    let said = said(&world, &lines, &[]);
    assert!(!said.contains(&"canary".to_owned()));
    for source in ["/out", "/out/canary", "/magic"] {
        let lines = format!(
            "FROM base AS evil\nRUN ln -s / /all && ln -s {target} /out && ln -s /proc/self/root /magic\n\
             FROM base\nRUN --mount=from=evil,source={source},target=/m ls /m\n"
        );
        let failed = world.fail(&format!("{BASE}{lines}"));
        assert!(failed.contains("not found"), "{source}: {failed}");
    }
    // What is mounted there is not mounted along.
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn privileged_caches_have_an_owner_a_beginning_and_a_name() {
    let world = world();
    let cache =
        |options: &str, command: &str| format!("RUN --mount=type=cache,{options} {command}");
    let line = cache("target=/c,uid=7,gid=8,mode=1750", "stat -c '%a %u:%g' /c");
    assert_eq!(output(&world, &line), ["1750 7:8"]);
    assert_eq!(output(&world, &cache("target=/c", "stat -c '%a %u:%g' /c")), ["755 0:0"]);
    // The id is the target unless it is given.
    output(&world, &cache("target=/x/../one", "echo 1 > /one/f"));
    assert_eq!(output(&world, &cache("id=/one,target=/other", "cat /other/f")), ["1"]);
    assert_eq!(output(&world, &cache("target=/other", "ls /other | wc -l")), ["0"]);
    let refused =
        cache("id=/one,target=/c,ro", "touch /c/x 2> /dev/null || echo refused; cat /c/f");
    assert_eq!(output(&world, &refused), ["refused", "1"]);
    let ns = cache("id=/one,target=/c", "ls /c | wc -l");
    assert_eq!(said(&world, &ns, &["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=ns"]), ["0"]);
    // A cache begins with the files of a stage, and then has a life of its own.
    let from = |n: u32| {
        format!(
            "FROM base AS seed\nRUN mkdir -p /s/d && echo seed > /s/d/f && chown 7:8 /s/d/f\n\
             FROM base\nRUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c \
             echo {n} >> /c/log; cat /c/d/f /c/log; stat -c %u:%g /c/d/f"
        )
    };
    assert_eq!(output(&world, &from(1)), ["seed", "1", "7:8"]);
    assert_eq!(output(&world, &from(2)), ["seed", "1", "2", "7:8"]);
    let failed = world.fail(&format!("{BASE}{}\n", cache("target=/c,source=/x", "true")));
    assert!(failed.contains("\"/x\": not found"), "{failed}");
}

#[test]
fn privileged_two_builds_share_a_cache_as_they_say() {
    let world = world();
    let begin = |sharing: &str, line: &str| {
        let lines = format!("RUN --mount=type=cache,id=x,target=/c,sharing={sharing} {line}\n");
        // Each its own, since the other may not have read its own yet.
        let name = oci::Digest::sha256(lines.as_bytes()).short();
        let file = world.root().with_file_name(name);
        fs::write(&file, format!("{BASE}{lines}")).unwrap();
        let context = world.context();
        let (file, context) = (file.to_str().unwrap(), context.to_str().unwrap());
        let mut command = world.command(&["-f", file, "--progress", "json", context]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let end = |child: std::process::Child| {
        let built = Built::of(child.wait_with_output().unwrap());
        assert_eq!(built.status, 0, "{}", built.stderr);
        logs(&built)
    };
    let wait = "touch /c/first; for i in $(seq 300); do test -e /c/second && break; sleep 0.02; done; ls /c";
    let signal = "for i in $(seq 300); do test -e /c/first && break; sleep 0.02; done; touch /c/second; ls /c";
    let (one, two) = (begin("shared", wait), begin("shared", signal));
    assert_eq!(
        (end(one), end(two)),
        (vec!["first".into(), "second".into()], vec!["first".into(), "second".into()])
    );
    // Locked: the second comes in when the first has gone.
    let line = |n: u32| {
        format!(
            "echo {n} >> /c/order; test $(cat /c/now 2> /dev/null) && echo both; echo 1 > /c/now; sleep 0.5; rm /c/now; echo {n} done"
        )
    };
    let (one, two) = (begin("locked", &line(1)), begin("locked", &line(2)));
    assert_eq!((end(one), end(two)), (vec!["1 done".to_owned()], vec!["2 done".to_owned()]));
    // Private: each has one of its own, the second a new one.
    let line = "ls /c | wc -l; sleep 1";
    let (one, two) = (begin("private", line), begin("private", &format!("true; {line}")));
    let mut counts = [end(one), end(two)].concat();
    counts.sort();
    assert_eq!(counts, ["0", "3"], "one has what was there, the other nothing");
}

#[test]
fn privileged_a_tmpfs_has_the_size_that_was_asked_for() {
    let world = world();
    let line = "RUN --mount=type=tmpfs,target=/t,size=1m (cat /dev/zero > /t/f) 2> /dev/null; stat -c %s /t/f";
    assert_eq!(output(&world, line), [(1 << 20).to_string()]);
    let line = "RUN --mount=type=tmpfs,target=/t,ro touch /t/x 2> /dev/null || echo refused";
    assert_eq!(output(&world, line), ["refused"]);
    // As with runc, it looks like what it covers.
    let lines = "RUN mkdir -m 700 /d\n\
                 RUN --mount=type=tmpfs,target=/d --mount=type=tmpfs,target=/new stat -c %a /d /new";
    assert_eq!(output(&world, lines), ["700", "1777"]);
    assert_eq!(
        said(&world, "RUN stat -f -c '%b %s' /dev/shm", &["--shm-size", "2m"]),
        ["512 4096"]
    );
}

#[test]
fn privileged_mounts_come_from_several_contexts() {
    let world = world();
    world.write("a/f", "main");
    let other = world.root().with_file_name("other");
    fs::create_dir_all(other.join("d")).unwrap();
    fs::write(other.join("d/f"), "other").unwrap();
    let context = format!("other={}", other.display());
    let file = "RUN --mount=source=a,target=/one --mount=from=other,source=d,target=/two \
                --mount=source=a/f,target=/three cat /one/f /two/f /three; echo";
    let arguments = ["--build-context", context.as_str()];
    assert_eq!(said(&world, file, &arguments), ["mainothermain"]);
    let build = || world.build_with(&format!("{BASE}{file}\n"), &arguments).counts();
    assert_eq!(build(), (2, 0));
    fs::write(other.join("d/f"), "changed").unwrap();
    assert_eq!(build(), (1, 1));
    let lines = "RUN --mount=type=cache,from=other,source=d,target=/c cat /c/f; echo";
    assert_eq!(said(&world, lines, &arguments), ["changed"]);
}

/// An ordinary user's build: what it mounts has the ids of its own namespace.
#[test]
fn privileged_an_ordinary_user_mounts_the_same() {
    let world = world();
    world.write("a/f", "context");
    let secret = world.root().with_file_name("secret");
    fs::write(&secret, "hidden").unwrap();
    let home = world.context().parent().unwrap().to_owned();
    // The user `nobody` gets the directory of this test.
    for directory in [&home, &world.context()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let lines = "RUN --mount=source=a,target=/m --mount=type=tmpfs,target=/t \
                 --mount=type=cache,target=/c --mount=type=secret,id=s cat /m/f && wc -c < /run/secrets/s; \
                 stat -c %u:%g /m /c /run/secrets/s; touch /c/x /t/x && echo wrote";
    let file = format!("{BASE}{lines}\n");
    let arguments = ["--secret", "id=s,src=../secret", "--progress", "json"];
    let build = world.build_command(&file, &arguments);
    chown(&home, 65534);
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(build.get_program()).args(build.get_args()).current_dir(world.context());
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.env("RBUILD_ROOT", world.root()).env("HOME", &home).env("XDG_RUNTIME_DIR", &home);
    let built = Built::of(command.stdin(Stdio::null()).output().unwrap());
    if built.status != 0 && built.stderr.contains("user namespace") {
        // A host that does not let users have namespaces.
        return;
    }
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(logs(&built), ["context6", "0:0", "0:0", "0:0", "wrote"]);
}

fn chown(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            chown(&entry.unwrap().path(), id);
        }
    }
}
