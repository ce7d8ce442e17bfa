//! An ordinary user has bundles, too.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, Outcome, helper, run};

/// `nobody`, who has no subordinate ids on any system.
const NOBODY: u32 = 65534;

/// Gives everything in a tree to `nobody`.
fn give_away(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

#[test]
fn privileged_an_ordinary_user_runs_bundles() {
    let bundle = Bundle::new("");
    let programs = bundle.path("programs");
    fs::create_dir(&programs).unwrap();
    for (from, name) in
        [(Path::new(env!("CARGO_BIN_EXE_rrun-oci")), "rrun-oci"), (&helper(), "rrun-init")]
    {
        fs::copy(from, programs.join(name)).unwrap();
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let file = bundle.path("bundle/config.json");
    fs::remove_file(&file).unwrap();
    give_away(&bundle.path(""));
    let oci = |args: &[&str]| -> Outcome {
        let mut command = Command::new(programs.join("rrun-oci"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("XDG_RUNTIME_DIR", bundle.path(""))
            .current_dir(bundle.path("bundle"))
            .uid(NOBODY)
            .gid(NOBODY)
            .args(args)
            .stdin(Stdio::null());
        run(&mut command)
    };
    oci(&["spec", "--rootless"]).ok();
    let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], NOBODY);
    config["process"]["terminal"] = json!(false);
    config["root"]["readonly"] = json!(false);
    let mut with = |args: Value| {
        config["process"]["args"] = args;
        fs::write(&file, config.to_string()).unwrap();
    };
    with(json!(["sh", "-c", "id; cat /proc/self/uid_map; touch /data/new; exit 6"]));
    let outcome = oci(&["run", "c"]);
    assert_eq!(outcome.code, 6, "{outcome:?}");
    let words: Vec<&str> = outcome.stdout.split_whitespace().collect();
    assert_eq!(words, ["uid=0(root)", "gid=0", "0", "0", "1"]);
    let made = fs::metadata(bundle.root("data/new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), NOBODY);

    with(json!(["sleep", "1000"]));
    oci(&["create", "c"]).ok();
    oci(&["start", "c"]).ok();
    let state: Value = serde_json::from_str(&oci(&["state", "c"]).ok()).unwrap();
    assert_eq!(state["status"], "running");
    assert!(bundle.path("rrun-oci/c").is_dir(), "states are the user's own");
    assert_eq!(oci(&["exec", "c", "id", "-u"]).ok(), "0");
    oci(&["delete", "--force", "c"]).ok();
    assert_eq!(oci(&["list", "--quiet"]).ok(), "");

    config["linux"]["uidMappings"][0]["hostID"] = json!(0);
    fs::write(&file, config.to_string()).unwrap();
    let error = oci(&["run", "c"]).fails(1);
    assert!(error.contains("the ids 0 to 0 of the host are not this user's"), "{error}");
}
