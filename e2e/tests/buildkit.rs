//! The same Dockerfiles through `rbuild` and through docker's BuildKit: exit codes,
//! configurations, histories and trees must agree.
//!
//! Debian's docker is years older than the BuildKit that `rbuild` follows. Cases on which
//! these two differ are not in the tables (or, marked `!history`, are compared without
//! it), and what differs everywhere is left out: the times of copied directories, which
//! the old one lost, and `--chown` and `--chmod` in the history, which it did not show.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use e2e::{Dockerd, Files, World, run, try_run_with};
use serde_json::Value;

/// The cases: `=== name options`, a script that fills the context, `---`, the Dockerfile.
const TABLES: [(&str, &str); 7] = [
    ("archive", include_str!("buildkit/archive.txt")),
    ("config", include_str!("buildkit/config.txt")),
    ("context", include_str!("buildkit/context.txt")),
    ("copy", include_str!("buildkit/copy.txt")),
    ("ignore", include_str!("buildkit/ignore.txt")),
    ("mounts", include_str!("buildkit/mounts.txt")),
    ("run", include_str!("buildkit/run.txt")),
];

/// How many cases are built at once: docker waits more than it works.
const WORKERS: usize = 4;

/// The parts of a configuration that Dockerfiles set.
const CONFIG: [&str; 12] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// The time of every file of a context, long before every build.
const CONTEXT_TIME: i64 = 981_173_106;

#[derive(Debug)]
struct Case {
    name: String,
    options: Vec<&'static str>,
    with_history: bool,
    place: Place,
    setup: &'static str,
    dockerfile: &'static str,
}

/// Where a case's context is when it is built: `!stdin`, `!at=…` below its address.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Directory,
    Stdin,
    Address(&'static str),
}

#[test]
fn privileged_rbuild_builds_what_buildkit_builds() {
    let world = World::with_busybox();
    let docker = Dockerd::start(&world);
    let archive = world.path("busybox.tar");
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), "busybox"]);
    docker.run(&["load", "-i", archive.to_str().unwrap()]);

    let files = Files::serve(&world.path("contexts"));
    let cases = Mutex::new(cases().into_iter());
    let wrong = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().next() else { return };
                    let found = differences(&world, &docker, &files, &case);
                    if !found.is_empty() {
                        wrong.lock().unwrap().insert(case.name, found);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "docker (-) and rbuild (+) differ: {wrong:#?}");
}

/// Reads the tables.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (table, text) in TABLES {
        for block in text.strip_prefix("=== ").unwrap().split("\n=== ") {
            let (head, rest) = block.split_once('\n').unwrap();
            let (setup, dockerfile) = match rest.strip_prefix("---\n") {
                Some(dockerfile) => ("", dockerfile),
                None => rest.split_once("\n---\n").unwrap(),
            };
            let mut words = head.split(' ');
            let name = format!("{table}-{}", words.next().unwrap());
            let (marks, options): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with('!'));
            let address = marks.iter().find_map(|mark| mark.strip_prefix("!at="));
            let place = match address {
                Some(address) => Place::Address(address),
                None if marks.contains(&"!stdin") => Place::Stdin,
                None => Place::Directory,
            };
            let with_history = !marks.contains(&"!history");
            cases.push(Case { name, options, with_history, place, setup, dockerfile });
        }
    }
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name");
    cases
}

/// Builds a case with both and returns how the results differ.
fn differences(world: &World, docker: &Dockerd, files: &Files, case: &Case) -> Vec<String> {
    let directory = context(world, files, case);
    let context = match case.place {
        Place::Directory => directory.clone(),
        Place::Stdin => "-".to_owned(),
        Place::Address(address) => files.url(&format!("{}{address}", case.name)),
    };
    let (ours, theirs) = (format!("rbuild-{}", case.name), format!("docker-{}", case.name));
    let args = |first: &[&'static str], tag: &str| -> Vec<String> {
        let words = first.iter().chain(&["-q", "-t"]).copied().chain([tag]);
        words
            .chain(case.options.iter().copied())
            .chain([context.as_str()])
            .map(Into::into)
            .collect()
    };
    let by_us = args(&[], &ours);
    let words: Vec<&str> = by_us.iter().map(String::as_str).collect();
    let by_us = try_run_with(&mut world.command("rbuild", &words), stdin(case, &directory));
    let by_them = args(&["build", "--network", "none", "--no-cache"], &theirs);
    let words: Vec<&str> = by_them.iter().map(String::as_str).collect();
    let by_them = try_run_with(&mut docker.command(&words), stdin(case, &directory));
    if !by_us.status.success() || !by_them.status.success() {
        let agree = by_us.code() == 1 && by_them.code() == 1;
        return if agree {
            Vec::new()
        } else {
            vec![format!("-{by_them:?}"), format!("+{by_us:?}")]
        };
    }

    // docker shows both.
    let archive = world.path(&format!("{ours}.tar"));
    world.rbuild(&["save", "-o", archive.to_str().unwrap(), &ours]);
    let loaded = docker.ask("POST", "/images/load?quiet=1", &fs::read(&archive).unwrap());
    assert!(!String::from_utf8_lossy(&loaded).contains("\"error\""), "{archive:?}: {loaded:?}");
    fs::remove_file(archive).unwrap();
    let mut found = Vec::new();
    compare(&config(docker, &theirs), &config(docker, &ours), &mut found);
    if case.with_history {
        compare(&history(docker, &theirs), &history(docker, &ours), &mut found);
    }
    compare(&tree(world, docker, &theirs), &tree(world, docker, &ours), &mut found);
    found
}

/// Returns the context as a tar, where it is to come that way.
fn stdin(case: &Case, directory: &str) -> Stdio {
    if case.place != Place::Stdin {
        return Stdio::null();
    }
    let tar = format!("{directory}.tar");
    run(Command::new("tar").args(["-C", directory, "-cf", &tar, "."]));
    fs::File::open(&tar).unwrap().into()
}

/// Writes the context of a case.
fn context(world: &World, files: &Files, case: &Case) -> String {
    let text = case.dockerfile.replace("@URL@", &files.url(&case.name));
    let dockerfile = world.write(&format!("contexts/{}/Dockerfile", case.name), text);
    let context = dockerfile.parent().unwrap();
    run(Command::new("sh").args(["-ec", case.setup]).current_dir(context));
    run(Command::new("find").arg(context).args([
        "-exec",
        "touch",
        "-h",
        "-d",
        &format!("@{CONTEXT_TIME}"),
        "{}",
        "+",
    ]));
    context.to_str().unwrap().to_owned()
}

fn compare(
    theirs: &BTreeMap<String, String>,
    ours: &BTreeMap<String, String>,
    found: &mut Vec<String>,
) {
    for key in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let (minus, plus) = (theirs.get(key), ours.get(key));
        if minus != plus {
            found.push(format!("{key}: -{minus:?} +{plus:?}"));
        }
    }
}

/// Returns what an image's configuration says; nothing and empty are the same.
fn config(docker: &Dockerd, image: &str) -> BTreeMap<String, String> {
    let inspected = docker.ask("GET", &format!("/images/{image}/json"), b"");
    let inspected: Value = serde_json::from_slice(&inspected).unwrap();
    let config = &inspected["Config"];
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    };
    CONFIG
        .iter()
        .filter(|key| !is_empty(&config[**key]))
        .map(|key| ((*key).to_owned(), config[*key].to_string()))
        .collect()
}

/// Returns the lines of an image's history by their number.
fn history(docker: &Dockerd, image: &str) -> BTreeMap<String, String> {
    let history = docker.ask("GET", &format!("/images/{image}/history"), b"");
    let history: Value = serde_json::from_slice(&history).unwrap();
    let lines = history.as_array().unwrap().iter().rev().enumerate();
    let shown = |line: &str| {
        let words = line.split(' ');
        let is_new = |word: &&str| word.starts_with("--chown=") || word.starts_with("--chmod=");
        words.filter(|word| !is_new(word)).collect::<Vec<_>>().join(" ")
    };
    lines
        .map(|(number, line)| {
            (format!("history {number}"), shown(line["CreatedBy"].as_str().unwrap()))
        })
        .collect()
}

/// Returns the files of an image: path → type, mode, owner, content and, of what a context gave, time.
fn tree(world: &World, docker: &Dockerd, image: &str) -> BTreeMap<String, String> {
    // An image without a command needs one, though it never runs.
    let body = serde_json::json!({ "Image": image, "Cmd": ["never"], "NetworkDisabled": true });
    let created = docker.ask("POST", "/containers/create", body.to_string().as_bytes());
    let created: Value = serde_json::from_slice(&created).unwrap();
    let id = created["Id"].as_str().unwrap();
    let tar = world.write(
        &format!("trees/{image}.tar"),
        docker.ask("GET", &format!("/containers/{id}/export"), b""),
    );
    docker.ask("DELETE", &format!("/containers/{id}"), b"");
    let dir = world.path(&format!("trees/{image}"));
    fs::create_dir_all(&dir).unwrap();
    run(Command::new("tar").args(["--numeric-owner", "-xpf"]).arg(&tar).arg("-C").arg(&dir));
    let mut files = BTreeMap::new();
    describe(&dir, &dir, &mut files);
    fs::remove_file(tar).unwrap();
    fs::remove_dir_all(dir).unwrap();
    files
}

fn describe(root: &Path, dir: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        let mut text = format!("{mode:o} {uid}:{gid}");
        if metadata.is_file() {
            let content = fs::read(&path).unwrap();
            text += &format!(" {} links, {}", metadata.nlink(), oci::Digest::sha256(&content));
        } else if metadata.is_symlink() {
            text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        } else if !metadata.is_dir() {
            text += &format!(" device {:x}", metadata.rdev());
        }
        if !metadata.is_dir() && metadata.mtime() == CONTEXT_TIME {
            text += " of the context's time";
        }
        files.insert(format!("{:?}", path.strip_prefix(root).unwrap()), text);
        if metadata.is_dir() {
            describe(root, &path, files);
        }
    }
}
