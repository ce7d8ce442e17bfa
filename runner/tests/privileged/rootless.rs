//! An ordinary user has containers too.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Host, Outcome, cgroups, finish, helper};

/// `nobody`, who has no subordinate ids on any system.
const NOBODY: u32 = 65534;

/// Gives everything in a tree to `nobody`; links themselves, not their targets.
fn give_away(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
    std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if !metadata.is_symlink() {
        // Changing the owner takes special bits away.
        fs::set_permissions(path, metadata.permissions()).unwrap();
    }
}

/// Copies the programs to where everybody can reach them.
fn programs(host: &Host) -> PathBuf {
    let dir = host.path("programs");
    fs::create_dir(&dir).unwrap();
    for (from, name) in [(Path::new(env!("CARGO_BIN_EXE_rrun")), "rrun"), (helper(), "rrun-init")] {
        fs::copy(from, dir.join(name)).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

#[test]
fn privileged_an_ordinary_user_has_containers_too() {
    let host = Host::new();
    let programs = programs(&host);
    give_away(&host.path(""));
    chown(host.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let rrun = |args: &[&str]| -> Outcome {
        let mut command = Command::new(programs.join("rrun"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", host.path(""))
            .env("RBUILD_ROOT", host.root())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        finish(command.spawn().unwrap())
    };
    let script = "id -u; ls /sys/class/net; touch /new && echo written; exit 4";
    let outcome =
        rrun(&["run", "--rm", "--network", "none", "-v", "/volume", "busybox", "sh", "-c", script]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "0\nlo\nwritten\n"), "{outcome:?}");
    let id = rrun(&["run", "-d", "--name", "box", "busybox", "sleep", "100"]).ok();
    assert_eq!(rrun(&["ps", "-q", "--no-trunc"]).ok(), id);
    assert_eq!(rrun(&["exec", "box", "id", "-u"]).ok(), "0");
    // Root inside is nobody outside.
    let pid = rrun(&["inspect", "--format", "{{.State.Pid}}", "box"]).ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}")), "{status}");
    rrun(&["rm", "-f", "box"]).ok();
    host.assert_empty();
    assert!(cgroups(&id).is_empty());
}
