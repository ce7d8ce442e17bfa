//! What containers see of the host, and what they may change.

use std::fs;
use std::process::Command;

use crate::harness::{Host, busybox_tar};

#[test]
fn privileged_binds_are_read_write_or_read_only() {
    let host = Host::new();
    let (shared, file) = (host.path("shared"), host.path("shared/file"));
    fs::create_dir(&shared).unwrap();
    fs::write(&file, "from the host").unwrap();
    let shared_at = |rest: &str| format!("{}:{rest}", shared.display());
    let rw = shared_at("/mnt/deep");
    assert_eq!(
        host.rrun(&["run", "--rm", "-v", &rw, "busybox", "cat", "/mnt/deep/file"]).ok(),
        "from the host"
    );
    host.rrun(&["run", "--rm", "-v", &rw, "busybox", "sh", "-c", "echo -n inside > /mnt/deep/new"])
        .ok();
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "inside");
    let ro = shared_at("/mnt:ro");
    let outcome = host.rrun(&["run", "--rm", "-v", &ro, "busybox", "touch", "/mnt/no"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    let single = format!("type=bind,source={},target=/etc/one,readonly", file.display());
    assert_eq!(
        host.rrun(&["run", "--rm", "--mount", &single, "busybox", "cat", "/etc/one"]).ok(),
        "from the host"
    );
    assert!(!shared.join("no").exists());
    let missing = format!("type=bind,source={}/missing,target=/x", shared.display());
    let error = host.rrun(&["run", "--rm", "--mount", &missing, "busybox", "true"]).fails(125);
    assert!(error.contains("does not exist"), "{error}");
    host.assert_empty();
    assert!(file.exists(), "removing a container removes nothing behind its mounts");
}

#[test]
fn privileged_a_read_only_root_has_writable_mounts() {
    let host = Host::new();
    let script = "touch /new 2>/dev/null && exit 1; touch /run/x /v/x /dev/shm/x && \
                  df -m /run | tail -n 1 | grep -q ' 1 '";
    host.rrun(&[
        "run",
        "--rm",
        "--read-only",
        "--tmpfs",
        "/run:size=1m",
        "-v",
        "/v",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    host.assert_empty();
}

#[test]
fn privileged_changes_stay_in_the_container() {
    let host = Host::new();
    host.rrun(&["run", "--rm", "busybox", "sh", "-c", "rm -r /data && echo x > /etc/passwd"]).ok();
    assert_eq!(host.rrun(&["run", "--rm", "busybox", "cat", "/data/seed"]).ok(), "from the image");
    assert!(host.rrun(&["run", "--rm", "busybox", "cat", "/etc/passwd"]).ok().starts_with("root:"));
}

#[test]
fn privileged_image_volumes_begin_with_the_images_files() {
    let host = Host::new();
    host.add_image("db", busybox_tar(), |config| {
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.volumes = ["/data", "/fresh"].map(str::to_owned).into();
    });
    host.rrun(&[
        "run",
        "-d",
        "--name",
        "one",
        "db",
        "sh",
        "-c",
        "echo more > /data/more; sleep 100",
    ])
    .ok();
    assert_eq!(host.rrun(&["exec", "one", "cat", "/data/seed"]).ok(), "from the image");
    assert_eq!(host.rrun(&["exec", "one", "stat", "-c", "%a %u", "/data"]).ok(), "755 0");
    assert_eq!(host.rrun(&["exec", "one", "ls", "/fresh"]).ok(), "");
    // Outside of the overlay, so it is written even to a read-only root.
    assert_eq!(
        host.rrun(&[
            "run",
            "--rm",
            "--read-only",
            "db",
            "sh",
            "-c",
            "echo x > /data/seed && cat /data/seed"
        ])
        .ok(),
        "x"
    );
    // Each container has its own.
    assert_eq!(host.rrun(&["run", "--rm", "db", "ls", "/data"]).ok(), "seed");
    host.rrun(&["rm", "-f", "one"]).ok();
    host.assert_empty();
}

#[test]
fn privileged_names_are_known_inside() {
    let host = Host::new();
    let run = |network: &str, script: &str| {
        host.rrun(&[
            "run",
            "--rm",
            "--network",
            network,
            "--hostname",
            "box",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok()
    };
    for network in ["host", "none"] {
        assert_eq!(run(network, "cat /etc/hostname"), "box");
        assert!(run(network, "cat /etc/hosts").contains("127.0.1.1\tbox"));
        assert!(run(network, "cat /etc/hosts").contains("localhost"));
    }
    assert_eq!(
        run("host", "cat /etc/resolv.conf"),
        fs::read_to_string("/etc/resolv.conf").unwrap_or_default().trim_end()
    );
    // Every user inside may read them, whoever made them.
    let mut command = Command::new("sh");
    let script = r#"umask 077; exec "$@" run --rm -u app busybox cat /etc/hosts /etc/hostname"#;
    let rrun = host.command();
    command.args(["-c", script, "sh"]).arg(rrun.get_program()).args(rrun.get_args());
    for (key, value) in rrun.get_envs() {
        command.env(key, value.unwrap());
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // They are the container's own: it may change them, and nobody sees it.
    let before = fs::read_to_string("/etc/hosts").unwrap();
    run("host", "echo 10.0.0.1 evil >> /etc/hosts");
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap(), before);
}
