//! A container becomes an image: `commit`.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Host, busybox_tar, busybox_tree, names_in, tar_of};

#[test]
fn privileged_what_a_container_has_changed_becomes_an_image() {
    let host = Host::new();
    let script = "echo more >>/data/seed; rm /etc/group; rm -r /home/app; mkdir /home/app; echo z >/home/app/z; \
                  echo out >/mnt/out; echo done; sleep 1000";
    host.rrun(&[
        "run",
        "-d",
        "--name",
        "box",
        "-v",
        "vol:/mnt",
        "-e",
        "MODE=test",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    while host.rrun(&["logs", "box"]).stdout != "done\n" {}
    let look = "cat /data/seed; ls /home/app /mnt; test -e /etc/group || echo gone; echo $MODE";
    let expected = "from the image\nmore\n/home/app:\nz\n\n/mnt:\ngone\ntest";
    for (name, pause) in [("one", "--pause=true"), ("two", "--pause=false")] {
        let id = host.rrun(&["commit", pause, "box", name]).ok();
        assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
        assert_eq!(host.inspect("box", "{{.State.Status}}"), "running", "it goes on");
        assert_eq!(host.rrun(&["run", "--rm", name, "sh", "-c", look]).ok(), expected);
        assert_eq!(host.rrun(&["run", "--rm", &id, "sh", "-c", look]).ok(), expected);
    }
    // One that is paused stays paused; one that has ended need not run.
    host.rrun(&["pause", "box"]).ok();
    host.rrun(&["commit", "box", "three:v1"]).ok();
    assert_eq!(host.inspect("box", "{{.State.Status}}"), "paused");
    host.rrun(&["unpause", "box"]).ok();
    host.rrun(&["stop", "box"]).ok();
    let id = host.rrun(&["commit", "box"]).ok();
    host.rrun(&["rm", "box"]).ok();
    for image in ["three:v1", &id] {
        assert_eq!(host.rrun(&["run", "--rm", image, "sh", "-c", look]).ok(), expected);
    }
    // An image of an image: what was deleted stays so.
    host.rrun(&["run", "--name", "next", "one", "sh", "-c", "echo again >/etc/group"]).ok();
    host.rrun(&["commit", "next", "one"]).ok();
    assert_eq!(
        host.rrun(&["run", "--rm", "one", "cat", "/etc/group", "/home/app/z"]).ok(),
        "again\nz"
    );
    host.rrun(&["rm", "next"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_an_image_has_the_containers_settings_and_the_changes() {
    let host = Host::new();
    host.add_image("app", busybox_tar(), |config| {
        config.config.entrypoint = Some(vec!["echo".to_owned(), "image".to_owned()]);
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.user = Some("app".to_owned());
    });
    host.rrun(&["run", "--name", "box", "-l", "tier=db", "-w", "/data", "app", "said"]).ok();
    host.rrun(&["commit", "-a", "me", "-m", "as it was", "box", "same"]).ok();
    assert_eq!(host.rrun(&["run", "--rm", "same"]).ok(), "image said");
    assert_eq!(host.rrun(&["run", "--rm", "same", "other"]).ok(), "image other");
    let script = "id -u; pwd; env | grep -c HOSTNAME=";
    assert_eq!(
        host.rrun(&["run", "--rm", "--entrypoint", "sh", "same", "-c", script]).ok(),
        "1000\n/data\n1"
    );
    host.rrun(&[
        "commit",
        "-c",
        "ENTRYPOINT [\"sh\", \"-c\"]",
        "--change",
        "CMD [\"id -u; pwd; echo $MODE; ls -d /own\"]",
        "-c",
        "ENV MODE=\"a b\"",
        "-c",
        "USER 0",
        "-c",
        "WORKDIR /tmp",
        "-c",
        "VOLUME /own",
        "-c",
        "EXPOSE 80",
        "-c",
        "LABEL x=y",
        "-c",
        "STOPSIGNAL QUIT",
        "box",
        "changed",
    ])
    .ok();
    assert_eq!(host.rrun(&["run", "--name", "new", "changed"]).ok(), "0\n/tmp\na b\n/own");
    let of = |field: &str| host.inspect("new", &format!("{{{{json .Config.{field}}}}}"));
    assert_eq!(of("Labels"), r#"{"tier":"db","x":"y"}"#);
    assert_eq!(of("ExposedPorts"), r#"{"80/tcp":{}}"#);
    assert_eq!(of("StopSignal"), "\"SIGQUIT\"");
    for (args, code, words) in [
        (&["commit", "-c", "RUN true", "box"][..], 125, "\"RUN\" is not a change of an image"),
        (&["commit", "-c", "VOLUME relative", "box"], 1, "cannot make the change \"relative\""),
        (&["commit", "box", "Upper/Case:x:y"], 1, "invalid image reference"),
        (&["commit", "nobody"], 1, "no such container: nobody"),
    ] {
        let error = host.rrun(args).fails(code);
        assert!(error.contains(words), "{args:?}: {error}");
    }
    host.rrun(&["rm", "box", "new"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_links_of_an_image_lead_a_commit_nowhere() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    symlink(&secret, tree.path().join("out")).unwrap();
    symlink("busybox", tree.path().join("bin/ln")).unwrap();
    host.add_image("evil", &tar_of(tree.path()), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
    });
    let script = format!(
        "rm -r /data; ln -s {} /data; ln -s {}/key /tmp/key",
        secret.display(),
        secret.display()
    );
    host.rrun(&["run", "--name", "box", "evil", "sh", "-c", &script]).ok();
    host.rrun(&["commit", "box", "made"]).ok();
    let archive = host.path("made.tar");
    host.rrun(&["create", "--name", "look", "made", "true"]).ok();
    host.rrun(&["export", "-o", archive.to_str().unwrap(), "look"]).ok();
    let bytes = fs::read(&archive).unwrap();
    assert!(!bytes.windows(11).any(|window| window == b"of the host"));
    assert_eq!(
        host.rrun(&["run", "--rm", "made", "readlink", "/data"]).ok(),
        secret.to_str().unwrap()
    );
    assert_eq!(names_in(&secret), ["key"]);
    // What a layer cannot say is refused, and leaves no image.
    host.rrun(&["run", "--name", "odd", "busybox", "touch", "/data/.wh.x"]).ok();
    let error = host.rrun(&["commit", "odd", "odd"]).fails(1);
    assert!(error.contains("names that start with `.wh.` are reserved"), "{error}");
    let error = host.rrun(&["run", "--rm", "--pull=never", "odd", "true"]).fails(125);
    assert!(error.contains("no such image"), "{error}");
    host.rrun(&["rm", "box", "look", "odd"]).ok();
    host.assert_empty();
}
