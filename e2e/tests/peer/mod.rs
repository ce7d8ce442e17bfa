//! podman with its state among the test's files, and how a tree is listed.

use std::process::Command;

use e2e::{Output, World, run};

/// podman with its own storage.
#[derive(Debug)]
pub(crate) struct Podman {
    root: String,
    runroot: String,
    config: String,
}

impl Podman {
    /// Prepares podman to work below the world's files.
    pub(crate) fn new(world: &World) -> Self {
        // Limits that podman would raise by default cannot be raised on every host; the ones that are stay.
        let config = world.write(
            "containers.conf",
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n",
        );
        let text = |name: &str| world.path(name).to_str().unwrap().to_owned();
        Self {
            root: text("podman-root"),
            runroot: text("podman-run"),
            config: config.to_str().unwrap().to_owned(),
        }
    }

    /// Runs a podman command, which must succeed.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run(Command::new("podman")
            .env("CONTAINERS_CONF", &self.config)
            .args(["--root", &self.root, "--runroot", &self.runroot, "--storage-driver", "vfs"])
            .args(args))
    }
}

/// Lists a tree from inside a container: type, mode, owner, links, path and target of every entry, in order.
/// The link count of a directory is left out: overlayfs does not count.
pub(crate) fn listing(world: &World, image_and_options: &[&str], root: &str) -> String {
    // The files that the engine puts into a container, and the mounts, are not the image's.
    let script = format!(
        "cd {root} && find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' ! -path './unpacked*' \
         ! -path ./etc/hosts ! -path ./etc/hostname ! -path ./etc/resolv.conf ! -path ./dev ! -path ./proc ! -path ./sys ! -path . \
         -exec stat -c '%F %a %u:%g %h %N' {{}} + | sed 's/^\\(directory [^ ]* [^ ]*\\) [0-9]*/\\1 -/' | sort"
    );
    let (image, options) = image_and_options.split_last().unwrap();
    let mut args = vec!["run", "--rm"];
    args.extend(options);
    args.extend([*image, "sh", "-c", &script]);
    world.rrun(&args).stdout
}
