//! Volumes with names: what is in them outlives containers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Host, busybox_tree, finish, names_in, tar_of};

/// Adds the image `db` with files of several owners at /data.
fn add_db(host: &Host) {
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    let data = tree.path().join("data");
    fs::create_dir(data.join("sub")).unwrap();
    fs::write(data.join("sub/tool"), "#!/bin/sh\n").unwrap();
    fs::hard_link(data.join("sub/tool"), data.join("again")).unwrap();
    symlink("/etc/passwd", data.join("link")).unwrap();
    chown(data.join("sub/tool"), Some(1000), Some(1001)).unwrap();
    chown(&data, Some(1000), Some(1001)).unwrap();
    fs::set_permissions(data.join("sub/tool"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o2770)).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(data.join("seed"), "user.note", b"kept", flags).unwrap();
    let tar = Command::new("tar")
        .args(["--create", "--sort=name", "--xattrs", "--xattrs-include=user.*", "--directory"])
        .arg(tree.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(tar.status.success(), "{tar:?}");
    host.add_image("db", &tar.stdout, |config| {
        config.config.cmd = Some(vec!["sh".to_owned()]);
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
}

fn data_of(host: &Host, volume: &str) -> PathBuf {
    host.root().join("volumes").join(volume).join("_data")
}

#[test]
fn privileged_what_is_in_a_volume_outlives_containers() {
    let host = Host::new();
    let run = |options: &[&str], script: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "sh", "-c", script]);
        host.rrun(&words)
    };
    run(&["-v", "shared:/mnt"], "echo one >/mnt/file").ok();
    assert_eq!(run(&["-v", "shared:/other/place"], "cat /other/place/file").ok(), "one");
    assert_eq!(run(&["--mount", "type=volume,src=shared,dst=/m"], "cat /m/file").ok(), "one");
    let readonly = run(&["-v", "shared:/mnt:ro"], "cat /mnt/file; echo two >/mnt/file");
    assert!(readonly.stdout == "one\n" && readonly.code == 1, "{readonly:?}");
    assert!(readonly.stderr.contains("Read-only file system"), "{readonly:?}");
    let readonly = run(&["--mount", "src=shared,dst=/mnt,readonly"], "echo two >/mnt/file");
    assert!(readonly.stderr.contains("Read-only file system"), "{readonly:?}");
    // A container that stays sees the same after it was started again.
    host.rrun(&[
        "run",
        "--name",
        "box",
        "-v",
        "shared:/mnt",
        "busybox",
        "sh",
        "-c",
        "echo x >>/mnt/log; wc -l </mnt/log",
    ])
    .ok();
    assert_eq!(host.rrun(&["start", "-a", "box"]).ok(), "2");
    host.rrun(&["rm", "-v", "box"]).ok();
    assert_eq!(run(&["-v", "shared:/mnt"], "ls /mnt").ok(), "file\nlog");
    let error = host.rrun(&["run", "--rm", "-v", "a/b:/mnt", "busybox", "true"]).fails(125);
    assert!(error.contains("\"a/b\" is no name of a volume"), "{error}");
    host.assert_empty();
}

#[test]
fn privileged_an_empty_volume_begins_with_the_images_files() {
    let host = Host::new();
    add_db(&host);
    host.rrun(&["run", "--rm", "-v", "data:/data", "db", "true"]).ok();
    let data = data_of(&host, "data");
    let top = fs::metadata(&data).unwrap();
    assert_eq!((top.uid(), top.gid(), top.mode() & 0o7777), (1000, 1001, 0o2770));
    let tool = fs::metadata(data.join("sub/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777), (1000, 1001, 0o4750));
    assert_eq!(tool.ino(), fs::metadata(data.join("again")).unwrap().ino());
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
    let mut note = [0; 8];
    let length = rustix::fs::getxattr(data.join("seed"), "user.note", &mut note).unwrap();
    assert_eq!(&note[..length], b"kept");
    // What is in it is never covered, nor comes back.
    host.rrun(&[
        "run",
        "--rm",
        "-v",
        "data:/data",
        "db",
        "sh",
        "-c",
        "rm -r /data/sub /data/again; echo mine >/data/seed",
    ])
    .ok();
    assert_eq!(
        host.rrun(&[
            "run",
            "--rm",
            "-v",
            "data:/data",
            "db",
            "sh",
            "-c",
            "cat /data/seed; ls /data"
        ])
        .ok(),
        "mine\nlink\nseed"
    );
    // One that was made beforehand is filled, too; not so with nocopy.
    host.rrun(&["volume", "create", "early"]).ok();
    assert_eq!(
        host.rrun(&["run", "--rm", "-v", "early:/data", "db", "cat", "/data/seed"]).ok(),
        "from the image"
    );
    for options in [["-v", "bare:/data:nocopy"], ["--mount", "src=bare,dst=/data,volume-nocopy"]] {
        assert_eq!(
            host.rrun(&["run", "--rm", options[0], options[1], "db", "ls", "/data"]).ok(),
            ""
        );
    }
    // Emptied by a container, it stays empty for that one.
    host.rrun(&[
        "run",
        "--name",
        "box",
        "-v",
        "early:/data",
        "db",
        "sh",
        "-c",
        "rm -rf /data/*; ls /data",
    ])
    .ok();
    assert_eq!(host.rrun(&["start", "-a", "box"]).ok(), "");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_a_part_of_a_volume_is_mounted_and_no_link_leads_out() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    let script = format!(
        "mkdir -p /v/a/b; echo deep >/v/a/b/file; ln -s b /v/a/near; ln -s {} /v/out; ln -s ../../../.. /v/up",
        secret.display()
    );
    host.rrun(&["run", "--rm", "-v", "tree:/v", "busybox", "sh", "-c", &script]).ok();
    let cat = |subpath: &str, what: &str| {
        let mount = format!("type=volume,src=tree,dst=/mnt,volume-subpath={subpath}");
        host.rrun(&["run", "--rm", "--mount", &mount, "busybox", "cat", what])
    };
    assert_eq!(cat("a/b", "/mnt/file").ok(), "deep");
    assert_eq!(cat("a/near", "/mnt/file").ok(), "deep", "its own links are followed in it");
    for subpath in ["out", "out/key", "missing"] {
        let error = cat(subpath, "/mnt/key").fails(125);
        assert!(error.contains(&format!("cannot mount {subpath} of volume tree")), "{error}");
        assert!(error.contains("hint: volume-subpath names a path"), "{error}");
    }
    // Above the top is the top.
    assert_eq!(cat("up", "/mnt/a/b/file").ok(), "deep");
    let error = cat("../..", "/mnt/x").fails(125);
    assert!(error.contains("without .."), "{error}");
    assert_eq!(names_in(&secret), ["key"]);
    host.assert_empty();
}

#[test]
fn privileged_volumes_that_containers_have_are_not_removed() {
    let host = Host::new();
    for name in ["used", "free"] {
        assert_eq!(host.rrun(&["volume", "create", name]).ok(), name);
    }
    let anonymous = host.rrun(&["volume", "create"]).ok();
    assert_eq!(anonymous.len(), 64);
    host.rrun(&["create", "--name", "box", "-v", "used:/data", "-v", "/own", "busybox", "true"])
        .ok();
    for when in ["before it has run", "after it has run"] {
        let error = host.rrun(&["volume", "rm", "used"]).fails(1);
        assert!(error.contains("volume used is in use by container box"), "{when}: {error}");
        assert!(
            error.contains("hint: remove that container first with `rrun rm -f box`"),
            "{error}"
        );
        host.rrun(&["volume", "rm", "-f", "used"]).fails(1);
        host.rrun(&["start", "-a", "box"]).ok();
    }
    fs::write(data_of(&host, "free").join("file"), [0; 1500]).unwrap();
    // Without -a, only those that nobody has named.
    let expected = format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B");
    assert_eq!(host.rrun(&["volume", "prune", "-f"]).ok(), expected);
    assert_eq!(host.rrun(&["volume", "prune"]).ok(), "Total reclaimed space: 0B");
    assert_eq!(
        host.rrun(&["volume", "prune", "-a"]).ok(),
        "Deleted Volumes:\nfree\n\nTotal reclaimed space: 1.50kB"
    );
    assert_eq!(host.rrun(&["volume", "ls", "-q"]).ok(), "used");
    host.rrun(&["rm", "-v", "box"]).ok();
    assert_eq!(
        fs::read_to_string(data_of(&host, "used").join("seed")).unwrap(),
        "from the image\n"
    );
    assert_eq!(host.rrun(&["volume", "rm", "used"]).ok(), "used");
    let error = host.rrun(&["volume", "rm", "used"]).fails(1);
    assert!(error.contains("no such volume: used"), "{error}");
    host.rrun(&["volume", "rm", "-f", "used"]).ok();
    assert_eq!(names_in(&host.root().join("volumes")), [".lock"]);
    host.assert_empty();
}

#[test]
fn privileged_volumes_are_listed_and_inspected_in_dockers_words() {
    let host = Host::new();
    host.rrun(&["volume", "create", "--label", "tier=db", "--label", "x", "one"]).ok();
    host.rrun(&["volume", "create", "two"]).ok();
    // What is there stays as it is.
    host.rrun(&["volume", "create", "--label", "tier=web", "one"]).ok();
    assert_eq!(
        host.rrun(&["volume", "ls"]).ok(),
        "DRIVER   VOLUME NAME\nlocal    one\nlocal    two"
    );
    let ls = |args: &[&str]| {
        let mut words = vec!["volume", "ls"];
        words.extend(args);
        host.rrun(&words)
    };
    assert_eq!(ls(&["--format", "{{.Name}}: {{.Labels}}"]).ok(), "one: tier=db,x=\ntwo: ");
    assert_eq!(ls(&["-q", "--filter", "label=tier=db"]).ok(), "one");
    assert_eq!(ls(&["-q", "-f", "name=tw"]).ok(), "two");
    host.rrun(&["create", "--name", "box", "-v", "two:/mnt:ro", "-v", "/own", "busybox"]).ok();
    assert_eq!(ls(&["-q", "-f", "dangling=true"]).ok(), "one");
    assert_eq!(
        host.rrun(&["ps", "-a", "--filter", "volume=two", "--format", "{{.Names}}"]).ok(),
        "box"
    );
    assert_eq!(host.rrun(&["ps", "-aq", "--filter", "volume=one"]).ok(), "");
    let mountpoint =
        host.rrun(&["volume", "inspect", "-f", "{{.Mountpoint}} {{json .Labels}}", "two"]).ok();
    assert_eq!(mountpoint, format!("{} {{}}", data_of(&host, "two").display()));
    let mounts = host.inspect("box", "{{json .Mounts}}");
    let mounts: serde_json::Value = serde_json::from_str(&mounts).unwrap();
    assert_eq!(mounts[0]["Name"], "two");
    assert_eq!(mounts[0]["Source"], data_of(&host, "two").to_str().unwrap());
    assert_eq!((&mounts[0]["Type"], &mounts[0]["RW"]), (&"volume".into(), &false.into()));
    assert_eq!((&mounts[1]["Destination"], &mounts[1]["RW"]), (&"/own".into(), &true.into()));
    assert!(Path::new(mounts[1]["Source"].as_str().unwrap()).is_dir());
    let error = host.rrun(&["volume", "inspect", "three"]).fails(1);
    assert!(error.contains("no such volume: three") && error.contains("hint: "), "{error}");
    let error = host.rrun(&["volume", "create", "../evil"]).fails(125);
    assert!(error.contains("is no name of a volume"), "{error}");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_containers_that_start_at_once_share_a_new_volume() {
    let host = Host::new();
    add_db(&host);
    let script = "echo $HOSTNAME >/data/at-$HOSTNAME; test -f /data/sub/tool && cat /data/seed";
    let started: Vec<_> = (0..6)
        .map(|number| {
            let hostname = format!("--hostname=box{number}");
            host.start(&["run", "--rm", &hostname, "-v", "new:/data", "db", "sh", "-c", script])
        })
        .collect();
    for child in started {
        assert_eq!(finish(child).ok(), "from the image");
    }
    let mut expected: Vec<String> = (0..6).map(|number| format!("at-box{number}")).collect();
    expected.splice(0..0, ["again".to_owned()]);
    expected.extend(["link", "seed", "sub"].map(str::to_owned));
    assert_eq!(names_in(&data_of(&host, "new")), expected);
    assert_eq!(names_in(&host.root().join("volumes/new")), ["_data", "config.json", "lock"]);
    host.assert_empty();
}

#[test]
fn privileged_a_volume_at_a_link_to_the_host_gets_nothing_of_the_host() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    symlink(&secret, tree.path().join("volume")).unwrap();
    symlink("../../../../../../../../..", tree.path().join("up")).unwrap();
    symlink(secret.join("key"), tree.path().join("data/inner")).unwrap();
    host.add_image("evil", &tar_of(tree.path()), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    let above = format!("/up{}", secret.display());
    for (volume, place) in [("first", "/volume"), ("second", above.as_str())] {
        let mount = format!("{volume}:{place}");
        let script = format!("ls {place}; echo mine >{place}/mine");
        assert_eq!(host.rrun(&["run", "--rm", "-v", &mount, "evil", "sh", "-c", &script]).ok(), "");
        assert_eq!(names_in(&data_of(&host, volume)), ["mine"], "{place}");
    }
    // A link among the image's files stays one.
    host.rrun(&["run", "--rm", "-v", "third:/data", "evil", "true"]).ok();
    assert_eq!(fs::read_link(data_of(&host, "third").join("inner")).unwrap(), secret.join("key"));
    host.rrun(&["volume", "rm", "first", "second", "third"]).ok();
    assert_eq!(names_in(&secret), ["key"]);
    assert_eq!(fs::read_to_string(secret.join("key")).unwrap(), "of the host");
    host.assert_empty();
}

#[test]
fn privileged_a_start_that_is_killed_leaves_a_volume_empty_or_whole() {
    let host = Host::new();
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    for number in 0..400 {
        fs::write(tree.path().join(format!("data/{number}")), [b'x'; 2000]).unwrap();
    }
    host.add_image("many", &tar_of(tree.path()), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    for round in 0..12_u64 {
        let volume = format!("round{round}");
        let mount = format!("{volume}:/data");
        let mut command = host.command();
        command.args(["create", "-v", &mount, "many", "true"]).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(4 + 6 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let script = "ls /data | wc -l; cat /data/* | wc -c";
        let whole = host.rrun(&["run", "--rm", "-v", &mount, "many", "sh", "-c", script]).ok();
        assert_eq!(whole, format!("401\n{}", 400 * 2000 + "from the image\n".len()), "{volume}");
        let rest = names_in(&host.root().join("volumes").join(&volume));
        assert_eq!(rest, ["_data", "config.json", "lock"]);
    }
    host.rrun(&["prune"]).ok();
    host.rrun(&["volume", "prune", "-a"]).ok();
    assert_eq!(names_in(&host.root().join("volumes")), [".lock"]);
    host.assert_empty();
}
