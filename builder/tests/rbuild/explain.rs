//! Why steps ran, what they said, and what all of it takes on the disk.

use std::fs;
use std::process::Command;

use crate::privileged::{self, BASE};
use crate::world::{Built, World};

const DOCKERFILE: &str = "FROM scratch AS one\nCOPY src /src\nCOPY other /other\n\
                          FROM scratch\nARG V=1\nCOPY --from=one /src /copied\nWORKDIR /w\n";

/// A world whose Dockerfile is in its context, as users have it.
fn world() -> World {
    let world = World::new();
    world.write("Dockerfile", DOCKERFILE);
    world.write("src/a", "a");
    world.write("src/b", "b");
    world.write("other", "");
    world
}

fn run(world: &World, arguments: &[&str]) -> Built {
    let context = world.context();
    let built = world.run(&[arguments, &[context.to_str().unwrap()]].concat());
    assert_eq!(built.status, 0, "{arguments:?}: {}", built.stderr);
    built
}

/// Returns what `explain` prints below its first two lines.
fn explained(world: &World) -> String {
    let text = run(world, &["explain"]).stdout;
    let steps = text.split_once("\n\n").unwrap().1;
    // Nothing here takes a tenth of a second, but on a busy machine it may.
    let without_time = |line: &str| match line.rsplit_once("  ") {
        Some((rest, time)) if time.ends_with('s') && time.contains('.') => {
            rest.trim_end().to_owned()
        }
        _ => line.to_owned(),
    };
    steps.lines().map(|line| without_time(line) + "\n").collect()
}

#[test]
fn every_step_of_the_last_build_is_explained() {
    let world = world();
    let unknown = world.run(&["explain", world.context().to_str().unwrap()]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.stderr.contains("was not built with"), "{}", unknown.stderr);

    run(&world, &["build"]);
    let first = "  1  ran      [one 1/2] COPY src /src\n              first build\n";
    assert!(explained(&world).starts_with(first), "{}", explained(&world));

    run(&world, &["build"]);
    let reused = "  1  reused   [one 1/2] COPY src /src\n  2  reused   [one 2/2] COPY other /other\n  \
                  3  reused   [stage-1 1/2] COPY --from=one /src /copied\n  4  reused   [stage-1 2/2] WORKDIR /w\n";
    assert_eq!(explained(&world), reused);

    world.write("src/b", "B");
    world.write("src/c", "c");
    fs::remove_file(world.context().join("src/a")).unwrap();
    let dockerfile = DOCKERFILE.replace("WORKDIR /w", "WORKDIR /v");
    world.write("Dockerfile", &dockerfile);
    run(&world, &["build"]);
    let files =
        "              src/b changed\n              src/c added\n              src/a removed\n";
    let expected = format!(
        "  1  ran      [one 1/2] COPY src /src\n{files}  \
         2  ran      [one 2/2] COPY other /other\n              what it builds on changed: [one 1/2] COPY src /src\n  \
         3  ran      [stage-1 1/2] COPY --from=one /src /copied\n{files}  \
         4  ran      [stage-1 2/2] WORKDIR /v\n              instruction changed, it was: WORKDIR /w\n              \
         what it builds on changed: [stage-1 1/2] COPY --from=one /src /copied\n"
    );
    assert_eq!(explained(&world), expected);

    // An instruction that is new in between does not make those after it new.
    let dockerfile = dockerfile.replace("COPY other", "COPY other /first\nCOPY other");
    world.write("Dockerfile", &dockerfile);
    run(&world, &["build"]);
    let text = explained(&world);
    assert!(text.contains("COPY other /first\n              new instruction\n"), "{text}");
    assert!(text.contains("COPY other /other\n              what it builds on changed"), "{text}");
    let json = run(&world, &["explain", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["steps"].as_array().unwrap().len(), 5);
    assert_eq!(json["steps"][0]["outcome"], "reused");
    assert_eq!(json["steps"][1]["changes"][0]["change"], "new_instruction");
}

#[test]
fn a_failed_build_is_explained_as_well() {
    let world = world();
    run(&world, &["build"]);
    world.write("Dockerfile", DOCKERFILE.replace("COPY other", "COPY none"));
    let failed = world.run(&["build", world.context().to_str().unwrap()]);
    assert_eq!(failed.status, 1);
    let text = explained(&world);
    assert!(text.contains("not reached") || text.contains("reused"), "{text}");
}

/// Returns the bytes that `du` of the system counts.
fn counted(world: &World) -> u64 {
    let output = Command::new("du").arg("-sb").arg(world.root()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn total(world: &World) -> u64 {
    let json = world.run(&["du", "--format", "json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    json["total"].as_u64().unwrap()
}

#[test]
fn du_counts_what_is_there_and_prune_keeps_to_a_cap() {
    let world = world();
    for number in 0..6 {
        world.write("src/a", vec![b'0' + number; 300_000]);
        run(&world, &["build", "-t", "app"]);
    }
    let before = total(&world);
    assert_eq!(before, counted(&world));
    assert!(before > 6 * 2 * 300_000, "both stages of each build");
    let table = world.run(&["du"]).stdout;
    for word in ["TYPE", "blobs", "records", "total"] {
        assert!(table.contains(word), "{table}");
    }

    let cap = 2_000_000;
    let pruned = world.run(&["prune", "--max-used-space", &cap.to_string()]);
    assert_eq!(pruned.status, 0, "{}", pruned.stderr);
    let after = total(&world);
    assert_eq!(after, counted(&world));
    assert!(after <= cap && after > cap - 700_000, "no more than needed: {after}");
    // The latest were used last: they are still there.
    let again = run(&world, &["build", "-t", "app"]);
    assert_eq!(again.counts(), (4, 0), "{}", again.stderr);

    let impossible = world.run(&["prune", "--keep-storage=1kb"]);
    assert_eq!(impossible.status, 1);
    assert!(impossible.stderr.contains("the store still has"), "{}", impossible.stderr);
    assert_eq!(world.run(&["images", "-q"]).stdout.lines().count(), 1);
    assert_eq!(world.run(&["prune", "--all", "-f"]).status, 0);
    assert_eq!(total(&world), counted(&world));
    assert!(total(&world) < 200_000, "{}", total(&world));
}

#[test]
fn prune_takes_what_its_filters_say() {
    let world = world();
    run(&world, &["build", "-t", "app"]);
    let young = world.run(&["prune", "--filter", "until=1h"]);
    assert!(!young.stdout.contains("build records"), "{}", young.stdout);
    assert_eq!(run(&world, &["build", "-t", "app"]).counts(), (4, 0));
    let logs = world.run(&["prune", "--filter", "type=logs"]);
    assert!(!logs.stdout.contains("build records"), "{}", logs.stdout);
    let records = world.run(&["prune", "--filter", "type=records"]);
    assert!(records.stdout.contains("build records"), "{}", records.stdout);
    assert_eq!(world.run(&["images", "-q"]).stdout.lines().count(), 1);
    assert_eq!(run(&world, &["build", "-t", "app"]).counts(), (0, 4));
    for wrong in ["type=record", "until=x"] {
        assert_eq!(world.run(&["prune", "--filter", wrong]).status, 125, "{wrong}");
    }
}

#[test]
fn privileged_the_whole_output_of_a_step_is_kept() {
    let world = privileged::world();
    world.write("Dockerfile", format!("{BASE}RUN seq 1000\nRUN echo two\n"));
    run(&world, &["build"]);
    let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    // The first step is the ADD of the base.
    assert!(run(&world, &["logs", "--step", "2"]).stdout.contains(&numbers));
    assert!(run(&world, &["logs", "--step", "3"]).stdout.contains("two\n"));
    let all = run(&world, &["logs"]).stdout;
    assert!(all.contains(&numbers) && all.contains("two\n"), "{all}");
    // A step that is reused still has its output.
    run(&world, &["build"]);
    assert_eq!(run(&world, &["logs"]).stdout, all);
    let context = world.context();
    let beyond = world.run(&["logs", "--step", "4", context.to_str().unwrap()]);
    assert_eq!(beyond.status, 1);
    assert!(beyond.stderr.contains("there is no step 4: the build has 3"), "{}", beyond.stderr);
}
