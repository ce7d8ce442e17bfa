//! Processes as the kernel knows them: a pid together with the moment it was
//! given out, so that a number used again is not mistaken for its old owner.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::{Error, IoContext as _, Result};
use super::options::Signal;

/// The largest `/proc/<pid>/…` text that is read.
const MAX_STATUS_BYTES: usize = 64 << 10;

/// A process that was alive when it was looked up, held by a descriptor: a
/// signal sent through it can never hit another process.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Process {
    /// Looks up the process with this pid and start time; `None` if it has
    /// ended, be it that its parent has not collected it yet.
    pub fn find(pid: i32, start_time: u64) -> Option<Self> {
        let pid = Pid::from_raw(pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after the descriptor is open: if the times agree now, then the
        // descriptor is of that very process.
        let stat = stat(pid.as_raw_nonzero().get()).ok()?;
        (stat.start_time == start_time && !matches!(stat.state, 'Z' | 'X'))
            .then_some(Self { pid, pidfd })
    }

    /// Returns its pid.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal; a process that has just ended is no error.
    ///
    /// # Errors
    ///
    /// When the caller may not signal it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match sandbox::send_signal(self.pidfd.as_fd(), signal.number()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ESRCH) => {
                Err(error).trying("signal the container")
            }
            _ => Ok(()),
        }
    }

    /// Waits until it ends; `false` when `timeout` passes first.
    ///
    /// # Errors
    ///
    /// When waiting fails.
    pub fn wait_ended(&self, timeout: Option<Duration>) -> Result<bool> {
        let timeout = timeout
            .map(Timespec::try_from)
            .transpose()
            .map_err(|_| Error::Invalid { what: "the waiting time is too long".to_owned() })?;
        loop {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => return Ok(ready > 0),
                // No handler of ours asks for more than to go on.
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).trying("wait for the container"),
            }
        }
    }

    /// Tells whether the process has said what to do on `signal`. If it has
    /// not, a container's first process never hears of it: the kernel protects
    /// the init of a pid namespace from signals it has no handler for.
    pub fn hears(&self, signal: Signal) -> bool {
        hears(self.pid(), signal)
    }
}

/// See [`Process::hears`].
pub(crate) fn hears(pid: i32, signal: Signal) -> bool {
    let path = format!("/proc/{pid}/status");
    let Ok(text) = read_limited(Path::new(&path)) else { return false };
    let bit = 1_u64 << (signal.number() - 1);
    let mask = |field: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(field))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0)
    };
    // Blocked counts as heard: such a program takes its signals with sigwait.
    (mask("SigCgt:") | mask("SigIgn:") | mask("SigBlk:")) & bit != 0
}

/// The fields of `/proc/<pid>/stat` that identify a process.
struct Stat {
    state: char,
    start_time: u64,
}

/// Returns the start time of a process in clock ticks since boot.
///
/// # Errors
///
/// When there is no such process.
pub fn start_time(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    stat(pid).map(|stat| stat.start_time).doing("read", Path::new(&path))
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = read_limited(Path::new(&format!("/proc/{pid}/stat")))?;
    parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Parses proc_pid_stat(5). The second field is the program's name in
/// parentheses, which may itself hold parentheses and blanks.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // State is field 3, starttime field 22.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_time })
}

pub(crate) fn read_limited(path: &Path) -> io::Result<String> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_STATUS_BYTES as u64).read_to_end(&mut bytes)?;
    // A process calls itself what it likes, in any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the identity of the running kernel's boot: pids of another boot
/// mean nothing.
///
/// # Errors
///
/// When /proc is not there.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    Ok(read_limited(path).doing("read", path)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_program_name_cannot_forge_its_start_time() {
        let tail = "1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let stat = parse_stat(&format!("7 (a) Z 9) S {tail}")).unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4711));
        assert!(parse_stat("7 (a").is_none());
        assert!(parse_stat("7 (a) S 1 2").is_none());
    }

    #[test]
    fn a_process_is_found_by_pid_and_start_time_until_it_ends() {
        let mut child = Command::new("sleep").arg("100").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_time(pid).unwrap();
        assert!(Process::find(pid, start + 1).is_none(), "another start time is another process");
        let process = Process::find(pid, start).unwrap();
        assert!(!process.wait_ended(Some(Duration::ZERO)).unwrap());
        assert!(!process.hears(Signal::TERM), "sleep handles no signals");
        process.signal(Signal::TERM).unwrap();
        assert!(process.wait_ended(None).unwrap());
        assert!(Process::find(pid, start).is_none(), "a zombie has ended");
        child.wait().unwrap();
        process.signal(Signal::KILL).unwrap();
    }

    /// Such a process was taken for one that had ended.
    #[test]
    fn a_process_whose_name_is_no_text_is_found() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join(std::ffi::OsStr::from_bytes(b"\xff)"));
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("100").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let found = start_time(pid).map(|start| Process::find(pid, start).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.unwrap());
    }

    #[test]
    fn a_shell_with_a_trap_hears_its_signal() {
        // It waits without starting programs: around those, a shell blocks every signal.
        let mut child = Command::new("sh")
            .args(["-c", "trap 'exit 3' TERM; echo ready; read -r line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(hears(pid, Signal::TERM));
        assert!(!hears(pid, "USR1".parse().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
