//! What a build takes over from registries, and what it leaves there.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::fs;

use e2e::{Output, Registry, World};

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

/// Two stages: what the second takes out of the first is small, the first itself is not.
const STAGES: &str = "FROM scratch AS build\nCOPY big /big\nCOPY src /src\nFROM scratch\n\
                      COPY own /own\nCOPY --from=build /src /src\n";

/// A store of its own with the context of [`STAGES`].
fn staged() -> World {
    let world = World::new();
    world.write("context/Dockerfile", STAGES);
    world.write("context/big", "big".repeat(100_000));
    world.write("context/src/a", "a");
    world.write("context/own", "own");
    world
}

#[track_caller]
fn build(world: &World, flags: &[&str], expected: &str) -> Output {
    let context = world.path("context");
    let output = world.rbuild(&[flags, &["-t", "app", context.to_str().unwrap()]].concat());
    assert!(output.stderr.contains(expected), "no {expected:?} in {output:?}");
    output
}

fn blobs(world: &World) -> usize {
    fs::read_dir(world.root().join("blobs/sha256")).unwrap().count()
}

/// The bytes of the largest blob: whether the layer of `big` is here.
fn largest(world: &World) -> u64 {
    let blobs = fs::read_dir(world.root().join("blobs/sha256")).unwrap();
    blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).max().unwrap_or(0)
}

#[test]
fn a_cache_travels_through_a_registry_and_only_what_is_needed_of_it() {
    let registry_world = World::new();
    let registry = Registry::start(&registry_world.path("registry"));
    let cache = format!("{}/cache:main", registry.host());
    let to = format!("type=registry,ref={cache},mode=max");
    let from = format!("type=registry,ref={cache}");

    let first = staged();
    build(&first, &["--cache-from", &from, "--cache-to", &to], "(0 steps reused, 4 run");
    let second = staged();
    build(&second, &["--cache-from", &cache], "(4 steps reused, 0 run");
    assert!(largest(&second) < 10_000, "no layer of the first stage");
    let id = |world: &World| {
        let inspected: serde_json::Value =
            serde_json::from_str(&world.rbuild(&["inspect", "app"]).stdout).unwrap();
        inspected[0]["Created"].clone()
    };
    assert_eq!(id(&first), id(&second), "times are those of the first build");
    // What came with its layer is recorded here now; of the first stage only the cache knows,
    // unless both stages' /src were made in the same second and are the same layer.
    let output = build(&second, &[], " steps reused, ");
    let counts = ["(2 steps reused, 2 run", "(3 steps reused, 1 run"];
    assert!(counts.iter().any(|counts| output.stderr.contains(counts)), "{output:?}");

    // A changed file below what is taken: the files of the stage are needed now, and are there.
    let third = staged();
    third.write("context/src/b", "b");
    build(&third, &["--cache-from", &cache, "--cache-to", &to], "(2 steps reused, 2 run");
    let fourth = staged();
    fourth.write("context/src/b", "b");
    build(&fourth, &["--cache-from", &cache], "(4 steps reused, 0 run");
    for world in [&first, &second, &third, &fourth] {
        world.assert_leaves_nothing();
    }
}

#[test]
fn a_cache_in_a_directory_has_layers_of_the_image_or_of_all_steps() {
    for (mode, expected) in [("min", "(1 steps reused, 3 run"), ("max", "(2 steps reused, 2 run")] {
        let first = staged();
        let directory = first.path("cache");
        let directory = directory.to_str().unwrap();
        let to = format!("type=local,dest={directory},mode={mode}");
        let from = format!("type=local,src={directory}");
        build(&first, &["--cache-to", &to], "(0 steps reused, 4 run");
        let index = fs::read(first.path("cache/index.json")).unwrap();
        build(&first, &["--cache-to", &to], "(4 steps reused, 0 run");
        assert_eq!(fs::read(first.path("cache/index.json")).unwrap(), index, "nothing is new");

        let second = staged();
        build(&second, &["--cache-from", &from], "(4 steps reused, 0 run");
        assert!(largest(&second) < 10_000, "{mode}");
        // Another file in the first stage's second step: its first step's layer is not looked at.
        let third = staged();
        third.write("context/src/b", "b");
        let output = build(&third, &["--cache-from", &from], expected);
        let warned = output.stderr.contains("the caches know only by name");
        assert_eq!(warned, mode == "min", "{output:?}");
        // What docker and skopeo call a layout.
        let version = fs::read_to_string(first.path("cache/oci-layout")).unwrap();
        assert_eq!(version, r#"{"imageLayoutVersion":"1.0.0"}"#);
    }
}

/// What a RUN wrote is random here, so that only the cache can bring it twice.
#[test]
fn what_a_run_wrote_comes_out_of_a_cache() {
    const FILE: &str = "FROM busybox AS make\nRUN head -c 32 /dev/urandom >/random\n\
                        RUN mkdir /out && cp /random /out/ && rm /random\n\
                        FROM busybox\nCOPY --from=make /out /out\nRUN test -s /out/random\n";
    let first = World::with_busybox();
    first.write("context/Dockerfile", FILE);
    let cache = first.path("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    let from = format!("type=local,src={}", cache.display());
    build(&first, &["--cache-to", &to], "(0 steps reused, 4 run");

    let second = World::with_busybox();
    second.write("context/Dockerfile", FILE);
    build(&second, &["--cache-from", &from], "(4 steps reused, 0 run");
    let random = |world: &World| world.rrun(&["run", "--rm", "app", "sha256sum", "/out/random"]);
    assert_eq!(random(&first).stdout, random(&second).stdout);

    // A RUN on top of the layers that only the cache has, the one that removes among them.
    let third = World::with_busybox();
    let further = FILE.replace("FROM busybox\nCOPY", "RUN test ! -e /random\nFROM busybox\nCOPY");
    let further = further.replace("RUN test -s", "RUN test -r");
    third.write("context/Dockerfile", further);
    build(&third, &["--cache-from", &from], "(3 steps reused, 2 run");
    assert_eq!(random(&third).stdout, random(&first).stdout);
    for world in [&first, &second, &third] {
        world.assert_leaves_nothing();
    }
}

#[test]
fn a_cache_has_the_steps_of_all_platforms() {
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let staged = || {
        let world = World::new();
        world.write("context/app-amd64", "for one");
        world.write("context/app-arm64", "for the other");
        world.write("context/shared", "shared");
        world.write(
            "context/Dockerfile",
            "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY shared /tool\n\
             FROM scratch\nARG TARGETARCH\nCOPY app-$TARGETARCH /app\nCOPY --from=tools /tool /\n",
        );
        world
    };
    let first = staged();
    let directory = first.path("cache");
    let to = format!("type=local,dest={},mode=max", directory.display());
    let from = format!("type=local,src={}", directory.display());
    build(&first, &[&platforms[..], &["--cache-to", &to]].concat(), "(1 steps reused, 5 run");
    let second = staged();
    build(&second, &[&platforms[..], &["--cache-from", &from]].concat(), "(6 steps reused, 0 run");
    // One of them alone uses what both have left.
    let third = staged();
    let one = ["--platform", "linux/arm64", "--cache-from", &from];
    build(&third, &one, "(3 steps reused, 0 run");
}

#[test]
fn an_image_can_carry_its_own_cache() {
    let first = staged();
    let registry = Registry::start(&first.path("registry"));
    let name = format!("{}/app:1", registry.host());
    build(&first, &["--cache-to", "type=inline"], "(0 steps reused, 4 run");
    first.rbuild(&["push", "app", &name]);
    let second = staged();
    build(&second, &["--cache-from", &name], "(4 steps reused, 0 run");
    assert!(largest(&second) < 10_000);
    let plain = format!("{}/app:plain", registry.host());
    let third = staged();
    build(&third, &[], "(0 steps reused, 4 run");
    third.rbuild(&["push", "app", &plain]);
    let fourth = staged();
    build(&fourth, &["--cache-from", &plain], "the image has no cache inside");
}

#[test]
fn a_cache_that_is_not_there_costs_nothing_and_one_that_cannot_be_written_is_an_error() {
    let world = staged();
    let registry = Registry::start(&world.path("registry"));
    let missing = format!("{}/none:none", registry.host());
    let output = build(&world, &["--cache-from", &missing], "(0 steps reused, 4 run");
    assert!(!output.stderr.contains("WARN"), "{output:?}");
    build(&world, &["--cache-from", "type=local,src=/none/such", "--no-cache"], "4 run");
    let down = format!("localhost:{}/cache", e2e::free_port());
    let output = build(&world, &["--no-cache"], "4 run");
    assert!(!output.stderr.contains(&down));
    let other = staged();
    build(&other, &["--cache-from", &down], "(0 steps reused, 4 run");
    let context = world.path("context");
    let context = context.to_str().unwrap();
    let to = format!("type=registry,ref={down}");
    let failed = world.try_rbuild(&["--cache-to", &to, "-t", "app", context]);
    assert_eq!(failed.code(), 1);
    assert!(failed.stderr.contains("cannot export the cache to"), "{failed:?}");
    build(
        &world,
        &["--cache-to", &format!("{to},ignore-error=true")],
        "cannot export the cache to",
    );
    let wrong = world.try_rbuild(&["--cache-to", "type=registry,rev=x", context]);
    assert_eq!(wrong.code(), 125);
    assert!(wrong.stderr.contains("ref= is missing"), "{wrong:?}");
}

/// What somebody else wrote is verified, and whatever is wrong with it, the build succeeds.
#[test]
fn a_hostile_cache_is_not_believed() {
    type Harm = fn(&std::path::Path);
    fn each(cache: &std::path::Path, harm: impl Fn(&std::path::Path, Vec<u8>)) {
        for blob in fs::read_dir(cache.join("blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            harm(&path, fs::read(&path).unwrap());
        }
    }
    let harms: [(&str, Harm); 5] = [
        ("other bytes in layers", |cache| {
            each(cache, |path, mut bytes| {
                if bytes.first() != Some(&b'{') {
                    *bytes.last_mut().unwrap() ^= 1;
                    fs::write(path, bytes).unwrap();
                }
            });
        }),
        ("layers are gone", |cache| {
            each(cache, |path, bytes| {
                if bytes.first() != Some(&b'{') {
                    fs::remove_file(path).unwrap();
                }
            });
        }),
        ("layers are links", |cache| {
            each(cache, |path, bytes| {
                if bytes.first() != Some(&b'{') {
                    fs::remove_file(path).unwrap();
                    std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
                }
            });
        }),
        ("records are cut off", |cache| {
            each(cache, |path, bytes| {
                if bytes.starts_with(b"{\"version\"") {
                    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
                }
            });
        }),
        ("the index is nonsense", |cache| {
            fs::write(cache.join("index.json"), "[[[[").unwrap();
        }),
    ];
    for (what, harm) in harms {
        let first = staged();
        let cache = first.path("cache");
        build(&first, &["--cache-to", &format!("type=local,dest={}", cache.display())], "4 run");
        harm(&cache);
        let second = staged();
        let from = format!("type=local,src={}", cache.display());
        let output = build(&second, &["--cache-from", &from], "(0 steps reused, 4 run");
        assert!(output.stderr.contains("not used"), "{what}: {output:?}");
        second.assert_leaves_nothing();
    }
}

/// A record says that a step came to a layer which is there, and is another one.
#[test]
fn a_layer_that_is_not_what_its_record_says_is_not_used() {
    let first = staged();
    let cache = first.path("cache");
    let to = format!("type=local,dest={},mode=max", cache.display());
    build(&first, &["--cache-to", &to], "4 run");
    // Swap two diff ids in the records, and put new names on all that changes by it.
    let blob = |digest: &str| cache.join("blobs").join(digest.replace(':', "/"));
    let json = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    };
    let put = |value: &serde_json::Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = oci::Digest::sha256(&bytes).to_string();
        fs::write(blob(&digest), &bytes).unwrap();
        (digest, bytes.len())
    };
    let mut index = json(&cache.join("index.json"));
    let mut manifest = json(&blob(index["manifests"][0]["digest"].as_str().unwrap()));
    let mut records = json(&blob(manifest["config"]["digest"].as_str().unwrap()));
    let layers: Vec<_> =
        records["steps"].as_array().unwrap().iter().map(|step| step["layer"].clone()).collect();
    let count = layers.len();
    for (n, layer) in layers.into_iter().enumerate() {
        records["steps"][(n + 1) % count]["layer"] = layer;
    }
    let (digest, size) = put(&records);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put(&manifest);
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    fs::write(cache.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();

    let second = staged();
    let from = format!("type=local,src={}", cache.display());
    let output = build(&second, &["--cache-from", &from], "the caches are not used");
    assert!(output.stderr.contains("(0 steps reused, 4 run"), "{output:?}");
    let counted = blobs(&second);
    build(&second, &["--cache-from", &from], "(4 steps reused, 0 run");
    assert_eq!(blobs(&second), counted);
}
