//! RUN steps, owners, and what interrupts a build: these need root.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Built, NAME, World};

/// What every Dockerfile here begins with.
pub(crate) const BASE: &str = "FROM scratch AS base\nADD busybox.tar /\n";

/// Builds the helper that enters sandboxes, once; it has to lie next to the program.
pub(crate) fn helper() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "sandbox", "--bin", "rrun-init"])
            .status();
        assert!(built.unwrap().success());
    });
}

/// A context with a small root file system: busybox, three users, a sticky /tmp.
pub(crate) fn world() -> World {
    helper();
    let world = World::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, link: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, path, content).unwrap();
    };
    let busybox = fs::read("/bin/busybox").expect("Debian's package busybox-static is installed");
    for (name, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777)] {
        add(tar::EntryType::Directory, name, "", mode, b"");
    }
    add(tar::EntryType::Regular, "bin/busybox", "", 0o755, &busybox);
    for applet in [
        "sh", "ls", "cat", "id", "sleep", "true", "rm", "mkdir", "stat", "hostname", "env",
        "touch", "chown", "wc", "seq", "test", "mount", "ip", "mknod", "ln",
    ] {
        add(tar::EntryType::Symlink, &format!("bin/{applet}"), "busybox", 0o777, b"");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:100:200::/home/user:/bin/sh\n";
    add(tar::EntryType::Regular, "etc/passwd", "", 0o644, passwd);
    add(
        tar::EntryType::Regular,
        "etc/group",
        "",
        0o644,
        b"root:x:0:\nusers:x:200:\nmore:x:300:user\n",
    );
    world.write("busybox.tar", tar.into_inner().unwrap());
    world
}

/// Builds steps on top of the base and returns the output of the last one.
#[track_caller]
pub(crate) fn output(world: &World, lines: &str) -> Vec<String> {
    let built = world.build_with(&format!("{BASE}{lines}\n"), &["--progress", "json"]);
    assert_eq!(built.status, 0, "{lines}\n{}", built.stderr);
    logs(&built)
}

pub(crate) fn logs(built: &Built) -> Vec<String> {
    let events = built.stderr.lines().filter_map(|line| serde_json::from_str(line).ok());
    events
        .filter(|event: &serde_json::Value| event["event"] == "log")
        .map(|event| event["line"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn privileged_run_has_the_environment_of_its_stage() {
    let world = world();
    let table: [(&str, &[&str]); 12] = [
        ("RUN echo one; echo two >&2", &["one", "two"]),
        ("RUN [\"/bin/sh\", \"-c\", \"echo $0 x\", \"zero\"]", &["zero x"]),
        ("ENV A=1\nARG B=2\nRUN echo $A$B$C", &["12"]),
        ("WORKDIR /w/x\nRUN echo $PWD", &["/w/x"]),
        (
            "USER user\nRUN id -u; id -g; id -G; echo $HOME",
            &["100", "200", "200 300", "/home/user"],
        ),
        ("USER 7:8\nRUN id -u; id -G", &["7", "8"]),
        ("RUN hostname; cat /etc/hosts | wc -l", &["buildkitsandbox", "2"]),
        ("SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo $-", &["ce"]),
        ("RUN <<EOF\necho $0\necho b\nEOF", &["/bin/sh", "b"]),
        ("RUN <<EOF\n#!/bin/cat\nsaid\nEOF", &["#!/bin/cat", "said"]),
        ("RUN --network=none ip -o link | wc -l", &["1"]),
        ("RUN --mount=type=tmpfs,target=/t touch /t/x && echo ok", &["ok"]),
    ];
    for (lines, expected) in table {
        let mut said = output(&world, lines);
        if lines.contains(">&2") {
            said.sort();
        }
        assert_eq!(said, expected, "{lines}");
    }
}

#[test]
fn privileged_a_run_leaves_nothing_in_the_layer_but_what_it_did() {
    let world = world();
    world.build(&format!(
        "{BASE}RUN true\nRUN echo x > /tmp/new && rm /etc/group && mkdir -p /a/b\n\
         RUN --mount=type=tmpfs,target=/mnt/t true\nRUN cat /tmp/new\n"
    ));
    let names: Vec<Vec<String>> = world
        .layers()
        .iter()
        .map(|layer| {
            let mut archive = tar::Archive::new(&layer[..]);
            let entries = archive.entries().unwrap();
            entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
        })
        .collect();
    assert_eq!(world.layers()[1], [0; 1024], "nothing changed: the empty tar");
    let second: Vec<&str> = names[2].iter().map(String::as_str).collect();
    assert_eq!(second, ["a/", "a/b/", "etc/", "etc/.wh.group", "tmp/", "tmp/new"]);
    assert_eq!(names[4], [""; 0]);
    assert_eq!(world.files()["tmp/"], "1777 dir");
}

#[test]
fn privileged_owners_come_from_the_image() {
    let world = world();
    world.write("f", "f");
    let lines = "COPY --chown=user f /a\nCOPY --chown=user:more f /b\nCOPY --chown=7 f /c\n\
                 COPY --chown=:200 f /d\nCOPY --chown=nobody f /e\nUSER user\nWORKDIR /home/user/x\n\
                 RUN stat -c '%n %u:%g' /a /b /c /d /e /home /home/user /home/user/x\n\
                 FROM scratch\nCOPY --from=base /a /b /kept/\nCOPY --from=base --chown=1:2 /a /changed\n";
    let file =
        format!("{BASE}{}", lines.replace("FROM scratch\n", "FROM base AS last\nFROM scratch\n"));
    let built =
        world.build_with(&format!("{file}COPY --from=0 /home /h\n"), &["--progress", "json"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(
        logs(&built),
        [
            "/a 100:200",
            "/b 100:300",
            "/c 7:7",
            "/d 0:200",
            "/e 0:0",
            "/home 100:200",
            "/home/user 100:200",
            "/home/user/x 100:200"
        ]
    );
    assert!(built.stderr.contains("the image has no user \\\"nobody\\\""), "{}", built.stderr);
    let files = world.files();
    assert_eq!(files["kept/a"], "644 100:200 \"f\"");
    assert_eq!(files["kept/b"], "644 100:300 \"f\"");
    assert_eq!(files["changed"], "644 1:2 \"f\"");
    assert_eq!(files["h/"], "755 dir", "the top is made anew");
    assert_eq!(files["h/user/"], "755 100:200 dir", "what is below is copied as it is");
}

#[test]
fn privileged_a_cache_mount_outlives_the_build() {
    let world = world();
    let line =
        |n: u32| format!("RUN --mount=type=cache,target=/c echo {n} >> /c/f && cat /c/f && ls /");
    assert_eq!(output(&world, &line(1))[0], "1");
    assert_eq!(output(&world, &line(2))[..2], ["1", "2"]);
    assert!(!world.files().keys().any(|path| path.starts_with("c/")));
}

#[test]
fn privileged_a_failing_run_shows_its_end_and_its_place() {
    let world = world();
    let said = world.fail(&format!("{BASE}RUN seq 100 && \\\n  echo last && false\n"));
    assert!(said.contains("------\n > [base 2/2] RUN seq 100"), "{said}");
    let tail = said.split("------\n").nth(1).unwrap();
    assert_eq!(tail.lines().count(), 21, "{said}");
    assert!(tail.ends_with("\n100\nlast\n"), "{said}");
    assert!(said.contains("Dockerfile:3\n"), "{said}");
    assert!(
        said.contains("   3 | >>> RUN seq 100 && \\\n   4 | >>>   echo last && false\n"),
        "{said}"
    );
    assert!(
        said.contains("did not complete successfully: exit code: 1\nhint: the whole output is in "),
        "{said}"
    );
    let log = said.rsplit("output is in ").next().unwrap().trim();
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 101);
    let said = world.fail(&format!("{BASE}RUN [\"/no/such\"]\n"));
    assert!(said.contains("/no/such: not found"), "{said}");
    let said = world.fail(&format!("{BASE}USER nobody-here\nRUN true\n"));
    assert!(said.contains("nobody-here"), "{said}");
    // What failed is not remembered, what was before it is.
    let built = world.build(&format!("{BASE}RUN seq 100\n"));
    assert_eq!(built.counts(), (1, 1));
}

#[test]
fn privileged_independent_stages_run_at_the_same_time() {
    let world = world();
    let file = format!(
        "{BASE}FROM base AS a\nRUN echo begin; sleep 2; echo a > /a; echo end\n\
         FROM base AS b\nRUN echo begin; sleep 2; echo b > /b; echo end\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    );
    let built = world.build_with(&file, &["--progress", "json"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(logs(&built), ["begin", "begin", "end", "end"]);
    assert_eq!(world.listing(), "a 644 \"a\\n\"\nb 644 \"b\\n\"\n");
}

#[test]
fn privileged_a_run_is_keyed_by_its_environment() {
    let world = world();
    let file = format!("{BASE}ARG V=1\nRUN echo $V\nCOPY busybox.tar /x\n");
    world.build(&file);
    assert_eq!(world.build(&file).counts(), (3, 0));
    let built = world.build_with(&file, &["--build-arg", "HTTP_PROXY=http://p"]);
    assert_eq!(built.counts(), (3, 0), "proxies do not count");
    let built = world.build_with(&file, &["--build-arg", "V=2"]);
    assert!(built.stderr.contains("because V changed"), "{}", built.stderr);
    // A RUN that changes nothing leads to the same state, so that what follows is reused.
    assert_eq!(built.counts(), (2, 1));
}

#[test]
fn privileged_nothing_of_the_callers_environment_reaches_a_run() {
    let world = world();
    let mut command = world.build_command(&format!("{BASE}RUN env\n"), &["--progress", "json"]);
    let built = Built::of(command.env("CANARY", "tweet").output().unwrap());
    assert_eq!(built.status, 0, "{}", built.stderr);
    let mut names: Vec<String> = logs(&built)
        .into_iter()
        .map(|line| line.split_once('=').unwrap().0.to_owned())
        .filter(|name| !matches!(name.as_str(), "SHLVL" | "PWD"))
        .collect();
    names.sort();
    assert!(!names.contains(&"CANARY".to_owned()), "{names:?}");
    assert_eq!(names, ["HOME", "PATH"]);
}

/// Starts a build and waits until its RUN has said `started`.
pub(crate) fn start(world: &World, lines: &str) -> Child {
    let mut command = world.build_command(&format!("{BASE}{lines}\n"), &["--progress", "plain"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(output.any(|line| line.unwrap().ends_with(" started")));
    std::thread::spawn(move || output.for_each(drop));
    child
}

/// Returns how many processes have this word on their command line.
fn running(word: &str) -> usize {
    let is_it = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    };
    fs::read_dir("/proc").unwrap().filter(|entry| entry.as_ref().is_ok_and(is_it)).count()
}

pub(crate) fn wait_until_gone(word: &str) {
    let limit = Instant::now() + Duration::from_secs(10);
    while running(word) > 0 {
        assert!(Instant::now() < limit, "{word} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

pub(crate) fn assert_nothing_is_left(world: &World) {
    for left in ["leases", "ingest", "trash"] {
        let count = fs::read_dir(world.root().join(left)).map_or(0, Iterator::count);
        assert_eq!(count, 0, "{left} is not empty");
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(world.root().to_str().unwrap()), "{mounts}");
}

#[test]
fn privileged_ctrl_c_stops_a_build_at_once() {
    let world = world();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = start(&world, "RUN echo started; sleep 3601");
        let stopped = Instant::now();
        kill(pid(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
        wait_until_gone("sleep\u{0}3601");
        assert_nothing_is_left(&world);
    }
    world.build(&format!("{BASE}RUN echo started\n"));
}

#[test]
fn privileged_a_signal_that_is_to_be_ignored_stops_nothing() {
    let world = world();
    let build = world.build_command(&format!("{BASE}RUN echo started; sleep 1\n"), &[]);
    let mut command = Command::new("nohup");
    command.arg(build.get_program()).args(build.get_args());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(output.any(|line| line.unwrap().ends_with(" started")));
    kill(pid(&child), Signal::SIGHUP).unwrap();
    output.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn privileged_a_killed_build_leaves_nothing_that_prune_does_not_find() {
    let world = world();
    let mut child = start(&world, "RUN echo started; echo x > /x; sleep 3602");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until_gone("sleep\u{0}3602");
    assert_eq!(world.build(&format!("{BASE}RUN echo y\n")).counts(), (1, 1));
    assert_eq!(world.run(&["prune"]).status, 0);
    assert_nothing_is_left(&world);
    let inspected = world.run(&["inspect", NAME]);
    assert_eq!(inspected.status, 0, "prune keeps what has a name");
}
