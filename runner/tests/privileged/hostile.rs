//! Images that try to reach the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{Host, busybox_tree, names_in, tar_of};

/// Adds the image `evil`, a busybox whose tree `edit` has changed.
fn add_evil(host: &Host, edit: impl FnOnce(&Path), volumes: &[&str]) {
    let tree = tempfile::tempdir().unwrap();
    busybox_tree(tree.path());
    edit(tree.path());
    host.add_image("evil", &tar_of(tree.path()), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.volumes = volumes.iter().map(|volume| (*volume).to_owned()).collect();
    });
}

#[test]
fn privileged_links_in_etc_do_not_lead_our_files_out() {
    let host = Host::new();
    let canary = host.path("canary");
    fs::create_dir(&canary).unwrap();
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(canary.join(name), "untouched").unwrap();
    }
    add_evil(
        &host,
        |tree| {
            for name in ["hosts", "hostname", "resolv.conf"] {
                symlink(canary.join(name), tree.join("etc").join(name)).unwrap();
            }
        },
        &[],
    );
    let outcome = host.rrun(&["run", "--rm", "evil", "sh", "-c", "echo evil >> /etc/hosts; true"]);
    assert!(outcome.code == 0 || outcome.code == 125, "{outcome:?}");
    for name in ["hosts", "hostname", "resolv.conf"] {
        assert_eq!(fs::read_to_string(canary.join(name)).unwrap(), "untouched");
    }
    assert_eq!(names_in(&canary).len(), 3);
    host.assert_empty();
}

#[test]
fn privileged_links_at_mount_points_stay_inside() {
    let host = Host::new();
    let canary = host.path("canary");
    fs::create_dir(&canary).unwrap();
    let source = host.path("source");
    fs::create_dir(&source).unwrap();
    for place in ["dev", "proc", "sys", "etc", "mnt"] {
        add_evil(
            &host,
            |tree| {
                fs::remove_dir_all(tree.join(place)).ok();
                symlink(&canary, tree.join(place)).unwrap();
            },
            &["/mnt/volume"],
        );
        let bind = format!("{}:/mnt/bind", source.display());
        let outcome =
            host.rrun(&["run", "--rm", "-v", &bind, "--tmpfs", "/mnt/tmp", "evil", "true"]);
        assert!(matches!(outcome.code, 0 | 125), "/{place} → canary: {outcome:?}");
        assert_eq!(names_in(&canary), [""; 0], "/{place} led out of the root");
    }
    host.assert_empty();
}

#[test]
fn privileged_a_volume_that_is_a_link_is_filled_from_inside() {
    let host = Host::new();
    let secret = host.path("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "of the host").unwrap();
    add_evil(&host, |tree| symlink(&secret, tree.join("volume")).unwrap(), &["/volume"]);
    let outcome = host.rrun(&["run", "--rm", "evil", "sh", "-c", "cat /volume/key"]);
    assert!(!outcome.stdout.contains("of the host"), "{outcome:?}");
    assert_eq!(names_in(&secret), ["key"]);
}

#[test]
fn privileged_user_names_that_look_like_numbers_are_numbers() {
    let host = Host::new();
    add_evil(
        &host,
        |tree| {
            let passwd =
                "root:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n7777:x:0:0::/:/bin/sh\n";
            fs::write(tree.join("etc/passwd"), passwd).unwrap();
        },
        &[],
    );
    for user in ["4294967296", "4294967295", "-1"] {
        let outcome = host.rrun(&["run", "--rm", &format!("--user={user}"), "evil", "id", "-u"]);
        assert_eq!(outcome.code, 125, "{user}: {outcome:?}");
    }
    assert_eq!(host.rrun(&["run", "--rm", "--user=7777", "evil", "id", "-u"]).ok(), "7777");
}

#[test]
fn privileged_a_working_directory_cannot_be_a_descriptor() {
    let host = Host::new();
    for number in 3..24 {
        let dir = format!("/proc/self/fd/{number}");
        let outcome =
            host.rrun(&["run", "--rm", "-w", &dir, "busybox", "ls", "../../../etc/shadow"]);
        assert_ne!(outcome.code, 0, "{dir}: {outcome:?}");
    }
    host.assert_empty();
}
