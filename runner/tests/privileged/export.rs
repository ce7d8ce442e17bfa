//! A container's files as a tar: `export`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Host, busybox_tree, names_in, tar_of};

/// Unpacks an archive with the system's tar, and returns what it lists.
fn unpack(archive: &Path, into: &Path) -> Vec<String> {
    fs::create_dir(into).unwrap();
    let output = Command::new("tar")
        .args(["--extract", "--verbose", "--xattrs", "--xattrs-include=user.*", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(into)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn privileged_a_containers_files_are_exported_whether_it_runs_or_not() {
    let host = Host::new();
    let script = "echo more >>/data/seed; rm /etc/group; rm -r /home/app; mkdir /home/app; echo z >/home/app/z; \
                  /bin/busybox ln /data/seed /data/again; mknod /data/pipe p; echo in >/mnt/in; echo done; sleep 1000";
    host.rrun(&["run", "-d", "--name", "box", "-v", "vol:/mnt", "busybox", "sh", "-c", script])
        .ok();
    while host.rrun(&["logs", "box"]).stdout != "done\n" {}
    for (number, state) in ["running", "stopped"].iter().enumerate() {
        let (archive, tree) = (host.path(&format!("{number}.tar")), host.path(state));
        host.rrun(&["export", "-o", archive.to_str().unwrap(), "box"]).ok();
        let names = unpack(&archive, &tree);
        assert!(names.contains(&"bin/busybox".to_owned()), "{names:?}");
        assert!(!names.iter().any(|name| name == "etc/group" || name == "./"), "{names:?}");
        assert_eq!(fs::read_to_string(tree.join("data/seed")).unwrap(), "from the image\nmore\n");
        assert_eq!(fs::read_to_string(tree.join("data/again")).unwrap(), "from the image\nmore\n");
        assert_eq!(names_in(&tree.join("home/app")), ["z"]);
        assert_eq!(fs::read_link(tree.join("bin/sh")).unwrap(), Path::new("busybox"));
        // Places of mounts are there, and nothing of what is mounted.
        for place in ["mnt", "proc", "sys", "dev"] {
            assert_eq!(names_in(&tree.join(place)), [""; 0], "{state}: /{place}");
        }
        assert_eq!(fs::read_to_string(tree.join("etc/hosts")).unwrap(), "");
        host.rrun(&["stop", "box"]).ok();
    }
    // The same on standard output, and an image again.
    let mut command = host.command();
    let piped = command.args(["export", "box"]).stdout(Stdio::piped()).output().unwrap();
    assert!(piped.status.success());
    assert!(piped.stdout == fs::read(host.path("1.tar")).unwrap(), "the same bytes each time");
    host.add_image("again", &piped.stdout, |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    assert_eq!(host.rrun(&["run", "--rm", "again", "cat", "/home/app/z"]).ok(), "z");
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_an_export_that_fails_leaves_no_file() {
    let host = Host::new();
    let path = host.path("out.tar");
    let text = path.to_str().unwrap();
    let error = host.rrun(&["export", "-o", text, "nobody"]).fails(1);
    assert!(error.contains("no such container: nobody") && error.contains("hint: "), "{error}");
    host.rrun(&["create", "--name", "box", "busybox"]).ok();
    let error = host.rrun(&["export", "-o", "/does/not/exist/x.tar", "box"]).fails(1);
    assert!(error.contains("cannot write /does/not/exist/x.tar: No such file"), "{error}");
    assert!(!path.exists());
    // Whoever reads may have enough.
    let mut child = host.start(&["export", "box"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
    host.rrun(&["rm", "box"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_links_of_an_image_lead_an_export_nowhere() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    // Directories that become links while they are read.
    let script = format!(
        "mkdir /data/swap; echo mine >/data/swap/key; echo ready; \
         while true; do mv /data/swap /data/kept; ln -s {} /data/swap; rm /data/swap; mv /data/kept /data/swap; done",
        secret.display()
    );
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    for name in ["mv", "ln"] {
        symlink("busybox", tree.path().join("bin").join(name)).unwrap();
    }
    symlink(&secret, tree.path().join("out")).unwrap();
    host.add_image("evil", &tar_of(tree.path()), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    host.rrun(&["run", "-d", "--name", "box", "evil", "sh", "-c", &script]).ok();
    while host.rrun(&["logs", "box"]).stdout != "ready\n" {}
    for round in 0..8 {
        let (archive, tree) = (host.path("evil.tar"), host.path(&format!("evil{round}")));
        host.rrun(&["export", "-o", archive.to_str().unwrap(), "box"]).ok();
        unpack(&archive, &tree);
        assert_eq!(fs::read_link(tree.join("out")).unwrap(), secret);
        let bytes = fs::read(&archive).unwrap();
        let found = bytes.windows(11).any(|window| window == b"of the host");
        assert!(!found, "a file of the host is in the archive");
    }
    host.rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
}
