//! Images at hand: listed, looked at, named, moved and combined, without a registry.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::world::{Built, World};

/// Builds `FROM scratch` with a file and metadata under a name.
fn build(world: &World, name: &str, dockerfile: &str) {
    world.write("hello.txt", "hello\n");
    let file = world.root().with_file_name("Dockerfile");
    fs::write(&file, dockerfile).unwrap();
    let (file, context) = (file.display().to_string(), world.context().display().to_string());
    ok(&world.run(&["-t", name, "-f", &file, &context]));
}

const APP: &str =
    "FROM scratch\nCOPY hello.txt /\nENV A=1\nLABEL kind=test a.b=c\nCMD [\"/bin/sh\"]\n";

#[track_caller]
fn ok(built: &Built) -> String {
    assert_eq!(built.status, 0, "{}", built.stderr);
    built.stdout.clone()
}

#[track_caller]
fn refused(world: &World, arguments: &[&str], expected: &str) {
    let said = world.run(arguments);
    assert_eq!(said.status, 1, "{arguments:?} {}", said.stdout);
    assert!(said.stderr.contains(expected), "{arguments:?}: {}", said.stderr);
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn history_has_dockers_columns() {
    let world = World::new();
    build(&world, "app:1", APP);
    let table = ok(&world.run(&["history", "app:1"]));
    let rows = lines(&table);
    let heading: Vec<&str> = rows[0].split("   ").filter(|cell| !cell.trim().is_empty()).collect();
    let heading: Vec<&str> = heading.iter().map(|cell| cell.trim()).collect();
    assert_eq!(heading, ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    assert_eq!(rows.len(), 5);
    assert!(rows[1].contains("CMD [\"/bin/sh\"]") && rows[1].contains("0B"), "{table}");
    assert!(rows[4].starts_with("<missing>") && rows[4].contains("buildkit.dockerfile.v0"));
    let id = ok(&world.run(&["images", "-q", "--no-trunc", "app:1"]));
    assert_eq!(
        lines(&ok(&world.run(&["history", "-q", "--no-trunc", "app:1"]))),
        [id.trim(), "<missing>", "<missing>", "<missing>"]
    );
    let entries = json(&ok(&world.run(&["history", "--format", "json", "--human=false", "app:1"])));
    assert_eq!(entries[3]["CreatedBy"], "COPY hello.txt / # buildkit");
    assert!(entries[3]["Size"].as_str().unwrap().parse::<u64>().unwrap() >= 1024);
    let by = ok(&world.run(&["history", "--format", "{{.CreatedBy}}", "app:1"]));
    assert_eq!(lines(&by)[2], "ENV A=1");
    refused(&world, &["history", "nothing"], "image nothing:latest is not in the store");
}

#[test]
fn images_are_filtered_and_printed_as_asked() {
    let world = World::new();
    build(&world, "app:1", APP);
    build(&world, "team/tool:2", "FROM scratch\nLABEL kind=other\n");
    ok(&world.run(&["tag", "app:1", "localhost:5000/app:stable"]));
    let names = |arguments: &[&str]| -> Vec<String> {
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let mut names: Vec<String> =
            ok(&world.run(&[&format, arguments].concat())).lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&[]), ["app:1", "localhost:5000/app:stable", "team/tool:2"]);
    assert_eq!(names(&["-f", "label=kind=other"]), ["team/tool:2"]);
    assert_eq!(names(&["-f", "label=a.b"]).len(), 2);
    assert_eq!(names(&["-f", "label=a.b", "-f", "reference=app"]), ["app:1"]);
    assert_eq!(names(&["--filter", "reference=*/tool:*"]), ["team/tool:2"]);
    assert_eq!(names(&["--filter", "reference=*"]), ["app:1"]);
    let file = world.write("root.tar", rootfs()).display().to_string();
    ok(&world.run(&["import", &file]));
    assert_eq!(names(&["-f", "dangling=true"]), ["<none>:<none>"]);
    assert_eq!(names(&["-f", "dangling=false"]).len(), 3);
    assert_eq!(names(&["app"]), ["app:1"]);
    let digest = json(&ok(&world.run(&["inspect", "app:1"])))[0]["Digest"].clone();
    let table = ok(&world.run(&["images", "--digests", "app:1"]));
    assert!(lines(&table)[0].contains("DIGEST"), "{table}");
    assert!(table.contains(digest.as_str().unwrap()), "{table}");
    for (bad, expected) in [
        ("color=red", "there is no filter"),
        ("label", "is not NAME=VALUE"),
        ("dangling=maybe", "true or false"),
        ("reference=[", "bad pattern"),
    ] {
        let said = world.run(&["images", "-f", bad]);
        assert_eq!(said.status, 125);
        assert!(said.stderr.contains(expected), "{}", said.stderr);
    }
    refused(&world, &["images", "--format", "{{.Nam}}"], "there is no field Nam, only Repository");
}

#[test]
fn inspect_gives_documents_to_the_byte() {
    let world = World::new();
    build(&world, "app:1", APP);
    let inspected = json(&ok(&world.run(&["inspect", "app:1"])))[0].clone();
    let blob = |digest: &Value| {
        let path = digest.as_str().unwrap().replace(':', "/");
        fs::read_to_string(world.root().join("blobs").join(path)).unwrap()
    };
    assert_eq!(ok(&world.run(&["inspect", "--raw", "app:1"])), blob(&inspected["Digest"]));
    assert_eq!(ok(&world.run(&["inspect", "--config", "app:1"])), blob(&inspected["Id"]));
    let printed = |format: &str| ok(&world.run(&["inspect", "-f", format, "app:1"]));
    assert_eq!(printed("{{index .Config.Labels \"a.b\"}}"), "c\n");
    assert_eq!(printed("{{json .Config.Cmd}}"), "[\"/bin/sh\"]\n");
    assert_eq!(printed("{{.Os}}/{{.Architecture}}").lines().count(), 1);
    refused(&world, &["inspect", "-f", "{{.Nope}}", "app:1"], "there is no field Nope");
    refused(&world, &["inspect", "--platform", "linux/s390x", "app:1"], "no image for linux/s390x");
}

/// Makes the tar of a root file system.
fn rootfs() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(10);
    header.set_mode(0o644);
    tar.append_data(&mut header, "etc/os-release", &b"NAME=test\n"[..]).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_root_file_system_is_imported_from_a_file_and_stdin() {
    let world = World::new();
    let file = world.write("root.tar", rootfs());
    let file = file.display().to_string();
    let id = ok(&world.run(&[
        "import",
        "-c",
        "CMD [\"sh\"]",
        "--change",
        "ENV A=b",
        "-m",
        "by hand",
        &file,
        "base:1",
    ]));
    let image = json(&ok(&world.run(&["inspect", "base:1"])))[0].clone();
    assert_eq!(image["Id"], id.trim());
    assert_eq!(image["Config"]["Env"], serde_json::json!(["A=b"]));
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["sh"]));
    assert_eq!(image["History"][0]["comment"], "by hand");
    assert_eq!(image["RootFS"]["Layers"][0], image["Layers"][0]["digest"]);

    let mut command = world.command(&["import", "--platform", "linux/arm64", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&rootfs()).unwrap();
    let said = Built::of(child.wait_with_output().unwrap());
    let id = ok(&said);
    let image = json(&ok(&world.run(&["inspect", id.trim()])))[0].clone();
    assert_eq!(image["Architecture"], "arm64");
    assert_eq!(image["History"][0]["comment"], "Imported from -");

    let broken = world.write("broken.tar", &rootfs()[..700]);
    refused(&world, &["import", &broken.display().to_string(), "x"], "cannot import");
    refused(&world, &["import", "-c", "RUN true", &file, "x"], "--change: RUN, COPY and ADD");
    assert!(!ok(&world.run(&["images"])).contains("\nx "));
    // A build goes on from there.
    build(&world, "app", "FROM base:1\nCOPY hello.txt /\n");
}

#[test]
fn several_images_are_saved_and_loaded_compressed_too() {
    let world = World::new();
    build(&world, "one:1", APP);
    build(&world, "team/two:2", "FROM scratch\nCOPY hello.txt /two\n");
    let archive = world.context().join("images.tar");
    let archive = archive.display().to_string();
    ok(&world.run(&["save", "-o", &archive, "one:1", "team/two:2"]));
    let bytes = fs::read(&archive).unwrap();
    let mut names: Vec<String> = tar::Archive::new(&bytes[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    names.truncate(3);
    assert_eq!(names, ["oci-layout", "index.json", "manifest.json"], "OCI's form and docker's");

    let gzip = std::process::Command::new("gzip").args(["-k", &archive]).status().unwrap();
    assert!(gzip.success());
    let other = World::new();
    let said = ok(&other.run(&["load", "-i", &format!("{archive}.gz")]));
    assert_eq!(lines(&said), ["Loaded image: one:1", "Loaded image: team/two:2"]);
    for name in ["one:1", "team/two:2"] {
        let digest = |world: &World| ok(&world.run(&["inspect", "-f", "{{.Digest}}", name]));
        assert_eq!(digest(&world), digest(&other));
    }
    let mut command = other.command(&["load", "-q"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let said = ok(&Built::of(child.wait_with_output().unwrap()));
    assert_eq!(said.lines().count(), 2);
    refused(&other, &["save", "-o", "/nonexistent/x.tar", "one:1"], "cannot write /nonexistent");
    refused(&other, &["save", "-o", &archive, "missing"], "is not in the store");
}

#[test]
fn copies_go_through_every_kind_of_place() {
    let world = World::new();
    build(&world, "app:1", APP);
    let at = |name: &str| world.context().join(name).display().to_string();
    let digest = ok(&world.run(&["inspect", "-f", "{{.Digest}}", "app:1"])).trim().to_owned();
    let digestfile = at("digest");
    let steps = [
        ("store:app:1".to_owned(), format!("oci:{}:first", at("layout"))),
        (format!("oci:{}:first", at("layout")), format!("oci-archive:{}:app:2", at("a.tar"))),
        (format!("oci-archive:{}", at("a.tar")), format!("docker-archive:{}:app:3", at("b.tar"))),
        (format!("docker-archive:{}:app:3", at("b.tar")), "store:copied:4".to_owned()),
    ];
    for (from, to) in &steps {
        let said = world.run(&["copy", "--digestfile", &digestfile, from, to]);
        assert!(ok(&said).trim_end().ends_with(&format!("@{digest}")), "{}", said.stdout);
        assert_eq!(fs::read_to_string(&digestfile).unwrap(), digest);
    }
    assert_eq!(ok(&world.run(&["inspect", "-f", "{{.Digest}}", "copied:4"])).trim(), digest);
    let index = json(&fs::read_to_string(world.context().join("layout/index.json")).unwrap());
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "first");
    for (from, expected) in [
        (format!("oci:{}:other", at("layout")), "it has no image other, only first"),
        (format!("oci:{}", at("nothing")), "cannot read"),
        (format!("docker-archive:{}:no:1", at("b.tar")), "it has no image no:1"),
        ("store:missing".to_owned(), "is not in the store"),
    ] {
        refused(&world, &["copy", &from, "store:x:1"], expected);
    }
    assert_eq!(world.run(&["copy", "dir:/x", "store:x"]).status, 125);
}

#[test]
fn images_for_several_platforms_become_an_index() {
    let world = World::new();
    let file = world.write("root.tar", rootfs()).display().to_string();
    for (platform, name) in [("linux/amd64", "app:amd"), ("linux/arm64", "app:arm")] {
        ok(&world.run(&["import", "--platform", platform, &file, name]));
    }
    let digest = ok(&world.run(&["index", "create", "app:all", "app:amd", "app:arm"]));
    let index = json(&ok(&world.run(&["index", "inspect", "app:all"])));
    let platform = |n: usize| index["manifests"][n]["platform"]["architecture"].clone();
    assert_eq!([platform(0), platform(1)], ["amd64", "arm64"]);
    let raw = ok(&world.run(&["inspect", "--raw", "app:all"]));
    assert_eq!(oci::Digest::sha256(raw.as_bytes()).to_string(), digest.trim());
    for (platform, architecture) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
        let format = ["inspect", "-f", "{{.Architecture}}", "--platform", platform, "app:all"];
        assert_eq!(ok(&world.run(&format)).trim(), architecture);
    }

    ok(&world.run(&["index", "annotate", "--annotation", "who=me", "app:all"]));
    ok(&world.run(&["index", "annotate", "--variant", "v8", "app:all", "app:arm"]));
    let index = json(&ok(&world.run(&["index", "inspect", "app:all"])));
    assert_eq!(index["annotations"]["who"], "me");
    assert_eq!(index["manifests"][1]["platform"]["variant"], "v8");
    // Another image for a platform takes the place of the first; an index may be part of one.
    ok(&world.run(&["import", "--platform", "linux/amd64", "-m", "new", &file, "app:new"]));
    ok(&world.run(&["index", "create", "--append", "app:all", "app:new"]));
    ok(&world.run(&["index", "create", "app:again", "app:all"]));
    let index = json(&ok(&world.run(&["index", "inspect", "app:again"])));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    let new = ok(&world.run(&["inspect", "-f", "{{.Digest}}", "app:new"]));
    assert_eq!(index["manifests"][0]["digest"], new.trim());
    refused(&world, &["index", "inspect", "app:amd"], "app:amd is one image, not an index");
    refused(&world, &["index", "create", "x", "nothing"], "is not in the store");
    refused(&world, &["index", "annotate", "--os", "plan9", "app:all", "app:amd"], "does not list");
}

#[test]
fn several_tags_need_force_and_all_tags_need_a_repository() {
    let world = World::new();
    build(&world, "app:1", APP);
    ok(&world.run(&["tag", "app:1", "app:2"]));
    let id = ok(&world.run(&["images", "-q", "app:1"]));
    refused(&world, &["rmi", id.trim()], "has 2 names");
    refused(&world, &["push", "--all-tags", "app:1"], "goes with a repository, without a tag");
    refused(&world, &["push", "-a", "other"], "there is no image of the repository other");
    assert_eq!(world.run(&["push", "-a", "app", "app:3"]).status, 125);
    let said = ok(&world.run(&["rmi", "-f", id.trim()]));
    assert_eq!(lines(&said)[..2], ["Untagged: app:1", "Untagged: app:2"]);
    assert!(lines(&said)[2].starts_with("Deleted: sha256:"));
    assert_eq!(ok(&world.run(&["images", "-q"])), "");
}

#[test]
fn the_file_with_credentials_is_the_one_that_was_named() {
    let world = World::new();
    let auth = r#"{"auths":{"registry.example":{"auth":"dTpw"},"other.example":{"auth":"dTpw"}}}"#;
    let file = world.write("auth.json", auth);
    let usual = world.root().with_file_name(".docker").join("config.json");
    fs::create_dir_all(usual.parent().unwrap()).unwrap();
    fs::write(&usual, auth).unwrap();
    let file = file.display().to_string();
    let logout = |arguments: &[&str]| ok(&world.run(&[&["logout"], arguments].concat()));
    let said = logout(&["--authfile", &file, "registry.example"]);
    assert_eq!(said, "Removing login credentials for registry.example\n");
    let said = logout(&["--authfile", &file, "registry.example"]);
    assert_eq!(said, "Not logged in to registry.example\n");
    let kept = json(&fs::read_to_string(&file).unwrap());
    assert_eq!(kept["auths"], serde_json::json!({"other.example": {"auth": "dTpw"}}));
    assert_eq!(fs::read_to_string(&usual).unwrap(), auth);
    assert_eq!(logout(&["other.example"]), "Removing login credentials for other.example\n");
    assert!(!fs::read_to_string(&usual).unwrap().contains("other.example"));
}
