//! The examples of docs/ci.md.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::{Output, Registry, World, try_run};

/// The first block of shell in the page.
fn plain_shell() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ci.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs it as a job does: in a checkout, with an empty store.
fn job(checkout: &Path, image: &str, tag: &str) -> (Output, World) {
    let world = World::with_busybox();
    let mut path = World::program("rbuild").parent().unwrap().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let output = try_run(
        Command::new("sh")
            .args(["-c", &plain_shell()])
            .current_dir(checkout)
            .env("PATH", path)
            .env("RBUILD_ROOT", world.root())
            .env("IMAGE", image)
            .env("TAG", tag),
    );
    (output, world)
}

/// The events of a kind in what the build said.
fn events(checkout: &Path, kind: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(checkout.join("progress.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    events.filter(|event: &serde_json::Value| event["event"] == kind).collect()
}

#[test]
fn privileged_the_plain_shell_example_builds_tests_and_tags() {
    let world = World::with_busybox();
    let registry = Registry::start(&world.path("registry"));
    let image = format!("{}/team/app", registry.host());
    let checkout = world.path("checkout");
    world.write(
        "checkout/Dockerfile",
        "FROM busybox AS build\nCOPY word /word\nRUN mkdir /app && (echo '#!/bin/sh'; echo test \
         $(cat /word) = good) >/app/test\nFROM busybox\nCOPY --chmod=0755 --from=build /app /app\n",
    );
    world.write("checkout/word", "good");
    let (first, _world) = job(&checkout, &image, "first");
    assert!(first.status.success(), "{first:?}");
    let built = &events(&checkout, "built")[0];
    let digest = built["digest"].as_str().unwrap().to_owned();
    assert_eq!((&built["reused"], &built["run"]), (&0.into(), &3.into()));
    let metadata = fs::read_to_string(checkout.join("metadata.json")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["containerimage.digest"], digest.as_str());

    // The next job, on another machine: every step comes from the registry.
    let (second, machine) = job(&checkout, &image, "second");
    assert!(second.status.success(), "{second:?}");
    let built = &events(&checkout, "built")[0];
    assert_eq!((&built["reused"], &built["run"]), (&3.into(), &0.into()));
    machine.rbuild(&["pull", &format!("{image}:second")]);
    let run = ["run", "--rm", &format!("{image}:second"), "cat", "/app/test"];
    assert_eq!(machine.rrun(&run).stdout, "#!/bin/sh\ntest good = good\n");

    // A test that fails: the tag is not given.
    world.write("checkout/word", "bad");
    let (third, machine) = job(&checkout, &image, "third");
    assert_eq!(third.code(), 1, "{third:?}");
    let pulled = machine.try_rbuild(&["pull", &format!("{image}:third")]);
    assert!(!pulled.status.success(), "{pulled:?}");

    // A build that fails: the job says why.
    world.write("checkout/Dockerfile", "FROM busybox\nRUN exit 7\n");
    let (fourth, _world) = job(&checkout, &image, "fourth");
    assert_eq!(fourth.code(), 1, "{fourth:?}");
    assert!(fourth.stderr.contains("exit code: 7"), "{fourth:?}");
}
