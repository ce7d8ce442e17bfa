//! Builds that are disturbed: the next one succeeds, and comes to the image of an undisturbed one.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::{Registry, World, run, try_run};

/// What makes an image ID depend on nothing but the input.
const EPOCH: [&str; 2] = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];

fn words<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["-q"], &EPOCH[..], more].concat()
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn privileged_builds_of_different_contexts_at_once_are_as_one_after_the_other() {
    let (world, alone) = (World::with_busybox(), World::with_busybox());
    let shared = "FROM busybox AS shared\nRUN sleep 0.1; dd if=/dev/zero of=/z bs=64k count=16\n";
    let names = ["a", "b", "c", "d"];
    for name in names {
        let file =
            format!("{shared}FROM shared\nCOPY f /f\nRUN cat /f /z >/sum && echo {name} >>/sum\n");
        world.write(&format!("{name}/Dockerfile"), file);
        world.write(&format!("{name}/f"), name);
    }
    let context = |name: &str| text(&world.path(name)).to_owned();
    let mut builds = Vec::new();
    // Each of them twice: the same context at once, too.
    for name in names.iter().chain(&names) {
        let context = context(name);
        let mut command = world.command("rbuild", &words(&["-t", name, &context]));
        builds.push((name, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()));
    }
    for (name, build) in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let wanted = alone.rbuild(&words(&["-t", name, &context(name)]));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), wanted.text(), "{name}");
    }
    world.assert_leaves_nothing();
}

#[test]
fn privileged_after_a_full_disk_the_image_is_the_same() {
    let (world, elsewhere) = (World::with_busybox(), World::with_busybox());
    let archive = world.path("busybox.tar");
    world.rbuild(&["save", "-o", text(&archive), "busybox"]);
    let file =
        "FROM busybox\nCOPY f /f\nRUN dd if=/f of=/copy bs=1M && cat /f >>/copy\nRUN rm /copy\n";
    world.write("context/Dockerfile", file);
    world.write("context/f", vec![7; 9 << 20]);
    let context = text(&world.path("context")).to_owned();
    let wanted = elsewhere.rbuild(&words(&["-t", "app", &context])).text().to_owned();
    for isolation in ["default", "chroot"] {
        // The mount is in a namespace of the shell and ends with it.
        let script = r#"
set -eu
mkdir -p full
mount -t tmpfs -o size=40m full full
export RBUILD_ROOT="$PWD/full"
"$RBUILD" load -i busybox.tar >/dev/null
if "$RBUILD" "$@" 2>err; then echo "built on a full disk"; exit 1; fi
grep -qi 'no space left' err || { cat err; exit 1; }
mount -o remount,size=400m full
"$RBUILD" "$@"
test -z "$(find full/leases full/ingest -mindepth 1)"
"#;
        let output = run(Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .args(words(&["--isolation", isolation, "-t", "app", &context]))
            .env("RBUILD", World::program("rbuild"))
            .current_dir(world.path(".")));
        let lines: Vec<&str> = output.text().lines().collect();
        assert_eq!(lines, [&wanted], "{isolation}");
    }
    world.assert_nothing_runs();
}

/// A server between a registry and its clients. Of the first `stalls` connections that carry more than `after` bytes it stops
/// forwarding in the middle, but keeps them open.
fn stalling(upstream: u16, stalls: usize, after: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let left = Arc::new(AtomicUsize::new(stalls));
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let left = Arc::clone(&left);
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
                    let take = |left: usize| left.checked_sub(1);
                    let is_stalled = total > after
                        && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
                    if is_stalled {
                        std::thread::sleep(Duration::from_secs(60));
                        return;
                    }
                    if to_client.write_all(&buffer[..size]).is_err() {
                        break;
                    }
                }
                let _closed = to_client.shutdown(Shutdown::Both);
                let _closed = from_server.shutdown(Shutdown::Both);
            });
        }
    });
    port
}

#[test]
fn privileged_a_registry_that_stalls_delays_a_build_and_does_not_change_it() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let base = format!("localhost:{}/base", registry.port());
    world.build(&base, "FROM busybox\nRUN dd if=/dev/urandom of=/random bs=1M count=4\n", &[]);
    world.rbuild(&["push", &base]);
    let file = |port: u16| format!("FROM localhost:{port}/base\nRUN wc -c </random >/size\n");
    let build = |port: u16| {
        let world = World::new();
        let dockerfile = world.write("context/Dockerfile", file(port));
        let context = text(dockerfile.parent().unwrap()).to_owned();
        let mut command = world.command("rbuild", &words(&["-t", "app", &context]));
        (try_run(command.env("RBUILD_TIMEOUT", "1")), world)
    };
    let (wanted, _world) = build(registry.port());
    assert!(wanted.status.success(), "{wanted:?}");

    let port = stalling(registry.port(), 2, 1 << 20);
    let (delayed, _world) = build(port);
    assert_eq!(delayed.text(), wanted.text(), "{delayed:?}");

    // One that never says anything ends the build in time, by name, and leaves nothing.
    let port = stalling(registry.port(), usize::MAX, 0);
    let began = Instant::now();
    let (failed, world) = build(port);
    assert_eq!(failed.code(), 1, "{failed:?}");
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    for word in [format!("localhost:{port}"), "timed out".to_owned()] {
        assert!(failed.stderr.contains(&word), "no {word:?} in {failed:?}");
    }
    world.assert_leaves_nothing();
}
