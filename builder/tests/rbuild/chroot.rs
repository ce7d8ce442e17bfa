//! RUN without namespaces: `--isolation=chroot`.

use crate::privileged::{BASE, logs, world};
use crate::world::World;

const CHROOT: [&str; 4] = ["--isolation", "chroot", "--progress", "json"];

/// Builds steps on top of the base in a chroot and returns what they said.
#[track_caller]
fn output(world: &World, lines: &str) -> Vec<String> {
    let built = world.build_with(&format!("{BASE}{lines}\n"), &CHROOT);
    assert_eq!(built.status, 0, "{lines}\n{}", built.stderr);
    logs(&built)
}

#[test]
fn privileged_a_chroot_gives_the_same_image_as_namespaces() {
    let file = format!(
        "{BASE}RUN mkdir -p /a/b && echo x > /a/b/c && chown 5:6 /a/b/c && touch /kept /gone\n\
         COPY busybox.tar /copied\n\
         RUN rm /gone && echo more >> /a/b/c && rm -r /tmp && mkdir /tmp && touch /tmp/x\n\
         USER user\nWORKDIR /home/user\nRUN id -u > /home/user/id\n"
    );
    let (one, other) = (world(), world());
    assert_eq!(one.build_with(&file, &["--isolation", "default"]).status, 0);
    let built = other.build_with(&file, &["--isolation", "chroot"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(other.listing(), one.listing());
    // What has run is found by a build of either kind.
    assert_eq!(other.build(&file).counts(), (6, 0));
}

#[test]
fn privileged_a_run_in_a_chroot_has_what_programs_expect() {
    let world = world();
    let table: [(&str, &[&str]); 9] = [
        ("RUN echo one; echo two >&2", &["one", "two"]),
        ("RUN echo one >/dev/stdout; echo two >/dev/stderr", &["one", "two"]),
        ("USER user\nRUN echo mine >/dev/stdout", &["mine"]),
        ("RUN echo x >/dev/null; cat /dev/null; busybox head -c 3 /dev/zero | wc -c", &["3"]),
        ("RUN cat /etc/hosts | wc -l", &["2"]),
        ("USER user\nRUN id -u; id -G; echo $HOME", &["100", "200 300", "/home/user"]),
        ("RUN <<EOF\n#!/bin/cat\nsaid\nEOF", &["#!/bin/cat", "said"]),
        ("RUN ls /proc /sys | wc -l; touch /dev/shm/x && echo ok", &["3", "ok"]),
        (
            "RUN --mount=type=tmpfs,target=/t/u touch /t/u/x && ls /t/u && echo kept > /etc/hosts",
            &["x"],
        ),
    ];
    for (lines, expected) in table {
        let mut said = output(&world, lines);
        if lines.contains("two") {
            said.sort();
        }
        assert_eq!(said, expected, "{lines}");
    }
}

#[test]
fn privileged_a_run_in_a_chroot_leaves_nothing_but_what_it_did() {
    let world = world();
    let file = format!(
        "{BASE}RUN true\nRUN rm -r /etc && mkdir /etc && echo new > /etc/made\n\
         RUN --mount=type=tmpfs,target=/mnt/t touch /mnt/t/x && echo lost > /etc/hosts && echo lost > /dev/x\n"
    );
    let built = world.build_with(&file, &CHROOT);
    assert_eq!(built.status, 0, "{}", built.stderr);
    let layers = world.layers();
    assert_eq!(layers[1], [0; 1024], "nothing changed: the empty tar");
    let names = |layer: &[u8]| -> Vec<String> {
        let mut archive = tar::Archive::new(layer);
        let entries = archive.entries().unwrap();
        entries.map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    };
    assert_eq!(names(&layers[2]), ["etc/", "etc/.wh.group", "etc/made", "etc/.wh.passwd"]);
    assert_eq!(layers[3], [0; 1024]);
}

#[test]
fn privileged_a_cache_lasts_in_a_chroot_too() {
    let world = world();
    let line = |n: u32| format!("RUN --mount=type=cache,target=/c echo {n} >> /c/f && cat /c/f");
    assert_eq!(output(&world, &line(1)), ["1"]);
    assert_eq!(output(&world, &line(2)), ["1", "2"]);
    // Namespaces or not, it is the same cache.
    let built = world.build_with(&format!("{BASE}{}\n", line(3)), &["--progress", "json"]);
    assert_eq!(logs(&built), ["1", "2", "3"]);
    assert!(!world.files().keys().any(|path| path.starts_with("c/")));
}

#[test]
fn privileged_mounts_are_copies_in_a_chroot() {
    let world = world();
    world.write("dir/file", "text");
    world.write("secret", "tweet");
    let file = format!(
        "{BASE}RUN echo staged > /staged\nFROM base\n\
         RUN --mount=type=bind,source=dir,target=/d --mount=type=bind,from=0,target=/s \
         --mount=type=secret,id=canary,mode=0440,uid=100 \
         cat /d/file /s/staged; stat -c '%a %u' /run/secrets/canary; wc -c </run/secrets/canary\n"
    );
    let secret = format!("id=canary,src={}", world.context().join("secret").display());
    let arguments = [&CHROOT[..], &["--secret", &secret]].concat();
    let built = world.build_with(&file, &arguments);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(logs(&built), ["textstaged", "440 100", "5"]);
    assert!(world.layers()[2] == [0; 1024], "nothing of it is in the layer");
}

#[test]
fn privileged_what_a_chroot_cannot_do_is_refused_by_name() {
    let world = world();
    let built = world.build_with(&format!("{BASE}RUN --network=none true\n"), &CHROOT);
    assert_eq!(built.status, 1);
    let said = "RUN --network=none needs namespaces, and --isolation=chroot does without them";
    assert!(built.stderr.contains(said), "{}", built.stderr);
}

#[test]
fn privileged_a_failing_run_in_a_chroot_leaves_nothing() {
    let world = world();
    let file = format!("{BASE}RUN (sleep 3603 &); echo x > /x; exit 3\n");
    let built = world.build_with(&file, &CHROOT);
    assert_eq!(built.status, 1);
    assert!(built.stderr.contains("exit code: 3"), "{}", built.stderr);
    crate::privileged::wait_until_gone("sleep\u{0}3603");
    crate::privileged::assert_nothing_is_left(&world);
}
