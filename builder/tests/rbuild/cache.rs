//! What is reused, what runs again, and why.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::world::{NAME, World};

const DOCKERFILE: &str = "FROM scratch\nCOPY src /src\nCOPY *.cfg /etc/\nWORKDIR /w\nCMD [\"x\"]\n";

fn world() -> World {
    let world = World::new();
    world.write("src/a", "a");
    world.write("src/b", "b");
    world.write("one.cfg", "1");
    world.write("unrelated", "");
    world
}

#[test]
fn only_what_a_step_sees_makes_it_run_again() {
    type Change = (&'static str, fn(&World), (usize, usize), &'static str);
    let table: [Change; 9] = [
        ("nothing", |_| {}, (3, 0), ""),
        (
            "touch",
            |world| {
                let file = fs::File::options().write(true).open(world.context().join("src/a"));
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
                file.unwrap().set_modified(time).unwrap();
            },
            (3, 0),
            "",
        ),
        ("an unrelated file", |world| drop(world.write("unrelated", "new")), (3, 0), ""),
        ("a new unrelated file", |world| drop(world.write("other", "new")), (3, 0), ""),
        ("chmod", |world| world.chmod("src/a", 0o600), (0, 3), "because src/a changed"),
        ("content", |world| drop(world.write("src/b", "B")), (0, 3), "because src/b changed"),
        (
            "rename",
            |world| {
                fs::rename(world.context().join("src/b"), world.context().join("src/c")).unwrap();
            },
            (0, 3),
            "because src/c added, and 1 more",
        ),
        (
            "rename of the only match of a wildcard",
            |world| {
                fs::rename(world.context().join("one.cfg"), world.context().join("two.cfg"))
                    .unwrap();
            },
            (1, 2),
            "because two.cfg added, and 1 more",
        ),
        ("one more match", |world| drop(world.write("x.cfg", "")), (1, 2), "because x.cfg added"),
    ];
    for (what, change, expected, why) in table {
        let world = world();
        assert_eq!(world.build(DOCKERFILE).counts(), (0, 3));
        change(&world);
        let built = world.build(DOCKERFILE);
        assert_eq!(built.counts(), expected, "{what}\n{}", built.stderr);
        assert!(built.stderr.contains(why), "{what}\n{}", built.stderr);
    }
}

#[test]
fn edits_of_the_dockerfile_cost_only_what_they_change() {
    let table = [
        ("# a comment\n", "CMD [\"y\"]\n", (3, 0)),
        ("", "LABEL new=1\nCMD [\"x\"]\n", (3, 0)),
        ("", "COPY unrelated /\n", (3, 1)),
    ];
    for (before, after, expected) in table {
        let world = world();
        world.build(DOCKERFILE);
        let edited =
            format!("{before}{}{after}", DOCKERFILE.strip_suffix("CMD [\"x\"]\n").unwrap());
        assert_eq!(world.build(&edited).counts(), expected, "{edited}");
    }
    let world = world();
    world.build(DOCKERFILE);
    let labelled = DOCKERFILE.replace("COPY src", "ENV A=1\nLABEL l=1\nUSER u\nCOPY src");
    assert_eq!(world.build(&labelled).counts().0, 2, "metadata is no part of a COPY's key");
    let built = world.build_with(DOCKERFILE, &["--no-cache"]);
    assert_eq!(built.counts(), (0, 3));
    assert!(built.stderr.contains("because --no-cache"), "{}", built.stderr);
    let moved = DOCKERFILE.replace("COPY src /src", "COPY src /moved");
    let built = world.build(&moved);
    assert!(built.stderr.contains("because instruction changed"), "{}", built.stderr);
    assert!(built.stderr.contains("because its base changed"), "{}", built.stderr);
}

#[test]
fn a_rebuild_is_the_same_image() {
    let world = world();
    world.build(DOCKERFILE);
    let first = world.inspect();
    world.build(DOCKERFILE);
    assert_eq!(world.inspect(), first);
    // An image without any layer has no time of its own to repeat.
    world.build("FROM scratch\nLABEL a=1\n");
    let first = world.inspect();
    world.build("FROM scratch\nLABEL a=1\n");
    assert_eq!(world.inspect(), first);
}

#[test]
fn the_same_input_gives_the_same_digest_anywhere() {
    let digest = |is_older: bool| {
        let world = world();
        let file = fs::File::options().write(true).open(world.context().join("src/a")).unwrap();
        let age = Duration::from_secs(if is_older { 1_100_000_000 } else { 1_700_000_000 });
        file.set_modified(SystemTime::UNIX_EPOCH + age).unwrap();
        let mut command = world.build_command(DOCKERFILE, &["-q"]);
        let output = command.env("SOURCE_DATE_EPOCH", "1000").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let image = world.inspect();
        assert_eq!(image["Created"], "1970-01-01T00:16:40Z");
        (image["Digest"].clone(), String::from_utf8(output.stdout).unwrap())
    };
    let (one, id) = digest(false);
    let (two, other_id) = digest(true);
    assert_eq!(one, two);
    assert_eq!(id, other_id);
    assert!(id.starts_with("sha256:"), "-q prints the image ID: {id}");
}

#[test]
fn equal_steps_of_a_build_run_once() {
    let world = world();
    let built = world.build(
        "FROM scratch AS a\nCOPY src /s\nFROM scratch AS b\nCOPY src /s\nFROM scratch\n\
         COPY --from=a /s /a\nCOPY --from=b /s /b\n",
    );
    assert_eq!(built.counts(), (1, 3), "{}", built.stderr);
}

#[test]
fn two_builds_of_one_context_at_once_both_succeed() {
    let world = world();
    for number in 0..200 {
        world.write(&format!("src/{number}"), number.to_string());
    }
    let mut builds: Vec<_> =
        (0..2).map(|_| world.build_command(DOCKERFILE, &["-q"]).spawn().unwrap()).collect();
    for build in &mut builds {
        assert!(build.wait().unwrap().success());
    }
    assert_eq!(world.build(DOCKERFILE).counts(), (3, 0));
}

#[test]
fn images_are_listed_named_and_removed() {
    let world = world();
    world.build(DOCKERFILE);
    let listed = world.run(&["images"]).stdout;
    assert!(listed.starts_with("REPOSITORY   TAG      IMAGE ID       CREATED"), "{listed}");
    assert!(listed.contains("test/image   latest   "), "{listed}");
    assert_eq!(world.run(&["tag", NAME, "other:1"]).status, 0);
    assert_eq!(world.run(&["images", "-q"]).stdout.lines().count(), 1);
    let json: serde_json::Value =
        serde_json::from_str(&world.run(&["images", "--format", "json"]).stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);

    let archive = world.context().join("saved.tar");
    let archive = archive.to_str().unwrap();
    assert_eq!(world.run(&["save", "-o", archive, NAME]).status, 0);
    let before = world.inspect()["Id"].clone();
    assert_eq!(world.run(&["rmi", NAME]).stdout, "Untagged: test/image:latest\n");
    let removed = world.run(&["rmi", "other:1"]).stdout;
    assert!(removed.starts_with("Untagged: other:1\nDeleted: sha256:"), "{removed}");
    let missing = world.run(&["inspect", NAME]);
    assert_eq!(missing.status, 1);
    assert!(missing.stderr.contains("hint: `rbuild images` lists what is here"));
    assert_eq!(world.run(&["load", "-i", archive]).stdout, "Loaded image: test/image:latest\n");
    assert_eq!(world.inspect()["Id"], before);

    let pruned = world.run(&["prune", "--all"]);
    assert!(pruned.stdout.contains("Total reclaimed space: "), "{}", pruned.stdout);
    assert_eq!(world.run(&["images", "-q"]).stdout, "");
    for left in ["blobs/sha256", "layers/sha256", "steps/sha256", "leases", "ingest", "trash"] {
        let path = world.root().join(left);
        let count = fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(count, 0, "{left} is not empty");
    }
}

#[test]
fn stages_can_be_run_anyway_by_name() {
    let world = world();
    let dockerfile = "FROM scratch AS one\nCOPY src /a\nFROM scratch AS two\nCOPY src /b\n\
                      FROM scratch\nCOPY --from=one /a /a\nCOPY --from=two /b /b\n";
    world.build(dockerfile);
    assert_eq!(world.build(dockerfile).counts(), (4, 0));
    // The same files again: what is built from them is still recorded.
    let table: [(&[&str], (usize, usize)); 4] = [
        (&["--no-cache-filter", "one"], (3, 1)),
        (&["--no-cache-filter=ONE,two"], (2, 2)),
        (&["--no-cache-filter", "one", "--no-cache-filter", "two"], (2, 2)),
        (&["--no-cache-filter", "three"], (4, 0)),
    ];
    for (flags, expected) in table {
        let built = world.build_with(dockerfile, flags);
        assert_eq!(built.counts(), expected, "{flags:?}\n{}", built.stderr);
    }
}
