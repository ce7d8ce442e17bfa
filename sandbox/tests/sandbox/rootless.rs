//! An ordinary user's sandboxes.
//!
//! Entering a user namespace takes a process with a single thread and another
//! user, so these tests start the example program as that user.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::Busybox;

/// Runs a line of shell in a sandbox as a user; returns all output.
fn run_as(uid: u32, busybox: &Busybox, network: &str, user: &str, line: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        // By another process: a copy open for writing here would be inherited
        // by what other tests start meanwhile, and keep it from being executed.
        assert!(Command::new("cp").arg(from).arg(&to).status().unwrap().success());
        to
    };
    let own_program = std::env::current_exe().unwrap();
    let examples = own_program.parent().unwrap().parent().unwrap().join("examples");
    let program = copy(&examples.join("rootless"), "rootless");
    let helper = copy(Path::new(env!("CARGO_BIN_EXE_rrun-init")), "rrun-init");
    own(busybox.path(), uid);
    let runtime = directory.path().join("run");
    fs::create_dir(&runtime).unwrap();
    own(&runtime, uid);
    let Output { stdout, stderr, .. } = Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()])
        .arg(&program)
        .arg(busybox.path())
        .args([network, user, "/bin/sh", "-c", line])
        .env("RRUN_INIT", &helper)
        .env("XDG_RUNTIME_DIR", &runtime)
        .current_dir("/")
        .output()
        .unwrap();
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

fn own(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), uid);
        }
    }
}

/// A user of the machine with subordinate ids, removed at the end.
struct User(String);

impl User {
    fn add() -> Self {
        let name = format!("sbxtest{}", std::process::id());
        let status = Command::new("useradd")
            .args(["--no-create-home", "--shell", "/bin/sh", &name])
            .status()
            .unwrap();
        assert!(status.success(), "useradd");
        Self(name)
    }

    fn uid(&self) -> u32 {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with(&format!("{}:", self.0))).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        Command::new("userdel").arg(&self.0).stderr(Stdio::null()).status().ok();
    }
}

const LINE: &str = "id -u; cat /proc/self/uid_map | wc -l; echo x > /dev/null && echo null; ls -d /dev/pts/ptmx; \
                    ls /sys/kernel > /dev/null && hostname; echo made > /file; exit 7";

#[test]
fn privileged_a_user_with_subordinate_ids_has_many_ids() {
    let user = User::add();
    let uid = user.uid();
    let busybox = Busybox::new();
    let expected = "mapped\n0\n2\nnull\n/dev/pts/ptmx\ninside\nexit status 7\n";
    assert_eq!(run_as(uid, &busybox, "none", "", LINE), expected);
    assert_eq!(run_as(uid, &busybox, "host", "", LINE), expected);
    assert_eq!(run_as(uid, &busybox, "join", "", LINE), expected);
    assert_eq!(fs::metadata(busybox.upper().join("file")).unwrap().uid(), uid);
    let other = run_as(uid, &busybox, "none", "web", "id -u; id -G; echo mine > /tmp/mine");
    assert_eq!(other, "mapped\n33\n33 8\nexit status 0\n");
}

#[test]
fn privileged_a_user_without_subordinate_ids_has_one() {
    let busybox = Busybox::new();
    let expected = "single\n0\n1\nnull\n/dev/pts/ptmx\ninside\nexit status 7\n";
    assert_eq!(run_as(54_321, &busybox, "none", "", LINE), expected);
    let other = run_as(54_321, &busybox, "none", "web", "true");
    assert!(other.contains("not mapped") && other.contains("/etc/subuid"), "{other}");
}
