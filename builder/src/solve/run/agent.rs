//! SSH agents: forwarding the user's agent into a step, and nothing but its signatures.
//!
//! ```text
//! process in the sandbox ──► socket in the step's scratch space ──► filter ──► the agent
//! ```
//!
//! The filter lets a step list the keys and have something signed. Adding and removing keys,
//! locking the agent and its extensions are refused, as BuildKit does: what runs in a step
//! must not change what the user's agent holds.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use store::Lease;

use crate::dockerfile::FileOwner;
use crate::error::{Error, IoContext as _, Result};

/// The longest message of the agent protocol that OpenSSH takes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// How many connections one step may have at once.
const MAX_CONNECTIONS: usize = 64;
/// What a request that is not forwarded is answered: `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENTC_SIGN_REQUEST`.
const ALLOWED: [u8; 2] = [11, 13];
const SOCKET: &str = "agent";

/// The agents that the user gave, by id.
#[derive(Clone, Debug, Default)]
pub struct Agents(BTreeMap<String, AgentSource>);

/// Where an agent's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentSource {
    /// In the agent that listens at this socket.
    Socket(PathBuf),
    /// In these files, for which an agent is started.
    Keys(Vec<PathBuf>),
}

impl Agents {
    /// Adds one; a later one of the same id wins.
    pub fn insert(&mut self, id: &str, source: AgentSource) {
        self.0.insert(id.to_owned(), source);
    }
}

/// The agents that a build has started for key files.
#[derive(Debug, Default)]
pub(super) struct Started(Mutex<BTreeMap<String, Arc<Agent>>>);

/// An `ssh-agent` of our own, which ends with this process however that ends.
#[derive(Debug)]
struct Agent {
    socket: PathBuf,
    /// The program that the agent looks after.
    child: Child,
    pid: Option<Pid>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It would end a few seconds after the program, too.
        if let Some(pid) = self.pid {
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}

impl Started {
    /// Returns the socket of an agent, or `None` when the user did not give it.
    pub(super) fn socket(
        &self,
        agents: &Agents,
        id: &str,
        lease: &Lease,
    ) -> Result<Option<PathBuf>> {
        let keys = match agents.0.get(id) {
            None => return Ok(None),
            Some(AgentSource::Socket(path)) => return Ok(Some(path.clone())),
            Some(AgentSource::Keys(keys)) => keys,
        };
        let mut started = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = started.get(id) {
            return Ok(Some(agent.socket.clone()));
        }
        let directory = lease.scratch("agent")?;
        let agent = start(&directory, keys)
            .map_err(|reason| Error::Instruction(format!("--ssh {id}: {reason}")))?;
        let socket = agent.socket.clone();
        started.insert(id.to_owned(), Arc::new(agent));
        Ok(Some(socket))
    }
}

/// Starts an agent that holds the keys.
fn start(directory: &Path, keys: &[PathBuf]) -> Result<Agent, String> {
    let socket = directory.join(SOCKET);
    let missing = |error: io::Error, program: &str| match error.kind() {
        io::ErrorKind::NotFound => {
            format!(
                "key files need OpenSSH's {program}, which is not installed (an agent's socket does not)"
            )
        }
        _ => format!("cannot start {program}: {error}"),
    };
    // The agent stays as long as the program it starts, and that as long as its input is
    // open: when this process is killed, all of them end.
    let mut child = Command::new("ssh-agent")
        .args(["-a", SOCKET, "sh", "-c", "echo $SSH_AGENT_PID; exec cat > /dev/null"])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| missing(error, "ssh-agent"))?;
    // By the time it has started the program, it listens.
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output.take(32)).read_line(&mut said).ok();
    }
    let pid = said.trim().parse().ok().and_then(Pid::from_raw);
    let agent = Agent { socket, child, pid };
    if pid.is_none() {
        return Err("ssh-agent did not start".to_owned());
    }
    for key in keys {
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &agent.socket)
            // There is nobody to ask for a passphrase.
            .env("SSH_ASKPASS_REQUIRE", "never")
            .env_remove("DISPLAY")
            .process_group(0)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| missing(error, "ssh-add"))?;
        if !added.status.success() {
            let said = String::from_utf8_lossy(&added.stderr);
            let said = said.lines().last().unwrap_or("ssh-add failed");
            return Err(format!("cannot use the key {}: {said}", key.display()));
        }
    }
    Ok(agent)
}

/// A socket for one step that leads to an agent.
#[derive(Debug)]
pub(super) struct Forward {
    /// The socket, to be mounted.
    pub(super) path: PathBuf,
    listener: UnixListener,
    agent: PathBuf,
}

impl Forward {
    /// Makes the socket in `directory`, which is the step's own.
    pub(super) fn create(directory: &Path, agent: PathBuf, owner: FileOwner) -> Result<Self> {
        let path = directory.join(SOCKET);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty()).doing("open", directory)?;
        // The address of a socket is short, the path of a store may be long.
        let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
        let listener = UnixListener::bind(short).doing("listen at", &path)?;
        listener.set_nonblocking(true).doing("listen at", &path)?;
        let FileOwner { mode, uid, gid } = owner;
        std::os::unix::fs::chown(&path, Some(uid.unwrap_or(0)), Some(gid.unwrap_or(0)))
            .doing("change the owner of", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode.unwrap_or(0o600)))
            .doing("change the mode of", &path)?;
        Ok(Self { path, listener, agent })
    }

    /// Serves connections until `stop` can be read (or is hung up).
    pub(super) fn serve(&self, stop: BorrowedFd<'_>) {
        let open = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            while wait(&[self.listener.as_fd(), stop]) == Some(0) {
                let Ok((client, _)) = self.listener.accept() else { continue };
                if open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                    open.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let open = &open;
                scope.spawn(move || {
                    if let Err(error) = self.relay(client, stop) {
                        tracing::debug!(%error, "a connection to the agent ended");
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
    }

    fn relay(&self, mut client: UnixStream, stop: BorrowedFd<'_>) -> io::Result<()> {
        client.set_nonblocking(false)?;
        let mut agent = UnixStream::connect(&self.agent)?;
        while let Some(request) = message(&mut client, stop)? {
            let kind = request.get(4).copied().unwrap_or(0);
            if !ALLOWED.contains(&kind) {
                client.write_all(&FAILURE)?;
                continue;
            }
            agent.write_all(&request)?;
            let Some(answer) = message(&mut agent, stop)? else { return Ok(()) };
            client.write_all(&answer)?;
        }
        Ok(())
    }
}

/// Reads one message with its length; `None` at the end, and when it is time to stop.
fn message(from: &mut UnixStream, stop: BorrowedFd<'_>) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; 4];
    let mut filled = 0;
    loop {
        if filled == message.len() {
            if filled > 4 {
                return Ok(Some(message));
            }
            let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length == 0 || length > MAX_MESSAGE_BYTES {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            message.resize(4 + length, 0);
        }
        if wait(&[from.as_fd(), stop]) != Some(0) {
            return Ok(None);
        }
        match from.read(&mut message[filled..]) {
            Ok(0) => return Ok(None),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for one of the descriptors; returns which, the last one first.
fn wait(descriptors: &[BorrowedFd<'_>]) -> Option<usize> {
    let mut polled: Vec<PollFd<'_>> =
        descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    loop {
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
            Ok(_) => return polled.iter().rposition(|fd| !fd.revents().is_empty()),
        }
    }
}

/// Ends what serves a step when it is dropped.
pub(super) fn stopper() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .doing("create a pipe for", Path::new("the agent of RUN"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that answers a list of no keys and says what it was asked.
    fn agent(directory: &Path) -> (PathBuf, std::sync::mpsc::Receiver<u8>) {
        let path = directory.join("real");
        let listener = UnixListener::bind(&path).unwrap();
        let (say, asked) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let mut request = [0; 5];
                while client.read_exact(&mut request).is_ok() {
                    say.send(request[4]).unwrap();
                    client.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
                }
            }
        });
        (path, asked)
    }

    fn ask(socket: &Path, kind: u8) -> Vec<u8> {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&[0, 0, 0, 1, kind]).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        answer
    }

    #[test]
    fn keys_are_listed_and_used_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (path, asked) = agent(directory.path());
        let step = directory.path().join("step");
        fs::create_dir(&step).unwrap();
        let own = FileOwner { mode: Some(0o640), uid: Some(0), gid: None };
        let Ok(forward) = Forward::create(&step, path, own) else {
            // An ordinary user owns no file of another's.
            return;
        };
        assert_eq!(fs::metadata(&forward.path).unwrap().permissions().mode() & 0o777, 0o640);
        let (stopped, stop) = stopper().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| forward.serve(stopped.as_fd()));
            assert_eq!(ask(&forward.path, 11), [12, 0, 0, 0, 0]);
            assert_eq!(asked.recv().unwrap(), 11);
            assert_eq!(ask(&forward.path, 13)[0], 12);
            assert_eq!(asked.recv().unwrap(), 13);
            // Add, remove one, remove all, lock, unlock, add with constraints, extension.
            for kind in [17, 18, 19, 22, 23, 25, 27, 0, 255] {
                assert_eq!(ask(&forward.path, kind), [5], "{kind}");
            }
            let idle = UnixStream::connect(&forward.path).unwrap();
            let mut huge = UnixStream::connect(&forward.path).unwrap();
            huge.write_all(&[0xff; 4]).unwrap();
            assert_eq!(huge.read(&mut [0; 1]).unwrap(), 0, "it is hung up on");
            drop(stop);
            drop(idle);
        });
        assert!(asked.try_recv().is_err(), "the agent heard of nothing else");
    }

    #[test]
    fn keys_in_files_need_an_agent_that_ends_with_the_build() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "comment", "-f"])
            .arg(&key)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return;
        }
        let agent = start(directory.path(), std::slice::from_ref(&key)).unwrap();
        assert_ne!(ask(&agent.socket, 11), [12, 0, 0, 0, 0], "it has a key");
        let socket = agent.socket.clone();
        drop(agent);
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while UnixStream::connect(&socket).is_ok() {
            assert!(std::time::Instant::now() < limit, "it is still there");
        }
        let other = tempfile::tempdir().unwrap();
        let missing = start(other.path(), &["/no/such/key".into()]).unwrap_err();
        assert!(missing.contains("/no/such/key"), "{missing}");
    }
}
