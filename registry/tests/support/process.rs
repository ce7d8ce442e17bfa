//! The real program as a child process.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running `rregistry serve`; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) url: String,
}

impl Process {
    /// Serves a directory, with a quiet log.
    pub(crate) fn start(root: &Path) -> Self {
        let quiet = ["--no-access-log", "--log=warn", "--root"].map(OsStr::new);
        Self::with(quiet.into_iter().chain([root.as_os_str()]), Stdio::inherit())
    }

    /// Serves on a free port, with these arguments.
    pub(crate) fn with<'a>(arguments: impl IntoIterator<Item = &'a OsStr>, log: Stdio) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rregistry"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().split(',').next().unwrap();
        Self { child, url: format!("http://{address}") }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}
