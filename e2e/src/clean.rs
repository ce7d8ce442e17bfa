//! What must be gone after the programs ended, however they ended.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{World, wait_until};

/// The directories of a store whose content is garbage once nothing is in use.
const EMPTIED: [&str; 8] = [
    "blobs/sha256",
    "ingest",
    "images",
    "layers/sha256",
    "chains/sha256",
    "steps/sha256",
    "containers",
    "leases",
];

impl World {
    /// Removes every image and checks that nothing at all is left: no process, mount or cgroup, and no file in the store.
    #[track_caller]
    pub fn assert_leaves_nothing(&self) {
        self.rrun(&["ps", "-a"]);
        for image in self.rbuild(&["images", "-q"]).text().lines() {
            self.try_rbuild(&["rmi", "-f", image]);
        }
        self.rbuild(&["prune", "--all", "--force"]);
        self.assert_nothing_runs();
        for name in EMPTIED {
            let left = entries(&self.root().join(name));
            assert!(left.is_empty(), "{name} still holds {left:?}");
        }
    }

    /// Checks that no process, mount or cgroup of this store is left.
    #[track_caller]
    pub fn assert_nothing_runs(&self) {
        let root = self.root().canonicalize().unwrap();
        let root = root.to_str().unwrap();
        wait_until("the last process to end", || processes_below(root).is_empty().then_some(()));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(root), "mounts are left: {mounts}");
        // What comes and goes meanwhile is somebody else's.
        let mut left: BTreeSet<_> = cgroups().difference(&self.cgroups).cloned().collect();
        let what = format!("the cgroups {left:?} to be removed");
        wait_until(&what, || {
            left = left.intersection(&cgroups()).cloned().collect();
            left.is_empty().then_some(())
        });
    }
}

/// The cgroups of our programs on every hierarchy.
pub(crate) fn cgroups() -> BTreeSet<String> {
    let named = ["-type", "d", "(", "-name", "rrun-*", "-o", "-name", "rbuild-*", ")"];
    let found = Command::new("find").arg("/sys/fs/cgroup").args(named).output().unwrap();
    String::from_utf8_lossy(&found.stdout).lines().map(String::from).collect()
}

/// Process ids whose command line, working directory or mounts name `root`.
fn processes_below(root: &str) -> Vec<String> {
    let me = std::process::id().to_string();
    entries(Path::new("/proc"))
        .into_iter()
        .filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && *pid != me)
        .filter(|pid| {
            let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let names = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).contains(root);
            names(read("cmdline")) || names(read("mountinfo"))
        })
        .collect()
}

fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
