//! Bad input and faults: every one ends in a clear error, and nothing is lost or left behind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Output, Registry, World, run, wait_until};

/// Asserts that a command failed with exactly this code and that its message holds these words.
#[track_caller]
fn fails(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.code(), code, "{output:?}");
    for word in words {
        assert!(output.stderr.contains(word), "no {word:?} in {output:?}");
    }
}

#[test]
fn every_mistake_of_a_dockerfile_is_shown_with_its_place() {
    let world = World::new();
    world.write(
        "context/Dockerfile",
        "FORM scratch\nFROM scratch\nCOPY --form=x a b\nRUNN true\nEXPOSE 70000\n",
    );
    let output = world.try_rbuild(&["-t", "bad", world.path("context").to_str().unwrap()]);
    fails(
        &output,
        1,
        &[
            "Dockerfile:1:1",
            "FORM",
            "FROM",
            "Dockerfile:3:6",
            "--form",
            "from",
            "Dockerfile:4:1",
            "RUNN",
            "RUN",
            "^",
        ],
    );
    world.assert_leaves_nothing();
}

#[test]
fn a_missing_copy_source_names_the_file_and_the_line() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM scratch\nCOPY absent.txt /\n");
    world.write("context/absend.txt", "");
    let output = world.try_rbuild(&["-t", "bad", world.path("context").to_str().unwrap()]);
    fails(&output, 1, &["absent.txt", "not found", "Dockerfile:2"]);
    world.assert_leaves_nothing();
}

#[test]
fn unknown_words_on_the_command_line_are_explained() {
    let world = World::new();
    let output = world.try_rbuild(&["--bild-arg", "a=b", "."]);
    assert!(output.code() != 0 && output.stderr.contains("--build-arg"), "{output:?}");
    let output = world.try_rrun(&["rnu", "busybox"]);
    assert!(output.code() != 0 && output.stderr.contains("run"), "{output:?}");
    assert_eq!(world.try_rrun(&["run", "--no-such-flag", "busybox"]).code(), 125);
}

#[test]
fn privileged_a_tar_that_tries_to_leave_the_root_is_refused() {
    let world = World::with_busybox();
    let canary = world.write("canary", "alive");
    let script = r#"
import io, sys, tarfile
kind, out, canary = sys.argv[1:]
with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as tar:
    def add(name, type=tarfile.REGTYPE, link="", data=b"dead"):
        entry = tarfile.TarInfo(name); entry.type = type; entry.linkname = link
        entry.size = len(data) if type == tarfile.REGTYPE else 0
        tar.addfile(entry, io.BytesIO(data) if type == tarfile.REGTYPE else None)
    up = "../" * 20
    if kind == "dotdot": add(up + canary)
    if kind == "absolute": add(canary)
    if kind == "symlink": add("link", tarfile.SYMTYPE, canary.rsplit("/", 1)[0]); add("link/canary")
    if kind == "relative-symlink": add("link", tarfile.SYMTYPE, up + canary.rsplit("/", 1)[0]); add("link/canary")
    if kind == "file-symlink": add("link", tarfile.SYMTYPE, canary); add("link")
    if kind == "hardlink": add("hard", tarfile.LNKTYPE, up + canary); add("hard")
    if kind == "absolute-hardlink": add("hard", tarfile.LNKTYPE, canary); add("hard")
    if kind == "whiteout": add(up + canary.rsplit("/", 1)[0] + "/.wh.canary", data=b"")
"#;
    for kind in [
        "dotdot",
        "absolute",
        "symlink",
        "relative-symlink",
        "file-symlink",
        "hardlink",
        "absolute-hardlink",
        "whiteout",
    ] {
        let context = world.path(kind);
        world.write(&format!("{kind}/Dockerfile"), "FROM busybox\nADD evil.tar /\nRUN true\n");
        run(Command::new("python3")
            .args(["-c", script, kind])
            .arg(context.join("evil.tar"))
            .arg(&canary));
        // Refused, or taken to mean a place inside the root: never a place outside.
        let output = world.try_rbuild(&["-t", "evil", context.to_str().unwrap()]);
        assert!(output.status.success() || output.code() == 1, "{kind}: {output:?}");
        assert_eq!(fs::read_to_string(&canary).unwrap(), "alive", "{kind}");
    }
}

#[test]
fn a_registry_that_is_down_is_named_with_what_to_do() {
    let world = World::with_busybox();
    let name = format!("localhost:{}/app", e2e::free_port());
    fails(
        &world.try_rbuild(&["push", "busybox", &name]),
        1,
        &[&name, "connection refused", "hint:"],
    );
    fails(&world.try_rbuild(&["pull", &name]), 1, &[&name, "connection refused"]);
}

#[test]
fn a_registry_that_denies_access_is_told_apart_from_one_that_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            let mut request = [0; 4096];
            let size = connection.read(&mut request).unwrap();
            if request[..size].starts_with(b"STOP") {
                return;
            }
            let _gone = connection.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let world = World::new();
    let output = world.try_rbuild(&["pull", &format!("localhost:{port}/app")]);
    fails(&output, 1, &["unauthorized", "rbuild login"]);
    TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(b"STOP").unwrap();
    server.join().unwrap();
    world.assert_leaves_nothing();
}

#[test]
fn a_corrupt_blob_of_a_registry_is_refused_and_not_kept() {
    let world = World::with_busybox();
    let registry_root = world.path("registry");
    let registry = Registry::start(&registry_root);
    let name = format!("{}/app", registry.host());
    world.rbuild(&["push", "busybox", &name]);
    world.assert_leaves_nothing();

    // The largest file is the layer: flip one byte in its middle.
    let found =
        run(Command::new("find").arg(&registry_root).args(["-type", "f", "-size", "+100k"]));
    let layer = found.text().lines().next().unwrap().to_owned();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, &bytes).unwrap();

    fails(&world.try_rbuild(&["pull", &name]), 1, &["is corrupt", "sha256:"]);
    assert_eq!(world.rbuild(&["images", "-q"]).text(), "");
    world.assert_leaves_nothing();
}

#[test]
fn an_image_for_another_platform_is_refused_by_name() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/foreign:1", registry.host());
    world.write("foreign/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
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
        "--platform",
        "linux/s390x",
        "--manifest",
        &name,
        world.path("foreign").to_str().unwrap(),
    ]);
    buildah(&[
        "manifest",
        "push",
        "--all",
        "--tls-verify=false",
        &name,
        &format!("docker://{name}"),
    ]);
    fails(&world.try_rbuild(&["pull", &name]), 1, &["linux/s390x", "linux/"]);
    world.assert_leaves_nothing();
}

#[test]
fn privileged_a_full_disk_ends_a_build_with_an_error_and_the_next_one_works() {
    let world = World::with_busybox();
    let archive = world.path("busybox.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "busybox"]);
    world.write("big/Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n");
    world.write("copy/Dockerfile", "FROM busybox\nCOPY big /\n");
    fs::write(world.path("copy/big"), vec![7; 64 << 20]).unwrap();
    world.write(
        "small/Dockerfile",
        "FROM busybox\nRUN echo fits >/small\nCMD [\"cat\", \"/small\"]\n",
    );
    // The mount is in a namespace of the shell and ends with it.
    let script = r#"
set -eu
cd "$1"
mkdir full
mount -t tmpfs -o size=32m full full
export RBUILD_ROOT="$1/full"
"$RBUILD" load -i busybox.tar >/dev/null
for context in big copy; do
  if "$RBUILD" -t big $context 2>err.$context; then echo "$context built on a full disk"; exit 1; fi
  grep -qi 'no space left' err.$context || { cat err.$context; exit 1; }
done
"$RBUILD" prune --force >/dev/null
"$RBUILD" -q -t small small >/dev/null
"$RRUN" run --rm small
"#;
    let output = run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(world.path("."))
        .env("RBUILD", World::program("rbuild"))
        .env("RRUN", World::program("rrun"))
        .env("RRUN_NETWORK", "host"));
    assert_eq!(output.stdout, "fits\n");
    world.assert_nothing_runs();
}

#[test]
fn privileged_ctrl_c_stops_a_build_at_once_and_cleans_up() {
    let world = World::with_busybox();
    world.write("slow/Dockerfile", "FROM busybox\nRUN echo begun; sleep 60\n");
    let mut build = world
        .command(
            "rbuild",
            &["--progress", "plain", "-t", "slow", world.path("slow").to_str().unwrap()],
        )
        .stderr(fs::File::create(world.path("log")).unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the step to begin", || {
        fs::read_to_string(world.path("log")).unwrap().contains(" begun").then_some(())
    });
    let asked = Instant::now();
    run(Command::new("kill").args(["-INT", &build.id().to_string()]));
    let status = build.wait().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    assert_eq!(status.code(), Some(130));
    world.assert_leaves_nothing();
}

#[test]
fn privileged_ctrl_c_stops_a_container_at_once_and_cleans_up() {
    let world = World::with_busybox();
    let mut container = world
        .command(
            "rrun",
            &[
                "run",
                "--rm",
                "busybox",
                "sh",
                "-c",
                "trap 'exit 7' INT; echo begun; while :; do sleep 0.1; done",
            ],
        )
        .stdout(fs::File::create(world.path("log")).unwrap())
        .spawn()
        .unwrap();
    wait_until("the container to begin", || {
        fs::read_to_string(world.path("log")).unwrap().contains("begun").then_some(())
    });
    run(Command::new("kill").args(["-INT", &container.id().to_string()]));
    assert_eq!(container.wait().unwrap().code(), Some(7), "the container's own exit code");
    assert_eq!(world.rrun(&["ps", "-aq"]).text(), "");
    world.assert_leaves_nothing();
}

#[test]
fn privileged_a_pull_goes_on_where_the_connection_was_dropped() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let name = format!("{}/app", registry.host());
    world.build(&name, "FROM busybox\nRUN dd if=/dev/urandom of=/random bs=1M count=8\n", &[]);
    world.rbuild(&["push", &name]);
    world.assert_leaves_nothing();

    // A proxy that cuts each of the first three long answers in the middle.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap().port();
    let upstream = registry.port();
    std::thread::spawn(move || {
        let cuts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(3));
        for client in listener.incoming() {
            let cuts = std::sync::Arc::clone(&cuts);
            std::thread::spawn(move || {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", upstream)).unwrap();
                let (mut to_server, mut from_client) =
                    (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
                let (mut from_server, mut to_client) = (server, client);
                let (mut buffer, mut total) = ([0; 16384], 0);
                while let Ok(size @ 1..) = from_server.read(&mut buffer) {
                    total += size;
                    if total > 1 << 20 && cuts.load(std::sync::atomic::Ordering::SeqCst) > 0 {
                        cuts.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        break;
                    }
                    if to_client.write_all(&buffer[..size]).is_err() {
                        break;
                    }
                }
                let _closed = to_client.shutdown(std::net::Shutdown::Both);
                let _closed = from_server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    let through = format!("localhost:{proxy}/app");
    world.rbuild(&["pull", &through]);
    assert_eq!(
        world.rrun(&["run", "--rm", &through, "stat", "-c", "%s", "/random"]).stdout,
        "8388608\n"
    );
}

#[test]
fn privileged_two_builds_of_one_context_at_once_both_succeed() {
    let world = World::with_busybox();
    let context =
        world.write("twice/Dockerfile", "FROM busybox\nRUN sleep 0.2; echo done >/done\n");
    let context = context.parent().unwrap().to_str().unwrap();
    let children: Vec<_> = (0..4)
        .map(|number| {
            world
                .command("rbuild", &["-q", "-t", &format!("twice:{number}"), context])
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for number in 0..4 {
        assert_eq!(
            world.rrun(&["run", "--rm", &format!("twice:{number}"), "cat", "/done"]).stdout,
            "done\n"
        );
    }
    world.assert_leaves_nothing();
}
