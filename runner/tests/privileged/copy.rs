//! `cp`: files in and out, and nowhere else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use crate::harness::{Host, names_in};

/// How often a copy meets a link that is exchanged. `RRUN_SOAK=1000` makes it long.
const ROUNDS: u32 = 40;

fn rounds() -> u32 {
    let asked = std::env::var_os("RRUN_SOAK");
    asked.and_then(|rounds| rounds.to_str()?.parse().ok()).unwrap_or(ROUNDS)
}

impl Host {
    #[track_caller]
    fn cp(&self, from: &str, to: &str) {
        self.rrun(&["cp", "-q", from, to]).ok();
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// The same for a container that runs and for one that does not.
#[test]
fn privileged_files_are_copied_by_dockers_rules() {
    let host = Host::new();
    let tree = host.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/deep"), "deep\n").unwrap();
    fs::write(tree.join("top"), "top\n").unwrap();
    // A new owner takes set-id bits away, so it comes first.
    std::os::unix::fs::chown(tree.join("top"), Some(77), Some(78)).unwrap();
    fs::set_permissions(tree.join("top"), fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("/etc/hostname", tree.join("link")).unwrap();
    let tree = tree.to_str().unwrap();
    host.rrun(&["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).ok();
    host.rrun(&["create", "--name", "waits", "busybox", "cat", "/data/new"]).ok();
    for name in ["runs", "waits"] {
        let inside = |path: &str| format!("{name}:{path}");
        // Out: a file to a new name, into a directory, over a file.
        host.cp(&inside("/data/seed"), &host.file("seed"));
        assert_eq!(read(host.path("seed")), "from the image\n");
        let out = host.file(&format!("{name}-out"));
        fs::create_dir(&out).unwrap();
        host.cp(&inside("data/seed"), &out);
        fs::write(format!("{out}/passwd"), "old").unwrap();
        host.cp(&inside("/etc/passwd"), &format!("{out}/passwd"));
        assert!(read(format!("{out}/passwd")).starts_with("root:"));
        // A directory: as a new one, into one, and what is in it.
        host.cp(&inside("/data"), &format!("{out}/renamed"));
        host.cp(&inside("/data"), &out);
        host.cp(&inside("/home/."), &format!("{out}/homes"));
        assert_eq!(names_in(Path::new(&out)), ["data", "homes", "passwd", "renamed", "seed"]);
        assert_eq!(names_in(&Path::new(&out).join("renamed")), ["seed"]);
        assert_eq!(names_in(&Path::new(&out).join("homes")), ["app"]);
        // In: owned by root, without set-id bits, links as links; or as they are.
        host.cp(tree, &inside("/data"));
        host.cp(&format!("{tree}/."), &inside("/data/new"));
        host.rrun(&["cp", "-a", &format!("{tree}/top"), &inside("/data/same")]).ok();
        host.cp(&inside("/data"), &format!("{out}/back"));
        let back = Path::new(&out).join("back");
        assert_eq!(names_in(&back), ["new", "same", "seed", "tree"]);
        assert_eq!(read(back.join("tree/sub/deep")), "deep\n");
        assert_eq!(fs::read_link(back.join("new/link")).unwrap(), Path::new("/etc/hostname"));
        host.rrun(&["cp", "-a", &inside("/data/."), &format!("{out}/exact")]).ok();
        let of = |name: &str| {
            let metadata = fs::metadata(Path::new(&out).join("exact").join(name)).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(of("new/top"), (0, 0, 0o750));
        assert_eq!(of("same"), (77, 78, 0o4750));
    }
    let exec = host.rrun(&["exec", "runs", "cat", "/data/new/sub/deep"]);
    assert_eq!(exec.ok(), "deep");
    // What was copied into the other one is there when it starts.
    fs::write(host.path("new"), "started\n").unwrap();
    host.rrun(&["rm", "-f", "waits"]).ok();
    host.rrun(&["create", "--name", "waits", "busybox", "cat", "/data/new"]).ok();
    host.cp(&host.file("new"), "waits:/data/new");
    assert_eq!(host.rrun(&["start", "-a", "waits"]).ok(), "started");
    host.rrun(&["rm", "-f", "runs", "waits"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_what_cannot_be_copied_is_said() {
    let host = Host::new();
    host.rrun(&[
        "run",
        "-d",
        "--name",
        "box",
        "--read-only",
        "--tmpfs",
        "/work",
        "busybox",
        "sh",
        "-c",
        "mknod /work/pipe p; sleep 1000",
    ])
    .ok();
    fs::write(host.path("file"), "x").unwrap();
    fs::create_dir(host.path("dir")).unwrap();
    let (file, dir) = (host.file("file"), host.file("dir"));
    for (from, to, words) in [
        ("box:/nothing", file.as_str(), "cannot find /nothing: No such file"),
        ("box:/data/seed", "/nowhere/x", "cannot find /nowhere/x"),
        (&file, "box:/nowhere/x", "cannot find /nowhere/x"),
        (&file, "box:/work/new/", "the directory /work/new/ does not exist"),
        (&dir, "box:/etc/passwd", "is a directory and /etc/passwd is not"),
        ("box:/proc/1/root/etc/passwd", &dir, "Too many levels of symbolic links"),
        (&file, "box:/data", "Read-only file system"),
        ("nobody:/x", &file, "no such container: nobody"),
        ("box:/x", "box:/y", "cannot be copied from container to container"),
        (&file, &dir, "one of both must be a path in a container"),
        ("box:/data", "-", "not supported yet"),
    ] {
        let error = host.rrun(&["cp", from, to]).fails(1);
        assert!(error.contains(words), "{from} {to}: {error}");
    }
    // A mount of the container's is seen, too, and said is how much.
    let outcome = host.rrun(&["cp", &file, "box:/work"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, "copied 1 bytes to box:/work\n"));
    assert_eq!(host.rrun(&["exec", "box", "cat", "/work/file"]).ok(), "x");
    let outcome = host.rrun(&["cp", "-q", "box:/dev/.", &dir]);
    assert!(outcome.stderr.contains("warning: null is a device or a socket"), "{outcome:?}");
    assert!(!Path::new(&dir).join("null").exists());
    host.cp("box:/work/pipe", &dir);
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}

/// CVE-2018-15664, CVE-2019-14271: links of a container lead nowhere outside,
/// whichever way files go, and no program of a container is executed.
#[test]
fn privileged_links_of_a_container_do_not_lead_out() {
    let host = Host::new();
    let canary = host.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "secret").unwrap();
    fs::write(host.path("file"), "new").unwrap();
    let script = format!(
        "ln -s {0} /data/dir; ln -s {0}/secret /data/secret; ln -s ../../../../../..{0} /data/up; sleep 1000",
        canary.display()
    );
    host.rrun(&["run", "-d", "--name", "box", "busybox", "sh", "-c", &script]).ok();
    while host.rrun(&["exec", "box", "readlink", "/data/up"]).code != 0 {}
    for target in ["/data/dir/new", "/data/up/new", "/data/dir/"] {
        host.rrun(&["cp", &host.file("file"), &format!("box:{target}")]).fails(1);
    }
    // A link in the place of a file is replaced, not followed.
    host.cp(&host.file("file"), "box:/data/secret");
    assert_eq!(host.rrun(&["exec", "box", "cat", "/data/secret"]).ok(), "new");
    host.rrun(&["cp", "box:/data/dir/secret", &host.file("stolen")]).fails(1);
    host.cp("box:/data", &host.file("out"));
    assert!(fs::symlink_metadata(host.path("out/dir")).unwrap().is_symlink());
    assert_eq!(names_in(&canary), ["secret"]);
    assert_eq!(read(canary.join("secret")), "secret");
    host.rrun(&["rm", "-f", "box"]).ok();
}

/// A container that exchanges a directory and a link while files are copied.
#[test]
fn privileged_links_that_are_exchanged_meanwhile_do_not_lead_out() {
    let host = Host::new();
    let canary = host.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("secret"), "secret").unwrap();
    fs::create_dir_all(host.path("tree/x")).unwrap();
    fs::write(host.path("tree/x/file"), "new").unwrap();
    let script = format!(
        "cd /data; while :; do mkdir x; echo a >x/a; rm -r x; ln -s {} x; rm x; done 2>/dev/null",
        canary.display()
    );
    host.rrun(&["run", "-d", "--name", "racer", "busybox", "sh", "-c", &script]).ok();
    for round in 0..rounds() {
        // Either may fail, since what was there is gone.
        drop(host.rrun(&["cp", "-q", &host.file("tree/."), "racer:/data"]));
        drop(host.rrun(&["cp", "-q", &host.file("tree/x/file"), "racer:/data/x/"]));
        let out = host.file(&format!("out{round}"));
        drop(host.rrun(&["cp", "-q", "racer:/data", &out]));
        assert_eq!(names_in(&canary), ["secret"], "round {round}");
        assert_eq!(read(canary.join("secret")), "secret");
        let stolen = Path::new(&out).join("x/secret");
        assert!(
            fs::symlink_metadata(Path::new(&out).join("x")).map_or(true, |x| x.is_symlink())
                || !stolen.exists()
        );
    }
    host.rrun(&["rm", "-f", "racer"]).ok();
    host.assert_empty();
}
