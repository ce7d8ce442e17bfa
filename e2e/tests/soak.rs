//! Long loops of kill -9, races and load: SOAK_SECONDS for each, 5 where it is not set.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]
#![expect(clippy::disallowed_methods, reason = "a test reads the environment of its run")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{Registry, World};

fn until_time_is_up(mut round: impl FnMut(u64)) {
    let seconds =
        std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut number = 0;
    while Instant::now() < end {
        round(number);
        number += 1;
    }
    assert!(number > 0);
}

/// Starts a command and ends it with SIGKILL after a delay that differs from round to round; returns whether it was still running.
fn kill_midway(mut command: Command, round: u64, longest_ms: u64) -> bool {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // A fixed sequence that visits the whole range: rounds can be repeated.
    std::thread::sleep(Duration::from_millis(round * 37 % longest_ms));
    let is_running = child.try_wait().unwrap().is_none();
    let _gone = child.kill();
    child.wait().unwrap();
    is_running
}

/// A stage that is built beside the one that is asked for, all kinds of steps, and a result that is the same whenever it is built.
const KILLED: &str = "FROM busybox AS a\nARG N\nRUN echo a$N >/a && dd if=/dev/zero of=/z bs=64k count=16\nADD tar.tar /added\n\
    FROM busybox\nARG N\nCOPY --chown=12:34 . /src\nRUN --mount=type=cache,target=/cache echo b$N >/b && touch /cache/$N && rm -r /var\n\
    WORKDIR /w\nCOPY --from=a --parents /a /z /added ./\nRUN --mount=type=bind,from=a,target=/other cmp /other/z /w/z && touch done\n";

/// Two builds of one context and one of another at once, all killed at random moments: what the next build makes of the store they
/// leave is the image that a build which nobody disturbed makes.
#[test]
fn privileged_soak_killed_builds_come_to_the_image_of_an_undisturbed_one() {
    let least = std::env::var("SOAK_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let world = World::with_busybox();
    let undisturbed = World::with_busybox();
    for context in ["one", "other"] {
        world.write(&format!("{context}/Dockerfile"), KILLED);
        world.write(&format!("{context}/f"), context);
        e2e::run(
            Command::new("tar")
                .arg("-cf")
                .arg(world.path(context).join("tar.tar"))
                .args(["-C", "/etc", "passwd"]),
        );
    }
    let context = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let (one, other) = (context("one"), context("other"));
    let mut kills = 0;
    let mut round = 0;
    let build = |world: &World, round: u64, context: &str, tag: &str| {
        let isolation = if round % 3 == 2 { "chroot" } else { "default" };
        let number = format!("N={round}");
        let epoch = ["-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--build-arg", &number];
        let rest = ["--isolation", isolation, "-t", tag, context];
        world.command("rbuild", &[&epoch[..], &rest].concat())
    };
    let rounds = |round: u64| {
        let jobs = [(&one, "one", 0), (&one, "again", 31), (&other, "other", 67)];
        let killed: u64 = std::thread::scope(|scope| {
            let jobs = jobs.map(|(context, tag, offset)| {
                let command = build(&world, round, context, tag);
                scope.spawn(move || kill_midway(command, round + offset, 400))
            });
            jobs.into_iter().map(|job| u64::from(job.join().unwrap())).sum()
        });
        for (context, tag) in [(&one, "one"), (&other, "other")] {
            let made = e2e::run(&mut build(&world, round, context, tag));
            let wanted = e2e::run(&mut build(&undisturbed, round, context, tag));
            assert_eq!(made.text(), wanted.text(), "round {round}");
        }
        if round % 8 == 7 {
            world.rbuild(&["prune", "--force"]);
        }
        killed
    };
    until_time_is_up(|_| {
        kills += rounds(round);
        round += 1;
    });
    while kills < least {
        kills += rounds(round);
        round += 1;
    }
    world.assert_leaves_nothing();
}

#[test]
fn privileged_soak_builds_that_are_killed_leave_a_store_that_works() {
    let world = World::with_busybox();
    let dockerfile = "FROM busybox AS a\nARG N\nRUN echo a$N >/a && dd if=/dev/zero of=/z bs=64k count=16\nFROM busybox\nARG N\nCOPY . /src\nRUN echo b$N >/b\nCOPY --from=a /a /a\nCMD [\"cat\", \"/a\", \"/b\", \"/src/f\"]\n";
    world.write("k/Dockerfile", dockerfile);
    world.write("k/f", "f\n");
    let context = world.path("k").to_str().unwrap().to_owned();
    until_time_is_up(|round| {
        let argument = format!("N={round}");
        kill_midway(
            world.command("rbuild", &["-q", "-t", "killed", "--build-arg", &argument, &context]),
            round,
            200,
        );
        world.rbuild(&["-q", "-t", "whole", "--build-arg", &argument, &context]);
        let output = world.rrun(&["run", "--rm", "whole"]);
        assert_eq!(output.stdout, format!("a{round}\nb{round}\nf\n"));
    });
    world.assert_leaves_nothing();
}

#[test]
fn privileged_soak_containers_whose_engine_is_killed_leave_nothing() {
    let world = World::with_busybox();
    until_time_is_up(|round| {
        let name = format!("c{round}");
        let arguments: &[&str] = if round % 2 == 0 {
            &["run", "--rm", "busybox", "sleep", "100"]
        } else {
            &["run", "-d", "--memory", "64m", "--name", &name, "busybox", "sleep", "100"]
        };
        kill_midway(world.command("rrun", arguments), round, 40);
        for id in world.rrun(&["ps", "-aq"]).text().lines() {
            world.rrun(&["rm", "-f", id]);
        }
        assert_eq!(world.rrun(&["run", "--rm", "busybox", "echo", "alive"]).stdout, "alive\n");
    });
    world.assert_leaves_nothing();
}

#[test]
fn privileged_soak_pushes_and_pulls_that_are_killed_lose_nothing() {
    let world = World::with_busybox();
    let registry_root = world.path("registry");
    let mut registry = Some(Registry::start(&registry_root));
    let port = registry.as_ref().unwrap().port();
    let name = format!("localhost:{port}/soak");
    world.build(&name, "FROM busybox\nRUN dd if=/dev/urandom of=/random bs=1M count=4 && sha256sum /random >/sum\nCMD [\"sha256sum\", \"-c\", \"/sum\"]\n", &[]);
    let user = World::new();
    until_time_is_up(|round| {
        let target = format!("{name}:r{round}");
        kill_midway(world.command("rbuild", &["push", &name, &target]), round, 120);
        if round % 3 == 2 {
            // The registry dies in the middle of a push, too.
            let push = world
                .command("rbuild", &["push", &name, &target])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(round * 13 % 60));
            registry.take().unwrap().kill();
            registry = Some(Registry::start_on(&registry_root, port));
            let _may_fail = { push }.wait().unwrap();
        }
        world.rbuild(&["push", &name, &target]);
        kill_midway(user.command("rbuild", &["pull", &target]), round, 120);
        user.rbuild(&["pull", &target]);
        assert_eq!(user.rrun(&["run", "--rm", &target]).stdout, "/random: OK\n");
        user.assert_leaves_nothing();
    });
    world.assert_leaves_nothing();
}

#[test]
fn privileged_soak_many_programs_share_one_store() {
    let world = World::with_busybox();
    world.write("r/Dockerfile", "FROM busybox\nARG N\nRUN echo $N >/n\nCMD [\"cat\", \"/n\"]\n");
    let context = world.path("r").to_str().unwrap().to_owned();
    until_time_is_up(|round| {
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (world, context) = (&world, &context);
                scope.spawn(move || {
                    let tag = format!("r{worker}");
                    let argument = format!("N={round}.{worker}");
                    world.rbuild(&["-q", "-t", &tag, "--build-arg", &argument, context]);
                    assert_eq!(
                        world.rrun(&["run", "--rm", &tag]).stdout,
                        format!("{round}.{worker}\n")
                    );
                });
            }
            scope.spawn(|| world.rbuild(&["prune", "--force"]));
        });
    });
    world.assert_leaves_nothing();
}
