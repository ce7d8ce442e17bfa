//! What must not work.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::json;

use crate::bundle::Bundle;

/// CVE-2019-5736: the runtime's program, reached through /proc/self/exe.
#[test]
fn privileged_the_runtime_cannot_be_overwritten() {
    let programs = ["rrun-oci", "rrun-init"].map(|name| {
        let oci = std::path::Path::new(env!("CARGO_BIN_EXE_rrun-oci"));
        oci.with_file_name(name)
    });
    let script = "for i in 1 2 3 4 5 6 7 8 9; do for p in /proc/[0-9]*; do \
                  (echo x >> $p/exe) 2>/dev/null && echo written $p; done; done; exec sleep 1000";
    let mut bundle = Bundle::new(script);
    bundle.run_program_as_itself();
    let before = programs.each_ref().map(|path| fs::read(path).unwrap());
    bundle.start();
    for _ in 0..30 {
        // Executes the interpreter of the script, which is the helper, if anything.
        bundle.command(&["exec", "c", "/data/self"]);
        bundle.command(&["exec", "c", "true"]).ok();
    }
    for (path, before) in programs.iter().zip(before) {
        assert!(fs::read(path).unwrap() == before, "{} was changed", path.display());
    }
}

impl Bundle {
    /// Adds `/data/self`, a script whose interpreter is /proc/self/exe.
    fn run_program_as_itself(&mut self) {
        let path = self.root("data/self");
        fs::write(&path, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// CVE-2024-21626: a working directory that is a descriptor of the runtime.
#[test]
fn privileged_the_working_directory_stays_inside() {
    let mut bundle = Bundle::new("ls ../../../../../../etc/hostname");
    for number in 3..32 {
        bundle.config["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        assert_ne!(bundle.run().code, 0, "descriptor {number}");
    }
    bundle.config["process"]["cwd"] = json!("/");
    bundle.config["process"]["args"] = json!(["sleep", "1000"]);
    bundle.start();
    for number in 3..32 {
        let cwd = format!("/proc/self/fd/{number}");
        assert_ne!(bundle.command(&["exec", "--cwd", &cwd, "c", "pwd"]).code, 0);
        assert_ne!(
            bundle.command(&["exec", "--cwd", &cwd.replace("self", "1"), "c", "pwd"]).code,
            0
        );
    }
}

/// CVE-2026-41579: an image with a link for /dev, /proc or /sys.
#[test]
fn privileged_links_for_top_directories_are_refused() {
    let bundle = Bundle::new("true");
    let canary = bundle.path("canary");
    fs::create_dir(&canary).unwrap();
    for name in ["dev", "proc", "sys"] {
        fs::remove_dir(bundle.root(name)).ok();
        symlink(&canary, bundle.root(name)).unwrap();
        let error = bundle.run().fails(1);
        assert!(error.contains(&format!("something else than a directory at /{name}")), "{error}");
        fs::remove_file(bundle.root(name)).unwrap();
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 0, "something was made through {name}");
    }
}

/// CVE-2025-31133: a link for the /dev/null that masks.
#[test]
fn privileged_a_mask_is_the_genuine_null() {
    let mut bundle = Bundle::new(
        "echo x > /proc/keys; stat -c %t:%T /proc/keys; cat /proc/keys | wc -c; stat -c %F /dev/null",
    );
    // The bundle has a /dev of its image.
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    fs::create_dir(bundle.root("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", bundle.root("dev/null")).unwrap();
    let error = bundle.run().fails(1);
    assert!(error.contains("cannot make /dev/null: File exists"), "{error}");
    fs::remove_file(bundle.root("dev/null")).unwrap();
    assert_eq!(bundle.run().ok(), "1:3\n0\ncharacter special file");
}

/// A target that leads out of the root through links leads to their place in it.
#[test]
fn privileged_targets_stay_inside() {
    let mut bundle = Bundle::new("cat /mnt/file");
    let canary = bundle.path("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(bundle.path("file"), "bound\n").unwrap();
    symlink(&canary, bundle.root("mnt")).unwrap();
    symlink("../../../../../..", bundle.root("up")).unwrap();
    bundle.push(
        "/mounts",
        json!({"destination": "/mnt/file", "source": bundle.path("file"), "options": ["bind"]}),
    );
    bundle.push("/mounts", json!({"destination": "/up/sub", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(bundle.run().ok(), "bound");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    assert!(bundle.root("sub").is_dir(), "above the root is the root");
}

/// CVE-2019-16884, CVE-2025-52881: something else at /proc.
#[test]
fn privileged_only_a_procfs_is_mounted_at_proc() {
    let mut bundle = Bundle::new("true");
    bundle.config["mounts"][0] =
        json!({"destination": "/proc", "source": bundle.path(""), "options": ["bind"]});
    assert!(bundle.run().fails(1).contains("must be a proc file system"));
    bundle.config["mounts"][0] = json!({"destination": "/proc", "type": "tmpfs"});
    assert!(bundle.run().fails(1).contains("must be a proc file system"));
    bundle.config["mounts"][0] = json!({"destination": "/proc", "type": "proc"});
    bundle.push("/mounts", json!({"destination": "/proc/self/attr", "type": "tmpfs"}));
    assert!(bundle.run().fails(1).contains("inside /proc"));
}

/// CVE-2016-9962: the process that enters cannot be looked into.
#[test]
fn privileged_an_entering_process_shows_nothing() {
    let script = "while :; do for p in /proc/[0-9]*; do case $p in /proc/1) ;; *) \
                  ls -l $p/fd 2>/dev/null | grep -e memfd -e rrun-init -e states && echo seen >> /data/seen;; \
                  esac; done; done";
    let mut bundle = Bundle::new(script);
    let all: Vec<String> = sandbox::CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect();
    bundle.config["process"]["capabilities"] = json!({"bounding": all});
    bundle.start();
    for _ in 0..20 {
        bundle.command(&["exec", "c", "true"]).ok();
    }
    assert!(
        !bundle.root("data/seen").exists(),
        "{:?}",
        fs::read_to_string(bundle.root("data/seen"))
    );
}
