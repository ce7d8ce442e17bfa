//! What a build takes over from registries, and what it leaves there.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use e2e::{Registry, World};

/// Pushes an image with one layer of `files` as `name`; returns the digest of the layer's blob.
fn push_base(registry: &Registry, name: &str, content: &str) -> String {
    let world = World::new();
    world.write("context/base", content);
    world.write("context/Dockerfile", "FROM scratch\nCOPY base /base\nENV FROM_BASE=1\n");
    world.rbuild(&["-t", name, world.path("context").to_str().unwrap()]);
    world.rbuild(&["push", name]);
    let repository = name.strip_prefix(&format!("{}/", registry.host())).unwrap();
    let (repository, tag) = repository.split_once(':').unwrap();
    let manifest = registry.get(&format!("/v2/{repository}/manifests/{tag}")).unwrap();
    let (_, body) = manifest.split_once("\r\n\r\n").unwrap();
    let manifest: serde_json::Value = serde_json::from_str(body).unwrap();
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}

fn has_blob(world: &World, digest: &str) -> bool {
    world.root().join("blobs").join(digest.replace(':', "/")).exists()
}

fn names(world: &World) -> Vec<String> {
    let listed = world.rbuild(&["images", "--format", "json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let name = |image: &serde_json::Value| image["Repository"].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn layers_of_a_base_image_are_pulled_only_where_something_reads_them() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let base = format!("{}/base:1", registry.host());
    let layer = push_base(&registry, &base, "base");
    let context = world.path("context");
    let context = context.to_str().unwrap();
    world.write("context/own", "own");
    let dockerfile =
        format!("FROM {base} AS build\nCOPY own /own\nFROM scratch\nCOPY --from=build /own /own\n");
    world.write("context/Dockerfile", &dockerfile);

    // The first build has to look whether /own is there, so it needs the base.
    world.rbuild(&["-t", "app", context]);
    assert!(has_blob(&world, &layer));
    assert_eq!(names(&world), ["app", base.strip_suffix(":1").unwrap()]);

    // Gone, and not missed: every step is recorded.
    world.rbuild(&["rmi", &base]);
    world.rbuild(&["prune"]);
    assert!(!has_blob(&world, &layer));
    let output = world.rbuild(&["-t", "app", context]);
    assert!(output.stderr.contains("(2 steps reused, 0 run"), "{output:?}");
    assert!(!has_blob(&world, &layer));
    assert_eq!(names(&world), ["app"]);

    // What the name stood for is remembered: the registry is not asked again.
    registry.kill();
    let output = world.rbuild(&["-t", "app", context]);
    assert!(output.stderr.contains("(2 steps reused, 0 run"), "{output:?}");
    world.assert_leaves_nothing();
}

#[test]
fn an_image_in_the_store_is_whole() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let base = format!("{}/base:1", registry.host());
    let layer = push_base(&registry, &base, "base");
    let context = world.path("context");
    let context = context.to_str().unwrap();
    // No step reads a file of the base: only the result in the store needs its layer.
    world.write("context/Dockerfile", format!("FROM {base}\nENV ADDED=1\n"));
    world.rbuild(&["-t", "app", context]);
    assert!(has_blob(&world, &layer));
    let archive = world.path("app.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "app"]);
    world.assert_leaves_nothing();
}

#[test]
fn pull_policies_say_when_the_registry_is_asked() {
    let world = World::new();
    let registry = Registry::start(&world.path("registry"));
    let base = format!("{}/base:1", registry.host());
    let old = push_base(&registry, &base, "old");
    let context = world.path("context");
    let context = context.to_str().unwrap();
    world.write("context/Dockerfile", format!("FROM {base}\n"));
    let never = world.try_rbuild(&["--pull=never", "-t", "app", context]);
    assert_eq!(never.code(), 1);
    assert!(never.stderr.contains("it is not in the store, and --pull=never"), "{never:?}");

    world.rbuild(&["-t", "app", context]);
    let new = push_base(&registry, &base, "new");
    for flags in [&[][..], &["--pull=missing"], &["--pull=false"], &["--pull=never"]] {
        world.rbuild(&[flags, &["-t", "app", context]].concat());
        assert!(has_blob(&world, &old) && !has_blob(&world, &new), "{flags:?}");
    }
    world.rbuild(&["--pull", "-t", "app", context]);
    assert!(has_blob(&world, &new));
    // From now on the name means the new one.
    let inspected = world.rbuild(&["inspect", &base]).stdout;
    assert!(inspected.contains(&new), "{inspected}");

    registry.kill();
    world.rbuild(&["--pull=newer", "-t", "app", context]);
    let always = world.try_rbuild(&["--pull=always", "-t", "app", context]);
    assert_eq!(always.code(), 1);
    let wrong = world.try_rbuild(&["--pull=sometimes", "-t", "app", context]);
    assert_eq!(wrong.code(), 125);
    assert!(wrong.stderr.contains("use always, missing, newer or never"), "{wrong:?}");
}
