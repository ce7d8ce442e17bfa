//! Where builds take their files from: directories, archives, repositories, names for them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crate::fetch::{Daemon, git, publish, repository};
use crate::server::Server;
use crate::world::{Built, NAME, World};

/// Runs a build with this on stdin.
fn with_stdin(world: &World, stdin: &[u8], arguments: &[&str]) -> Built {
    let mut all = vec!["-t", NAME];
    all.extend_from_slice(arguments);
    let mut child = world
        .command(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A build that refuses its input closes it.
    let _closed = child.stdin.take().unwrap().write_all(stdin);
    Built::of(child.wait_with_output().unwrap())
}

#[track_caller]
fn listing(world: &World, built: &Built) -> String {
    assert_eq!(built.status, 0, "{}", built.stderr);
    world.listing()
}

/// A tar of files of mode 0644, owned by 5:6.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Packs with a program of this machine.
fn packed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut packed = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut packed).unwrap();
    writer.join().unwrap();
    assert!(child.wait().unwrap().success());
    packed
}

#[test]
fn a_tar_on_stdin_is_a_context() {
    let world = World::new();
    let context = tar(&[
        ("Dockerfile", "FROM scratch\nCOPY d /x\n"),
        ("other/File", "FROM scratch\nCOPY ../d/a /\nCOPY --chown=1:2 d/a /own\n"),
        ("d/a", "from the tar"),
        // An ignore file of an archive does not count, as in BuildKit: it was made on purpose.
        (".dockerignore", "d\n"),
    ]);
    let expected = "x/ 755 dir\nx/a 644 5:6 \"from the tar\"\n";
    let built = with_stdin(&world, &context, &["-"]);
    assert_eq!(listing(&world, &built), expected);
    for program in ["gzip", "xz", "zstd", "bzip2"] {
        let built = with_stdin(&world, &packed(program, &context), &["-"]);
        assert_eq!(listing(&world, &built), expected, "{program}");
        assert_eq!(built.counts(), (1, 0), "{program}");
    }
    let built = with_stdin(&world, &context, &["-f", "other/File", "-"]);
    assert_eq!(
        listing(&world, &built),
        "a 644 5:6 \"from the tar\"\nown 644 1:2 \"from the tar\"\n"
    );
    let missing = with_stdin(&world, &context, &["-f", "nope", "-"]);
    assert_eq!(missing.status, 1);
    assert!(
        missing
            .stderr
            .contains("failed to read dockerfile nope: the build context has no such file"),
        "{}",
        missing.stderr
    );
}

#[test]
fn a_dockerfile_on_stdin_is_told_from_a_tar() {
    let world = World::new();
    world.write("a", "in the context");
    let alone = b"FROM scratch\nCOPY <<x /\nalone\nx\n";
    let built = with_stdin(&world, alone, &["-"]);
    assert_eq!(listing(&world, &built), "x 644 \"alone\\n\"\n");
    let no_files = with_stdin(&world, b"FROM scratch\nCOPY a /\n", &["-"]);
    assert!(no_files.stderr.contains("failed to compute cache key: \"/a\": not found"));
    let context = world.context();
    let built =
        with_stdin(&world, b"FROM scratch\nCOPY a /\n", &["-f", "-", context.to_str().unwrap()]);
    assert_eq!(listing(&world, &built), "a 644 \"in the context\"\n");
    for (arguments, expected) in [
        (&["-f", "-", "-"][..], "can't use stdin for both build context and dockerfile"),
        (&["-f", "x", "-"][..], "ambiguous Dockerfile source"),
    ] {
        let built = with_stdin(&world, alone, arguments);
        assert!(built.stderr.contains(expected), "{}", built.stderr);
    }
    let binary = with_stdin(&world, &[0xff, 0xfe, 0, 1], &["-"]);
    assert!(binary.stderr.contains("stdin is no Dockerfile: it is not text"), "{}", binary.stderr);
    let cut = with_stdin(&world, &tar(&[("Dockerfile", "FROM scratch\n")])[..600], &["-"]);
    assert_eq!(cut.status, 1);
    assert!(cut.stderr.contains("cannot unpack the build context"), "{}", cut.stderr);
}

#[test]
fn a_hostile_tar_stays_inside() {
    let world = World::new();
    fs::write(world.root().parent().unwrap().join("secret"), "secret").unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, name: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    use tar::EntryType as T;
    add(T::Regular, "Dockerfile", "", b"FROM scratch\nCOPY . /all/\nCOPY out/passwd up /l/\n");
    add(T::Regular, "../../../tmp/escaped", "", b"inside");
    add(T::Symlink, "out", "/etc", b"");
    add(T::Symlink, "up", "../../../../../../etc/passwd", b"");
    add(T::Regular, "etc/passwd", "", b"ours");
    add(T::Link, "hard", "/etc/passwd", b"");
    let built = with_stdin(&world, &builder.into_inner().unwrap(), &["-"]);
    let found = listing(&world, &built);
    assert!(found.contains("all/tmp/escaped 644 \"inside\"\n"), "{found}");
    assert!(found.contains("l/passwd 644 \"ours\"\n"), "{found}");
    assert!(found.contains("all/out 644 -> /etc\n"), "{found}");
    assert!(!std::path::Path::new("/tmp/escaped").exists());
}

#[test]
fn a_repository_is_a_context() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    let work = repository(root.path(), "r");
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY a link/b /\n").unwrap();
    fs::write(work.join("sub/Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-q", "-m", "dockerfiles"]);
    publish(&work);
    let daemon = Daemon::start(root.path());
    let url = format!("git://127.0.0.1:{}/r.git", daemon.port);
    let build = |arguments: &[&str]| {
        let mut all = vec!["-t", NAME];
        all.extend_from_slice(arguments);
        world.run(&all)
    };
    let built = build(&[&url]);
    assert_eq!(listing(&world, &built), "a 644 \"one\"\nb 644 \"two\"\n");
    assert_eq!(build(&[&url]).counts(), (1, 0));
    let sub = format!("{url}#main:sub");
    let deep = "Dockerfile 644 \"FROM scratch\\nCOPY . /\\n\"\ndeep/ 755 dir\ndeep/b 644 \"two\"\n";
    assert_eq!(listing(&world, &build(&[&sub])), deep);
    assert!(listing(&world, &build(&["-f", "sub/Dockerfile", &url])).len() > deep.len());
    let built = with_stdin(&world, b"FROM scratch\nCOPY run /\n", &["-f", "-", &url]);
    assert_eq!(listing(&world, &built), "run 755 \"#!/bin/sh\\n\"\n");

    // The same commit and the time of the context give the same image in another store.
    let reproducible = |world: &World| {
        let arguments = ["-t", NAME, "--build-arg", "SOURCE_DATE_EPOCH=context", &url];
        let built = world.run(&arguments);
        assert_eq!(built.status, 0, "{}", built.stderr);
        (world.inspect()["Id"].clone(), world.inspect()["Created"].clone())
    };
    let (id, created) = reproducible(&world);
    assert_eq!(created, "2001-09-09T01:46:40Z");
    assert_eq!(reproducible(&World::new()).0, id);
}

#[test]
fn a_web_server_gives_archives_and_dockerfiles() {
    let (world, server) = (World::new(), Server::start());
    let context = tar(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "archived")]);
    server.put("/c.tar.gz", packed("gzip", &context), Some("\"1\""));
    server.put("/Dockerfile", "FROM scratch\nCOPY <<x /\nserved\nx\n", None);
    let build = |arguments: &[&str]| world.run(&[&["-t", NAME], arguments].concat());
    let (archive, file) = (server.url("/c.tar.gz"), server.url("/Dockerfile"));
    assert_eq!(listing(&world, &build(&[&archive])), "a 644 5:6 \"archived\"\n");
    server.log();
    assert_eq!(build(&[&archive]).counts(), (1, 0));
    assert_eq!(server.log(), ["304 /c.tar.gz"]);
    assert_eq!(listing(&world, &build(&[&file])), "x 644 \"served\\n\"\n");
    let context = world.context();
    let local = build(&["-f", &file, context.to_str().unwrap()]);
    assert_eq!(listing(&world, &local), "x 644 \"served\\n\"\n");
    let missing = build(&[&server.url("/none.tar")]);
    assert!(missing.stderr.contains("error: cannot fetch http://127.0.0.1:"), "{}", missing.stderr);
}

#[test]
fn named_contexts_stand_for_stages_and_images() {
    let (world, server) = (World::new(), Server::start());
    world.write("a", "main");
    let other = tempfile::tempdir().unwrap();
    for (name, content) in
        [("b", "other"), ("hidden", "x"), (".dockerignore", "hidden\n.docker*\n")]
    {
        fs::write(other.path().join(name), content).unwrap();
        fs::set_permissions(
            other.path().join(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
    }
    server.put("/t.tar", tar(&[("z", "archived")]), None);
    server.put("/text", "just text", None);
    let other = other.path().to_str().unwrap();
    let build = |dockerfile: &str, contexts: &[String]| {
        let mut arguments = Vec::new();
        for context in contexts {
            arguments.extend(["--build-context", context]);
        }
        world.build_with(dockerfile, &arguments)
    };
    let named = |name: &str| vec![format!("{name}={other}")];
    let from = "FROM scratch\nCOPY --from=ctx . /x\n";
    let built = build(from, &named("ctx"));
    assert_eq!(listing(&world, &built), "x/ 755 dir\nx/b 644 \"other\"\n");
    assert_eq!(build(from, &named("docker.io/library/ctx:latest")).counts(), (1, 0));
    // As the base of a stage, in place of an image.
    let built = build("FROM alpine\nCOPY a /\n", &named("alpine"));
    assert_eq!(listing(&world, &built), "a 644 \"main\"\nb 644 \"other\"\n");
    // In place of a stage, whose instructions do not run.
    let stages = "FROM nowhere/x AS Build\nRUN false\nFROM scratch\nCOPY --from=build / /\n";
    assert_eq!(listing(&world, &build(stages, &named("build"))), "b 644 \"other\"\n");
    let base = "FROM nowhere/x AS build\nRUN false\nFROM build\nCOPY a /\n";
    assert_eq!(listing(&world, &build(base, &named("BUILD"))), "a 644 \"main\"\nb 644 \"other\"\n");
    // A stage under another name.
    let alias =
        "FROM scratch AS one\nCOPY a /one\nFROM elsewhere/image\nCOPY --from=more /one /two\n";
    let contexts = ["elsewhere/image=target:one".to_owned(), "more=target:ONE".to_owned()];
    assert_eq!(listing(&world, &build(alias, &contexts)), "one 644 \"main\"\ntwo 644 \"main\"\n");
    // What a server has.
    let contexts = [
        format!("tar={}", server.url("/t.tar")),
        format!("file={}", server.url("/text")),
        format!("unused={}", server.url("/missing")),
    ];
    let built =
        build("FROM scratch\nCOPY --from=tar z /\nCOPY --from=file context /f\n", &contexts);
    assert_eq!(listing(&world, &built), "f 600 \"just text\"\nz 644 5:6 \"archived\"\n");
    assert!(
        server.log().iter().all(|line| !line.contains("missing")),
        "unused ones are left alone"
    );

    for (context, expected) in [
        ("x", "invalid context value: x, expected key=value"),
        ("x=/nonexistent", "invalid build context x: cannot use /nonexistent"),
        ("no name=.", "invalid context name \"no name\""),
        ("x=docker-image://NO", "invalid build context x: \"NO\" is no image"),
        ("x=oci-layout:///nonexistent", "invalid build context x: cannot open /nonexistent"),
    ] {
        let built = build("FROM scratch\n", &[context.to_owned()]);
        assert_eq!(built.status, 1);
        assert!(built.stderr.contains(expected), "{context}\n{}", built.stderr);
    }
    let said =
        build("FROM scratch AS a\nCOPY --from=x /y /\n", &["x=target:none".to_owned()]).stderr;
    assert!(
        said.contains("build context x is stage \"none\", which no earlier stage is"),
        "{said}"
    );
}

#[test]
fn images_and_layouts_are_contexts() {
    let world = World::new();
    world.write("a", "in the image");
    world.build("FROM scratch\nENV WHO=base\nCOPY a /a\n");
    world.run(&["tag", NAME, "made/here:1"]);
    let dockerfile = "FROM alpine:3\nCOPY --from=other /a /b\n";
    let image = ["--build-context", "alpine:3=docker-image://made/here:1"];
    let more = ["--build-context", "other=docker-image://made/here:1"];
    let expected = "a 644 \"in the image\"\nb 644 \"in the image\"\n";
    let built = world.build_with(dockerfile, &[image, more].concat());
    assert_eq!(listing(&world, &built), expected);
    assert!(world.inspect()["Config"]["Env"].to_string().contains("WHO=base"));

    // The same as a layout, for a store that has never seen it.
    let layout = tempfile::tempdir().unwrap();
    let archive = layout.path().join("a.tar");
    world.run(&["save", "-o", archive.to_str().unwrap(), "made/here:1"]);
    let dir = layout.path().join("dir");
    fs::create_dir(&dir).unwrap();
    tar::Archive::new(fs::File::open(&archive).unwrap()).unpack(&dir).unwrap();
    let fresh = World::new();
    let at = format!("alpine:3=oci-layout://{}", dir.display());
    let tagged = format!("other=oci-layout://{}:nope", dir.display());
    let same = at.replace("alpine:3=", "other=");
    let built = fresh.build_with(dockerfile, &["--build-context", &at, "--build-context", &same]);
    assert_eq!(listing(&fresh, &built), expected);
    let built = fresh.build_with(dockerfile, &["--build-context", &at, "--build-context", &tagged]);
    assert!(built.stderr.contains("it has no such image"), "{}", built.stderr);
    // A blob that is not what its name says is refused.
    let blobs = dir.join("blobs/sha256");
    for blob in fs::read_dir(&blobs).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let other = World::new();
    let built = other.build_with(dockerfile, &["--build-context", &at, "--build-context", &same]);
    assert_eq!(built.status, 1);
    assert!(built.stderr.contains(", expected sha256:"), "{}", built.stderr);
}

#[test]
fn what_a_killed_build_leaves_is_removed_by_prune() {
    let world = World::new();
    let mut child = world
        .command(&["-t", NAME, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&tar(&[("Dockerfile", "FROM scratch\n")])[..1000]).unwrap();
    let leases = world.root().join("leases");
    let count = || fs::read_dir(&leases).map_or(0, Iterator::count);
    for _ in 0..1000 {
        if count() == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(count(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(count(), 1);
    assert_eq!(world.run(&["prune"]).status, 0);
    assert_eq!(count(), 0);
    assert_eq!(fs::read_dir(world.root().join("trash")).unwrap().count(), 0);
}
