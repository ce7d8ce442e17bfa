//! RUN: a process in a sandbox, whose changes become a layer.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sandbox::{Exit, Mount, MountKind, Network, Process, Root, Spec, Stdio};
use store::Lease;

use super::cancel::Cancel;
use crate::dockerfile::{self, RunNetwork};
use crate::error::{Error, IoContext as _, Result};
use crate::event::{Event, Sink, Stream};
use crate::plan::Run;

/// The host name of every build sandbox, as BuildKit has it.
const HOSTNAME: &str = "buildkitsandbox";
/// Lines of output that a failure shows; all of it is in the log file.
const TAIL_LINES: usize = 20;
/// A line is cut into pieces of this size, so that a process that never ends one does not
/// fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

const HOSTS: &str = "127.0.0.1\tlocalhost buildkitsandbox\n\
                     ::1\tlocalhost ip6-localhost ip6-loopback\n";

/// The files and directories that every RUN of a build has in common.
#[derive(Debug)]
pub(super) struct Common {
    /// A directory with nothing but mount points. As the lowest of all layers it makes
    /// them exist everywhere, so that making them leaves no trace in the layer.
    stubs: PathBuf,
    hosts: PathBuf,
    resolv_conf: PathBuf,
    directory: PathBuf,
}

impl Common {
    /// Writes them into the lease's scratch space.
    pub(super) fn create(lease: &Lease) -> Result<Self> {
        let directory = lease.scratch("sandbox")?;
        let stubs = directory.join("stubs");
        for name in ["etc", "proc", "dev", "sys"] {
            let path = stubs.join(name);
            fs::create_dir_all(&path).doing("create", &path)?;
        }
        for path in [stubs.clone(), directory.clone()] {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).doing("change", &path)?;
        }
        for name in ["etc/hosts", "etc/resolv.conf"] {
            let path = stubs.join(name);
            fs::write(&path, "").doing("write", &path)?;
        }
        let hosts = directory.join("hosts");
        fs::write(&hosts, HOSTS).doing("write", &hosts)?;
        let resolv_conf = directory.join("resolv.conf");
        // A machine without a name server is one without; the build may not need any.
        let servers = fs::read("/etc/resolv.conf").unwrap_or_default();
        fs::write(&resolv_conf, servers).doing("write", &resolv_conf)?;
        for path in [&hosts, &resolv_conf] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).doing("change", path)?;
        }
        Ok(Self { stubs, hosts, resolv_conf, directory })
    }
}

/// Where a RUN happens.
pub(super) struct Place<'a> {
    pub(super) common: &'a Common,
    /// The directories of the root, topmost first.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    /// Where the whole output is kept.
    pub(super) log: PathBuf,
    /// Where cache mounts live.
    pub(super) caches: PathBuf,
    pub(super) step: usize,
}

/// Runs the process to its end; returns the mount points it had to make in `upper`.
///
/// # Errors
/// Returns [`Error::Process`] when it fails, with the end of its output, and
/// [`Error::Cancelled`] when the build was stopped meanwhile.
pub(super) fn execute(
    run: &Run,
    place: &Place<'_>,
    cancel: &Cancel,
    events: Sink<'_>,
) -> Result<()> {
    cancel.check()?;
    let spec = spec(run, place)?;
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let stdio = Stdio {
        stdin: sandbox::Stream::Null,
        stdout: sandbox::Stream::Fd(out_write),
        stderr: sandbox::Stream::Fd(err_write),
    };
    let started = sandbox::spawn(&spec, stdio)?;
    for warning in started.warnings() {
        events(Event::Warning { step: Some(place.step), message: warning.clone() });
    }
    let killer = started.killer();
    let guard = cancel.on_stop(move || killer.kill());
    let log = Log::create(&place.log)?;
    let exit = std::thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || read_lines(out_read, Stream::Stdout, place.step, log, events));
        scope.spawn(move || read_lines(err_read, Stream::Stderr, place.step, log, events));
        started.wait()
    })?;
    drop(guard);
    if exit != Exit::Code(0) {
        cancel.check()?;
        let command = run.args.join(" ");
        return Err(failure(command, exit, started.oom_killed(), log, &place.log));
    }
    sandbox::stubs::remove(&place.upper, started.stubs())?;
    Ok(())
}

fn spec(run: &Run, place: &Place<'_>) -> Result<Spec> {
    let mut lowers = place.lowers.clone();
    lowers.push(place.common.stubs.clone());
    let root = Root::Overlay {
        lowers,
        upper: Some(place.upper.clone()),
        work: Some(place.work.clone()),
        readonly: false,
        volatile: true,
    };
    let read_only = |source: &Path, target: &str| Mount {
        target: PathBuf::from(target),
        kind: MountKind::Bind { source: source.to_owned(), readonly: true, recursive: false },
    };
    let mut mounts = vec![
        read_only(&place.common.hosts, "/etc/hosts"),
        read_only(&place.common.resolv_conf, "/etc/resolv.conf"),
    ];
    if let Some((name, content)) = &run.script {
        let path = place.common.directory.join(format!("script-{}", place.step));
        fs::write(&path, content).doing("write", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).doing("change", &path)?;
        mounts.push(read_only(&path, &format!("/dev/pipes/{name}")));
    }
    for mount in &run.mounts {
        let kind = match &mount.kind {
            dockerfile::MountKind::Tmpfs { size_bytes } => MountKind::Tmpfs {
                size_bytes: *size_bytes,
                mode: 0o1777,
                readonly: mount.read_only,
            },
            dockerfile::MountKind::Cache { id, owner, .. } => MountKind::Bind {
                source: cache(&place.caches, id, *owner)?,
                readonly: mount.read_only,
                recursive: false,
            },
            dockerfile::MountKind::Bind { .. }
            | dockerfile::MountKind::Secret { .. }
            | dockerfile::MountKind::Ssh { .. } => {
                return Err(Error::Unsupported { what: "this kind of --mount".to_owned() });
            }
        };
        mounts.push(Mount { target: PathBuf::from(&mount.target), kind });
    }
    let env = run.env.iter().chain(&run.hidden_env).cloned().collect();
    Ok(Spec {
        mounts,
        network: match run.network {
            RunNetwork::Default | RunNetwork::Host => Network::Host,
            RunNetwork::None => Network::None,
        },
        hostname: Some(HOSTNAME.to_owned()),
        process: Process {
            env,
            cwd: PathBuf::from(&run.cwd),
            user: run.user.clone(),
            args: run.args.clone(),
            ..Process::default()
        },
        ..Spec::new(root, Vec::new())
    })
}

/// Returns the directory of a cache mount, made on first use.
fn cache(caches: &Path, id: &str, owner: dockerfile::FileOwner) -> Result<PathBuf> {
    let path = caches.join(oci::Digest::sha256(id.as_bytes()).hex());
    if !path.exists() {
        fs::create_dir_all(&path).doing("create", &path)?;
        let mode = fs::Permissions::from_mode(owner.mode.unwrap_or(0o755));
        fs::set_permissions(&path, mode).doing("change", &path)?;
        let (uid, gid) = (owner.uid.unwrap_or(0), owner.gid.unwrap_or(0));
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))
            .doing("change the owner of", &path)?;
    }
    Ok(path)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .doing("create a pipe for", Path::new("the output of RUN"))
}

fn failure(command: String, exit: Exit, oom: bool, log: Log, path: &Path) -> Error {
    let code = match exit {
        Exit::Code(code) => Some(code),
        Exit::Signal(_) => None,
    };
    let mut text = format!("exit code: {}", exit.status());
    if oom {
        text.push_str(" (out of memory)");
    }
    let inner = log.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tail = inner.tail.into_iter().collect();
    Error::Process { command, exit: text, code, tail, log: path.to_owned() }
}

/// The output of one process: all of it on disk, the end in memory.
struct Log {
    inner: Mutex<LogInner>,
}

struct LogInner {
    file: File,
    tail: VecDeque<String>,
}

impl Log {
    fn create(path: &Path) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).doing("create", directory)?;
        // A new file instead of a truncated one: another build may be writing the old.
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).doing("replace", path);
            }
            _ => {}
        }
        let file = File::create(path).doing("create", path)?;
        Ok(Self { inner: Mutex::new(LogInner { file, tail: VecDeque::new() }) })
    }

    fn line(&self, line: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(inner.file, "{line}") {
            // A full disk ends the build where it matters, not because of a log.
            tracing::debug!(%error, "a line of the log is lost");
        }
        if inner.tail.len() == TAIL_LINES {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line.to_owned());
    }
}

/// Reads a stream to its end, line by line.
fn read_lines(from: OwnedFd, stream: Stream, step: usize, log: &Log, events: Sink<'_>) {
    let mut from = File::from(from);
    let mut buffer = [0; 16 * 1024];
    let mut pending: Vec<u8> = Vec::new();
    let emit = |bytes: &[u8]| {
        let line = String::from_utf8_lossy(bytes);
        let line = line.strip_suffix('\r').unwrap_or(&line).to_owned();
        log.line(&line);
        events(Event::Log { step, stream, line });
    };
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    pending.extend_from_slice(end);
                    emit(&pending);
                    pending.clear();
                }
                None => pending.extend_from_slice(piece),
            }
            if pending.len() >= MAX_LINE_BYTES {
                emit(&pending);
                pending.clear();
            }
        }
    }
    if !pending.is_empty() {
        emit(&pending);
    }
}
