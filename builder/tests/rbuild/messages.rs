//! What people read when something is wrong.

use crate::world::World;

#[test]
fn all_problems_of_a_dockerfile_are_shown_with_their_places() {
    let world = World::new();
    let said = world.fail("FROM scratch\nCOPPY a /\nRUN --mont=type=cache x\n");
    assert!(said.contains("Dockerfile:2:1: error: "), "{said}");
    assert!(said.contains("unknown instruction: COPPY (did you mean COPY?)"), "{said}");
    assert!(said.contains("2 | COPPY a /\n  | ^^^^^\n"), "{said}");
    assert!(said.contains("Dockerfile:3:"), "{said}");
    assert!(said.ends_with("error: Dockerfile has 2 errors\n"), "{said}");
}

#[test]
fn a_failed_step_shows_its_lines() {
    let world = World::new();
    let said = world.fail("FROM scratch\nLABEL a=1\nCOPY missing \\\n  /x\nLABEL b=1\n");
    assert!(
        said.contains(
            "Dockerfile:3\n--------------------\n   1 |     FROM scratch\n   2 |     LABEL a=1\n\
             \u{20}  3 | >>> COPY missing \\\n   4 | >>>   /x\n   5 |     LABEL b=1\n--------------------\n"
        ),
        "{said}"
    );
    assert!(
        said.ends_with("error: failed to compute cache key: \"/missing\": not found\n"),
        "{said}"
    );
}

#[test]
fn unknown_names_come_with_the_nearest_one() {
    let world = World::new();
    world.write("x", "");
    let file = "FROM scratch AS builder\nARG VERSION\nCOPY x /\nFROM scratch AS final\nCOPY x /\n";
    let said = world.build_with(file, &["--target", "bulder"]);
    assert_eq!(said.status, 1);
    assert!(
        said.stderr.contains("target stage \"bulder\" could not be found (did you mean builder?)"),
        "{}",
        said.stderr
    );
    let said = world.build_with(file, &["--build-arg", "VERSOIN=1"]);
    assert_eq!(said.status, 0);
    assert!(said.stderr.contains("VERSOIN was not consumed"), "{}", said.stderr);
    assert!(said.stderr.contains("did you mean VERSION?"), "{}", said.stderr);
    let said = world.run(&["imges"]);
    assert_eq!(said.status, 125);
    assert!(said.stderr.contains("images"), "{}", said.stderr);
    let said = world.run(&["--targt", "x", "."]);
    assert_eq!(said.status, 125);
    assert!(said.stderr.contains("'--target'"), "{}", said.stderr);
}

#[test]
fn missing_things_are_named() {
    let world = World::new();
    let said = world.run(&["-t", "x", "/nonexistent/context"]);
    assert_eq!(said.status, 1);
    assert!(
        said.stderr.contains("cannot use /nonexistent/context as build context: No such file"),
        "{}",
        said.stderr
    );
    let context = world.context();
    let said = world.run(&["-t", "x", context.to_str().unwrap()]);
    assert!(said.stderr.contains("failed to read dockerfile"), "{}", said.stderr);
    let said = world.run(&["-t", "No Name", "."]);
    assert_eq!(said.status, 125);
}

#[test]
fn json_progress_is_one_object_per_line() {
    let world = World::new();
    world.write("x", "");
    let built = world.build_with("FROM scratch\nCOPY x /\n", &["--progress", "json"]);
    let events: Vec<serde_json::Value> =
        built.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "running", "done", "built"]);
    assert_eq!(events[0]["name"], "[1/1] COPY x /");
    assert_eq!(events[1]["reason"], "first");
    assert_eq!(events[3]["run"], 1);
    assert!(built.stdout.is_empty(), "results only, and -q was not asked for");
    let quiet = world.build_with("FROM scratch\nCOPY x /\n", &["-q"]);
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_base_image_that_cannot_be_had_points_at_its_from() {
    let world = World::new();
    let said = world.fail("# syntax=docker/dockerfile:1\nFROM localhost:1/none\nRUN x\n");
    assert!(said.contains("#1 [internal] load metadata for localhost:1/none:latest\n"), "{said}");
    assert!(said.contains("   2 | >>> FROM localhost:1/none\n"), "{said}");
    assert!(
        said.ends_with(
            "error: localhost:1/none: it is not in the store and cannot be pulled: localhost:1 cannot be \
             reached: connection refused\nhint: is the registry running? start one with `rregistry serve`\n"
        ),
        "{said}"
    );
}

#[test]
fn images_of_the_store_are_bases_and_sources() {
    let world = World::new();
    world.write("x", "one");
    world.build("FROM scratch\nCOPY x /dir/x\nENV A=1\nLABEL base=1\n");
    assert_eq!(world.run(&["tag", "test/image", "base:1"]).status, 0);
    let file = "FROM base:1\nCOPY --from=base:1 /dir /copy\nLABEL own=$A\n";
    world.build(file);
    let image = world.inspect();
    assert_eq!(image["Config"]["Labels"], serde_json::json!({"base": "1", "own": "1"}));
    let history = image["History"].as_array().unwrap();
    assert_eq!(history.len(), 5, "{history:?}");
    assert_eq!(world.files()["copy/x"], "644 \"one\"");
    assert_eq!(world.build(file).counts(), (1, 0));
    // Another image under the same name is another base.
    world.write("x", "two");
    assert_eq!(world.run(&["-t", "base:1", "-f", "-", "."]).status, 1, "stdin has no Dockerfile");
    let dockerfile = world.write("Base", "FROM scratch\nCOPY x /dir/x\n");
    let context = world.context();
    let (dockerfile, context) = (dockerfile.to_str().unwrap(), context.to_str().unwrap());
    let other = world.run(&["-t", "base:1", "-f", dockerfile, context]);
    assert_eq!(other.status, 0);
    let built = world.build(file);
    assert!(built.stderr.contains("because dir/x changed"), "{}", built.stderr);
    assert_eq!(world.files()["copy/x"], "644 \"two\"");
}
