//! A store of its own, and the programs that work on it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Output, clean, run, try_run};

/// A store of its own, with room for a test's files; removed with the value.
#[derive(Debug)]
pub struct World {
    dir: TempDir,
    /// The cgroups that others had made before.
    pub(crate) cgroups: BTreeSet<String>,
}

impl World {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        // Not in /tmp, which may be a tmpfs: overlayfs and sizes should be those of a real disk.
        Self {
            dir: TempDir::with_prefix_in("rbuild-e2e.", "/var/tmp").unwrap(),
            cgroups: clean::cgroups(),
        }
    }

    /// Makes a store that holds the `busybox` image.
    #[must_use]
    pub fn with_busybox() -> Self {
        let world = Self::new();
        world.rbuild(&["load", "-i", path_text(&Self::base("busybox"))]);
        world
    }

    /// Makes a store that holds `busybox` and `debian:bookworm-slim`.
    #[must_use]
    pub fn with_debian() -> Self {
        let world = Self::with_busybox();
        world.rbuild(&["load", "-i", path_text(&Self::base("debian:bookworm-slim"))]);
        world
    }

    /// The archive of a base image, saved once per run of the tests.
    fn base(image: &str) -> PathBuf {
        let shared = PathBuf::from(
            std::env::var("E2E_ROOT")
                .expect("`make test` sets E2E_ROOT to a store with the base images"),
        );
        let archive = shared.join(format!("{}.tar", image.replace(':', "-")));
        if !archive.exists() {
            let staged = shared.join(format!("{}.{}", image.replace(':', "-"), std::process::id()));
            run(Command::new(Self::program("rbuild"))
                .arg("--root")
                .arg(&shared)
                .args(["save", "-o"])
                .arg(&staged)
                .arg(image));
            fs::rename(staged, &archive).unwrap();
        }
        archive
    }

    /// The path of one of our programs.
    #[must_use]
    pub fn program(name: &str) -> PathBuf {
        let dir = std::env::var_os("RBUILD_BIN_DIR").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"),
            PathBuf::from,
        );
        let program = dir.join(name);
        assert!(program.exists(), "{} is missing: run `make build` first", program.display());
        program.canonicalize().unwrap()
    }

    /// A path among the test's own files.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The store.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    /// Writes a file among the test's own, with the directories it needs.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A command line of one of our programs on this store.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(Self::program(program));
        command.env("RBUILD_ROOT", self.root()).env("NO_COLOR", "1").args(args);
        // The machine's network stays as it is: networks have tests of their own.
        command.env("RRUN_NETWORK", "host");
        command
    }

    /// Runs `rbuild`, which must succeed.
    #[track_caller]
    pub fn rbuild(&self, args: &[&str]) -> Output {
        run(&mut self.command("rbuild", args))
    }

    /// Runs `rbuild`, whatever its exit code.
    pub fn try_rbuild(&self, args: &[&str]) -> Output {
        try_run(&mut self.command("rbuild", args))
    }

    /// Runs `rrun`, which must succeed.
    #[track_caller]
    pub fn rrun(&self, args: &[&str]) -> Output {
        run(&mut self.command("rrun", args))
    }

    /// Runs `rrun`, whatever its exit code.
    pub fn try_rrun(&self, args: &[&str]) -> Output {
        try_run(&mut self.command("rrun", args))
    }

    /// Builds a Dockerfile with a context of the named files, and returns the image id.
    #[track_caller]
    pub fn build(&self, tag: &str, dockerfile: &str, files: &[(&str, &str)]) -> String {
        let context = format!("context-{}", tag.replace(['/', ':'], "-"));
        self.write(&format!("{context}/Dockerfile"), dockerfile);
        for (name, content) in files {
            self.write(&format!("{context}/{name}"), content);
        }
        self.rbuild(&["-q", "-t", tag, path_text(&self.path(&context))]).text().to_owned()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}
