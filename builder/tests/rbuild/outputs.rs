//! What comes out of a build, and where to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{Built, NAME, World};

/// A small image: a program, a link to it, and its directory.
const FILE: &str = "FROM scratch\nCOPY dir /app/\nCMD [\"/app/run\"]\n";

fn world() -> World {
    let world = World::new();
    world.write("dir/run", "program");
    world.chmod("dir/run", 0o755);
    world.link("dir/link", "run");
    world
}

fn out(world: &World, name: &str) -> PathBuf {
    world.context().parent().unwrap().join(name)
}

/// Builds with an output to `name`; `{}` in its text stands for the path.
#[track_caller]
fn output(world: &World, text: &str, more: &[&str]) -> (Built, PathBuf) {
    let path = out(world, "out");
    let text = text.replace("{}", path.to_str().unwrap());
    let mut arguments = vec!["-o", &text];
    arguments.extend(more);
    let built = world.build_with(FILE, &arguments);
    assert_eq!(built.status, 0, "{text}: {}", built.stderr);
    (built, path)
}

/// Returns the files of a tar by name.
fn untar(path: &Path) -> BTreeMap<String, (tar::EntryType, Vec<u8>)> {
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, (entry.header().entry_type(), content))
    });
    entries.collect()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Returns the only manifest of an OCI archive, its config and its layers' media types.
fn oci(path: &Path) -> (Value, Value, Value) {
    let files = untar(path);
    let blob = |value: &Value| {
        let name = format!("blobs/{}", value["digest"].as_str().unwrap().replace(':', "/"));
        json(&files[&name].1)
    };
    let index = json(&files["index.json"].1);
    let manifest = blob(&index["manifests"][0]);
    let config =
        if manifest["config"].is_object() { blob(&manifest["config"]) } else { Value::Null };
    (index, manifest, config)
}

/// Returns what is in a directory: path, kind and content.
fn listing(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            let mode = metadata.mode() & 0o7777;
            lines.push(if metadata.is_dir() {
                pending.push(path);
                format!("{name}/ {mode:o}")
            } else if metadata.is_symlink() {
                format!("{name} -> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.file_type().is_fifo() {
                format!("{name} fifo")
            } else {
                format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap())
            });
        }
    }
    lines.sort_unstable();
    lines
}

#[test]
fn local_is_a_directory_of_the_files() {
    let world = world();
    let expected = ["app/ 755", "app/link -> run", "app/run 755 program"];
    let (_, path) = output(&world, "{}", &[]);
    assert_eq!(listing(&path), expected);
    assert_eq!(fs::metadata(path.join("app/run")).unwrap().uid(), nix::unistd::getuid().as_raw());
    // Once more over what is there: the user's own files stay.
    fs::write(path.join("app/own"), "own").unwrap();
    fs::write(path.join("app/run"), "old").unwrap();
    let (built, _) = output(&world, "type=local,dest={}", &["-t", NAME]);
    assert_eq!(
        listing(&path),
        ["app/ 755", "app/link -> run", "app/own 644 own", "app/run 755 program"]
    );
    assert!(built.stderr.contains(&format!("wrote {}", path.display())), "{}", built.stderr);
    assert_eq!(world.run(&["inspect", NAME]).status, 1, "only what was asked for is written");
}

#[test]
fn local_files_stay_in_their_directory() {
    let world = World::new();
    let outside = out(&world, "outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "safe").unwrap();
    // What a hostile image leaves for the next one, or somebody else puts there meanwhile.
    let path = out(&world, "out");
    fs::create_dir(&path).unwrap();
    symlink(&outside, path.join("dir")).unwrap();
    symlink(outside.join("victim"), path.join("file")).unwrap();
    world.write("victim", "evil");
    world.write("links/file", "");
    world.link("links/link", outside.to_str().unwrap());
    let file = "FROM scratch\nCOPY victim /dir/victim\nCOPY victim /file\n\
                COPY links/ /sub/\nCOPY victim /\n";
    let built = world.build_with(file, &["-o", path.to_str().unwrap()]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(listing(&outside), ["victim 644 safe"]);
    assert!(fs::symlink_metadata(path.join("dir")).unwrap().is_dir());
    assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "evil");
    assert!(fs::symlink_metadata(path.join("sub/link")).unwrap().is_symlink());
    // A directory with something in it is nobody's to remove.
    fs::remove_file(path.join("file")).unwrap();
    fs::create_dir(path.join("file")).unwrap();
    fs::write(path.join("file/kept"), "kept").unwrap();
    let built = world.build_with(file, &["-o", path.to_str().unwrap()]);
    assert_eq!(built.status, 1);
    assert!(
        built.stderr.contains(&format!(
            "cannot replace to directory {} with file",
            path.join("file").display()
        )),
        "{}",
        built.stderr
    );
    assert!(
        !listing(&path).iter().any(|line| line.contains(".rbuild-")),
        "nothing half-done is left"
    );
}

#[test]
fn tar_holds_the_files_and_appears_as_a_whole() {
    let world = world();
    let (_, path) = output(&world, "type=tar,dest={}", &[]);
    let names: Vec<String> = untar(&path).into_keys().collect();
    assert_eq!(names, ["app/", "app/link", "app/run"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
    let piped = world.build_command(FILE, &["-o", "-"]).output().unwrap();
    assert_eq!(piped.stdout, fs::read(&path).unwrap(), "stdout gets the same bytes");
    // A build that fails leaves what was there.
    let text = format!("type=tar,dest={}", path.display());
    let built = world.build_with("FROM scratch\nCOPY missing /\n", &["-o", &text]);
    assert_eq!(built.status, 1);
    assert_eq!(piped.stdout, fs::read(&path).unwrap());
    let built = world.build_with(FILE, &["-o", "type=tar,dest=/nonexistent/x.tar"]);
    assert!(built.stderr.contains("cannot write /nonexistent/x.tar"), "{}", built.stderr);
}

#[test]
fn oci_layouts_have_the_compression_that_was_asked_for() {
    let world = world();
    let table = [
        ("", "application/vnd.oci.image.layer.v1.tar+gzip"),
        (",compression=zstd,compression-level=7", "application/vnd.oci.image.layer.v1.tar+zstd"),
        (",compression=uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        (",oci-mediatypes=false", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    ];
    for (attributes, expected) in table {
        let (_, path) = output(&world, &format!("type=oci,dest={{}}{attributes}"), &["-t", NAME]);
        let (index, manifest, config) = oci(&path);
        assert_eq!(manifest["layers"][0]["mediaType"], expected, "{attributes}");
        assert_eq!(config["config"]["Cmd"][0], "/app/run");
        let name = &index["manifests"][0]["annotations"];
        assert_eq!(name["org.opencontainers.image.ref.name"], "latest");
        assert_eq!(name["io.containerd.image.name"], "docker.io/test/image:latest");
        assert!(!untar(&path).contains_key("manifest.json"), "that is docker's");
    }
    let (_, path) = output(&world, "type=docker,dest={}", &["-t", NAME, "-t", "other:2"]);
    let list = json(&untar(&path)["manifest.json"].1);
    assert_eq!(list[0]["RepoTags"], serde_json::json!([NAME, "other:2"]));
    let directory = out(&world, "layout");
    output(&world, &format!("type=oci,tar=false,dest={}", directory.display()), &["-t", NAME]);
    assert!(directory.join("oci-layout").is_file() && directory.join("index.json").is_file());
}

#[test]
fn several_outputs_come_of_one_build() {
    let world = world();
    let (tar, oci_tar) = (out(&world, "a.tar"), out(&world, "b.tar"));
    let (tar_text, oci_text) = (
        format!("type=tar,dest={}", tar.display()),
        format!("type=oci,\"name=one:1,two:2\",dest={}", oci_tar.display()),
    );
    let arguments =
        ["-o", &tar_text, "-o", &oci_text, "-o", "type=image,name=kept", "-o", "type=cacheonly"];
    let built = world.build_with_names(FILE, &arguments, &[]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(tar.exists());
    assert_eq!(oci(&oci_tar).0["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(world.run(&["inspect", "kept"]).status, 0);
    for (arguments, expected) in [
        (vec!["-o", "-", "-o", "type=oci"], "only one output can go to stdout"),
        (vec!["--push"], "tag is needed when pushing to registry"),
        (vec!["-o", "type=oci,bogus=1"], "unknown attribute bogus of an output"),
        (
            vec!["-o", "type=docker", "--platform", "linux/amd64,linux/arm64"],
            "docker exporter does not currently support exporting manifest lists",
        ),
        (
            vec!["--annotation", "index:a=1"],
            "index annotations not supported for single platform export",
        ),
    ] {
        let built = world.build_with_names(FILE, &arguments, &[]);
        assert_ne!(built.status, 0, "{arguments:?}");
        assert!(built.stderr.contains(expected), "{arguments:?}: {}", built.stderr);
    }
}

#[test]
fn several_platforms_get_directories_of_their_own() {
    let world = world();
    let platforms = ["--platform", "linux/amd64,linux/arm/v7"];
    let (_, path) = output(&world, "{}", &platforms);
    let names: Vec<String> = listing(&path);
    assert_eq!(
        names,
        [
            "linux_amd64/ 755",
            "linux_amd64/app/ 755",
            "linux_amd64/app/link -> run",
            "linux_amd64/app/run 755 program",
            "linux_arm_v7/ 755",
            "linux_arm_v7/app/ 755",
            "linux_arm_v7/app/link -> run",
            "linux_arm_v7/app/run 755 program",
        ]
    );
    fs::remove_dir_all(&path).unwrap();
    output(&world, "type=tar,dest={}", &platforms);
    let names: Vec<String> = untar(&path).into_keys().collect();
    assert_eq!(names[0], "linux_amd64/");
    assert!(names.contains(&"linux_arm_v7/app/run".to_owned()), "{names:?}");
    let annotations = [
        "--annotation",
        "index:i=1",
        "--annotation",
        "manifest[linux/arm/v7]:m=2",
        "--annotation",
        "manifest-descriptor:d=3",
        "--annotation",
        "index-descriptor:x=4",
    ];
    let (_, path) =
        output(&world, "type=oci,dest={}", &[&platforms[..], &annotations[..]].concat());
    let (layout, index, _) = oci(&path);
    assert_eq!(layout["manifests"][0]["annotations"]["x"], "4");
    assert_eq!(index["annotations"], serde_json::json!({"i": "1"}));
    let files = untar(&path);
    let manifests: Vec<Value> = (0..2)
        .map(|n| {
            let entry = &index["manifests"][n];
            assert_eq!(entry["annotations"], serde_json::json!({"d": "3"}));
            let digest = entry["digest"].as_str().unwrap().replace(':', "/");
            json(&files[&format!("blobs/{digest}")].1)
        })
        .collect();
    assert_eq!(manifests[0].get("annotations"), None);
    assert_eq!(manifests[1]["annotations"], serde_json::json!({"m": "2"}));
}

#[test]
fn metadata_names_what_was_built() {
    let world = world();
    let (metadata, iid) = (out(&world, "metadata.json"), out(&world, "iid"));
    let files = ["--metadata-file", metadata.to_str().unwrap(), "--iidfile", iid.to_str().unwrap()];
    let built = world.build_with(FILE, &files);
    assert_eq!(built.status, 0, "{}", built.stderr);
    let content = json(&fs::read(&metadata).unwrap());
    let image = world.inspect();
    assert_eq!(content["image.name"], "docker.io/test/image:latest");
    assert_eq!(content["containerimage.config.digest"], image["Id"]);
    assert_eq!(content["containerimage.config.digest"], fs::read_to_string(&iid).unwrap());
    assert_eq!(content["containerimage.digest"], content["containerimage.descriptor"]["digest"]);
    assert_eq!(
        content["containerimage.descriptor"]["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    let digest = content["containerimage.digest"].as_str().unwrap();
    assert!(built.stderr.contains(&format!("digest {digest}\n")), "{}", built.stderr);
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    world.build_with(FILE, &[&files[..], &platforms[..]].concat());
    let content = json(&fs::read(&metadata).unwrap());
    assert_eq!(content.get("containerimage.config.digest"), None, "there are two");
    assert_eq!(content["containerimage.digest"], fs::read_to_string(&iid).unwrap());
}

#[test]
fn labels_and_annotations_are_in_the_image() {
    let world = world();
    let built = world.build_with(
        FILE,
        &[
            "--label",
            "a=1",
            "--label",
            "b",
            "--annotation",
            "org.x=y",
            "-o",
            "type=image,annotation.k=v",
        ],
    );
    assert_eq!(built.status, 0, "{}", built.stderr);
    let image = world.inspect();
    assert_eq!(image["Config"]["Labels"], serde_json::json!({"a": "1", "b": ""}));
    let digest = image["Digest"].as_str().or(image["RepoDigests"][0].as_str()).unwrap_or_default();
    let hex = digest.rsplit(':').next().unwrap();
    let manifest = json(&fs::read(world.root().join("blobs/sha256").join(hex)).unwrap());
    assert_eq!(manifest["annotations"], serde_json::json!({"k": "v", "org.x": "y"}));
}

#[test]
fn the_same_input_gives_the_same_digest() {
    let digests: Vec<String> = [("1", 1_600_000_000), ("4", 1_500_000_000)]
        .into_iter()
        .map(|(threads, mtime)| {
            let world = world();
            let time = fs::FileTimes::new()
                .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime));
            let file = fs::File::options().write(true).open(world.context().join("dir/run"));
            file.unwrap().set_times(time).unwrap();
            let metadata = out(&world, "metadata.json");
            let path = out(&world, "out");
            let text = format!("type=oci,dest={}", path.display());
            let arguments =
                ["--reproducible", "-o", &text, "--metadata-file", metadata.to_str().unwrap()];
            let mut command = world.build_command(FILE, &arguments);
            // Fewer processors: fewer threads that copy, hash and compress.
            let processors = if threads == "1" { "0" } else { "0-63" };
            let mut bound = std::process::Command::new("taskset");
            bound.arg("-c").arg(processors).arg(command.get_program()).args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => bound.env(name, value),
                    None => bound.env_remove(name),
                };
            }
            let built = Built::of(bound.output().unwrap());
            assert_eq!(built.status, 0, "{}", built.stderr);
            drop(command.output());
            let (_, manifest, config) = oci(&path);
            assert_eq!(config["created"], "1970-01-01T00:00:00Z");
            assert!(manifest["layers"][0]["size"].as_u64().unwrap() > 0);
            json(&fs::read(metadata).unwrap())["containerimage.digest"].to_string()
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn source_date_epoch_is_the_latest_time() {
    let world = world();
    let created = |arguments: &[&str], variable: Option<&str>| {
        let mut command = world.build_command(FILE, arguments);
        if let Some(value) = variable {
            command.env("SOURCE_DATE_EPOCH", value);
        }
        let built = Built::of(command.output().unwrap());
        assert_eq!(built.status, 0, "{}", built.stderr);
        world.inspect()["Created"].as_str().unwrap().to_owned()
    };
    assert_eq!(created(&[], Some("1000000000")), "2001-09-09T01:46:40Z");
    let argument = ["--build-arg", "SOURCE_DATE_EPOCH=1100000000"];
    assert_eq!(created(&argument, Some("1000000000")), "2004-11-09T11:33:20Z");
    assert_eq!(created(&["--reproducible"], Some("1000000000")), "2001-09-09T01:46:40Z");
    let git = |arguments: &[&str]| {
        let done = std::process::Command::new("git")
            .arg("-C")
            .arg(world.context())
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .env("GIT_COMMITTER_DATE", "1200000000 +0100")
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let refused = {
        let mut command = world.build_command(FILE, &["--build-arg", "SOURCE_DATE_EPOCH=context"]);
        Built::of(command.output().unwrap())
    };
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("SOURCE_DATE_EPOCH=context asks for the commit of"),
        "{}",
        refused.stderr
    );
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "one"]);
    assert_eq!(created(&[], Some("context")), "2008-01-10T21:20:00Z");
    let mut command = world.build_command(FILE, &[]);
    let built = Built::of(command.env("SOURCE_DATE_EPOCH", "soon").output().unwrap());
    assert!(built.stderr.contains("SOURCE_DATE_EPOCH=soon is not a number of seconds"));
}

#[test]
fn privileged_a_build_that_is_not_reproducible_says_where() {
    let world = crate::privileged::world();
    let file = |run: &str| format!("FROM scratch\nADD busybox.tar /\nRUN {run}\n");
    let built = world.build_with(&file("echo same > /f"), &["--check-reproducible"]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(
        built.stderr.contains("reproducible: both builds came to the same"),
        "{}",
        built.stderr
    );
    let built = world.build_with(&file("cat /proc/uptime > /f"), &["--check-reproducible"]);
    assert_eq!(built.status, 1, "{}", built.stderr);
    assert!(
        built.stderr.contains(
            "the build is not reproducible: linux/amd64: layer 2 (RUN /bin/sh -c cat /proc/uptime \
             > /f # buildkit): f: content is sha256:"
        ),
        "{}",
        built.stderr
    );
}

/// A tar with everything that a hostile image brings along.
fn hostile_tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, link: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12_345);
        header.set_gid(54_321);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        tar.append_data(&mut header, path, content).unwrap();
    };
    add(tar::EntryType::Directory, "closed/", "", 0o500, b"");
    add(tar::EntryType::Regular, "closed/inside", "", 0o400, b"inside");
    add(tar::EntryType::Link, "other", "closed/inside", 0o400, b"");
    add(tar::EntryType::Symlink, "etc", "/etc", 0o777, b"");
    add(tar::EntryType::Symlink, "up", "../../..", 0o777, b"");
    add(tar::EntryType::Fifo, "pipe", "", 0o600, b"");
    add(tar::EntryType::Char, "null", "", 0o666, b"");
    add(tar::EntryType::Block, "disk", "", 0o660, b"");
    let deep = "d/".repeat(200);
    add(tar::EntryType::Directory, &deep, "", 0o755, b"");
    tar.into_inner().unwrap()
}

#[test]
fn privileged_every_kind_of_file_is_written_or_left_out() {
    let world = World::new();
    world.write("all.tar", hostile_tar());
    let path = out(&world, "out");
    let file = "FROM scratch\nADD all.tar /\n";
    for _ in 0..2 {
        // The second time over what the first one left: closed directories, links, pipes.
        let built = world.build_with(file, &["-o", path.to_str().unwrap()]);
        assert_eq!(built.status, 0, "{}", built.stderr);
        assert!(
            built.stderr.contains("left out the device /disk and 1 more of linux/amd64"),
            "{}",
            built.stderr
        );
    }
    let names = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["closed", "d", "etc", "other", "pipe", "up"]);
    let look = |name: &str| fs::symlink_metadata(path.join(name)).unwrap();
    assert_eq!(look("closed").mode() & 0o7777, 0o500);
    assert_eq!((look("closed/inside").uid(), look("closed/inside").gid()), (0, 0), "the caller's");
    assert_eq!(look("closed/inside").mtime(), 1_000_000_000);
    assert_eq!(look("closed/inside").ino(), look("other").ino(), "a hard link stays one");
    assert!(look("pipe").file_type().is_fifo());
    assert_eq!(fs::read_link(path.join("up")).unwrap(), Path::new("../../.."));
    assert!(path.join("d/".repeat(200)).is_dir());
    // As a tar nothing is left out, and owners are the image's.
    let archive = out(&world, "out.tar");
    let text = format!("type=tar,dest={}", archive.display());
    let built = world.build_with(file, &["-o", &text]);
    assert_eq!(built.status, 0, "{}", built.stderr);
    let mut tar = tar::Archive::new(fs::File::open(&archive).unwrap());
    let kinds: BTreeMap<String, (tar::EntryType, u64)> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            (name, (entry.header().entry_type(), entry.header().uid().unwrap()))
        })
        .collect();
    assert_eq!(kinds["null"], (tar::EntryType::Char, 12_345));
    assert_eq!(kinds["disk"].0, tar::EntryType::Block);
    assert_eq!(kinds["other"].0, tar::EntryType::Link);
}

#[test]
fn attributes_without_effect_are_said() {
    let world = world();
    let (built, _) = output(&world, "type=tar,dest={},rewrite-timestamp=true", &[]);
    assert!(built.stderr.contains("warning: rewrite-timestamp=true needs SOURCE_DATE_EPOCH"));
    let (built, _) = output(&world, "type=tar,dest={},rewrite-timestamp=true", &["--reproducible"]);
    assert!(!built.stderr.contains("warning: rewrite"), "{}", built.stderr);
}
