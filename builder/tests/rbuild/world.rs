//! A store, a context, and the program to use them with.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The name under which tests build.
pub(crate) const NAME: &str = "test/image:latest";

/// One test's surroundings; everything goes with it.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

/// What a build did.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("context")).unwrap();
        Self { directory }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    /// Writes a file of the context with mode 0644, making directories of mode 0755.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(name);
        self.directories(path.parent().unwrap());
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    fn directories(&self, path: &Path) {
        if !path.exists() {
            self.directories(path.parent().unwrap());
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    pub(crate) fn link(&self, name: &str, target: &str) {
        symlink(target, self.context().join(name)).unwrap();
    }

    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        let path = self.context().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the program with this store, and nothing of the caller's that changes builds.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command
            .args(arguments)
            .env("RBUILD_ROOT", self.root())
            .env("HOME", self.directory.path())
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("DOCKER_CONFIG")
            .env_remove("BUILDKIT_PROGRESS")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Built {
        Built::of(self.command(arguments).output().unwrap())
    }

    /// Returns the command that builds this Dockerfile (outside of the context) as [`NAME`].
    pub(crate) fn build_command(&self, dockerfile: &str, arguments: &[&str]) -> Command {
        let file = self.directory.path().join("Dockerfile");
        fs::write(&file, dockerfile).unwrap();
        let mut command = self.command(&["-t", NAME, "-f"]);
        command.arg(file).args(arguments).arg(self.context());
        command
    }

    pub(crate) fn build_with(&self, dockerfile: &str, arguments: &[&str]) -> Built {
        Built::of(self.build_command(dockerfile, arguments).output().unwrap())
    }

    /// Builds with these names only.
    pub(crate) fn build_with_names(
        &self,
        dockerfile: &str,
        arguments: &[&str],
        names: &[&str],
    ) -> Built {
        let file = self.directory.path().join("Dockerfile");
        fs::write(&file, dockerfile).unwrap();
        let mut command = self.command(&["build"]);
        for name in names {
            command.args(["-t", name]);
        }
        command.arg("-f").arg(file).args(arguments).arg(self.context());
        Built::of(command.output().unwrap())
    }

    /// Builds and expects success.
    #[track_caller]
    pub(crate) fn build(&self, dockerfile: &str) -> Built {
        let built = self.build_with(dockerfile, &[]);
        assert_eq!(built.status, 0, "{dockerfile}\n{}", built.stderr);
        built
    }

    /// Builds and expects failure; returns what was said.
    #[track_caller]
    pub(crate) fn fail(&self, dockerfile: &str) -> String {
        let built = self.build_with(dockerfile, &[]);
        assert_eq!(built.status, 1, "{dockerfile}\n{}", built.stderr);
        built.stderr
    }

    pub(crate) fn inspect(&self) -> serde_json::Value {
        let inspected = self.run(&["inspect", NAME]);
        assert_eq!(inspected.status, 0, "{}", inspected.stderr);
        let document: serde_json::Value = serde_json::from_str(&inspected.stdout).unwrap();
        document[0].clone()
    }

    /// Returns the tars of the image's layers, bottom first.
    pub(crate) fn layers(&self) -> Vec<Vec<u8>> {
        let image = self.inspect();
        let layers = image["Layers"].as_array().unwrap();
        layers
            .iter()
            .map(|layer| {
                let digest = layer["digest"].as_str().unwrap();
                fs::read(self.root().join("blobs").join(digest.replace(':', "/"))).unwrap()
            })
            .collect()
    }

    /// Returns the files of the image: path to what is there, later layers on top.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for layer in self.layers() {
            for entry in tar::Archive::new(&layer[..]).entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                let header = entry.header().clone();
                let owner = match (header.uid().unwrap(), header.gid().unwrap()) {
                    (0, 0) => String::new(),
                    (uid, gid) => format!(" {uid}:{gid}"),
                };
                let mode = header.mode().unwrap();
                let what = match header.entry_type() {
                    tar::EntryType::Directory => "dir".to_owned(),
                    tar::EntryType::Symlink => {
                        format!("-> {}", entry.link_name().unwrap().unwrap().display())
                    }
                    tar::EntryType::Link => {
                        format!("= {}", entry.link_name().unwrap().unwrap().display())
                    }
                    tar::EntryType::Regular => {
                        let mut content = Vec::new();
                        entry.read_to_end(&mut content).unwrap();
                        format!("{:?}", String::from_utf8_lossy(&content))
                    }
                    other => format!("{other:?}"),
                };
                files.insert(path, format!("{mode:o}{owner} {what}"));
            }
        }
        files
    }

    /// Returns the files as lines.
    pub(crate) fn listing(&self) -> String {
        self.files().into_iter().map(|(path, what)| format!("{path} {what}\n")).collect()
    }
}

impl Built {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns how many steps were reused and how many ran.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let line = self.stderr.lines().rev().find(|line| line.starts_with("built ")).unwrap();
        let numbers = line.split_once('(').unwrap().1;
        let (reused, rest) = numbers.split_once(" steps reused, ").unwrap();
        let (run, _) = rest.split_once(" run").unwrap();
        (reused.parse().unwrap(), run.parse().unwrap())
    }
}
