//! A root file system made of busybox, and ways to run things in it.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use sandbox::{Exit, Result, Root, Sandboxed, Spec, Stdio, Stream};

/// A temporary root with Debian's static busybox in it.
pub(crate) struct Busybox {
    directory: tempfile::TempDir,
}

impl Busybox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("lower");
        for name in ["bin", "etc", "tmp", "proc", "dev", "sys", "root"] {
            fs::create_dir_all(root.join(name)).expect("a directory");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
        for name in [
            "sh", "true", "false", "cat", "ls", "id", "echo", "sleep", "env", "hostname", "mount",
            "ps", "mknod", "test", "dd", "kill", "pwd", "stat", "readlink", "touch", "wc", "head",
            "tr", "ip", "mkdir", "seq", "grep", "chmod", "rm", "stty", "tty", "ulimit",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("a link");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a mode");
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n",
        )
        .expect("a file");
        fs::write(root.join("etc/group"), "root:x:0:\nwww:x:33:\nmail:x:8:web\n").expect("a file");
        for name in ["upper", "work"] {
            fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        Self { directory }
    }

    /// Returns a path in the lower directory.
    pub(crate) fn lower(&self, path: &str) -> PathBuf {
        self.directory.path().join("lower").join(path)
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.directory.path().join("upper")
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn overlay(&self) -> Root {
        Root::Overlay {
            lowers: vec![self.lower("")],
            upper: Some(self.upper()),
            work: Some(self.directory.path().join("work")),
            readonly: false,
            volatile: false,
        }
    }

    /// Returns a spec that runs a command over a fresh overlay.
    pub(crate) fn spec(&self, args: &[&str]) -> Spec {
        let mut spec = Spec::new(self.overlay(), args.iter().map(ToString::to_string).collect());
        spec.process.env = vec!["PATH=/bin".into()];
        spec
    }

    /// Returns a spec that runs a line of shell.
    pub(crate) fn shell(&self, line: &str) -> Spec {
        self.spec(&["/bin/sh", "-c", line])
    }

    /// Runs a line of shell and returns what it printed.
    #[track_caller]
    pub(crate) fn output(&self, line: &str) -> String {
        let (exit, output) = run(&self.shell(line)).expect("it starts");
        assert_eq!(exit, Exit::Code(0), "{line}: {output}");
        output
    }
}

/// Runs a sandbox to its end; returns how it ended and all its output.
pub(crate) fn run(spec: &Spec) -> Result<(Exit, String)> {
    let (sandbox, mut reader) = start(spec)?;
    let mut output = Vec::new();
    reader.read_to_end(&mut output).expect("output");
    let exit = sandbox.wait()?;
    Ok((exit, String::from_utf8_lossy(&output).into_owned()))
}

/// Starts a sandbox; its output comes through the file.
pub(crate) fn start(spec: &Spec) -> Result<(Sandboxed, fs::File)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let errors = write.try_clone().expect("a copy");
    let stdio =
        Stdio { stdin: Stream::Null, stdout: Stream::Fd(write), stderr: Stream::Fd(errors) };
    Ok((sandbox::spawn(spec, stdio)?, fs::File::from(read)))
}
