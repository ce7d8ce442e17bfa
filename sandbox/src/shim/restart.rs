//! Whether, and when, a container that has ended is started again.
//!
//! What is wanted is one line in a file beside the container: `always`,
//! `unless-stopped`, `on-failure` or `on-failure:5`. Whoever wants the container to
//! stay ended removes the file; nobody has to be told. A container without the
//! file is not started again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::wire::wire_struct;

/// The first wait, docker's number; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait, docker's number.
const LONGEST: Duration = Duration::from_secs(60);

/// A container that has run for so long begins with the first wait again,
/// docker's number.
const STEADY: Duration = Duration::from_secs(10);

/// How a container is started again, and what has been done of it so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The file with what is wanted.
    pub file: PathBuf,
    /// The command that starts the container again. It is executed in place of
    /// whoever has waited, so that process id and start time stay.
    pub command: Vec<String>,
    /// How often it was started again before.
    pub count: u32,
    /// How long was waited before this start, in milliseconds; 0 for the first.
    pub waited_ms: u64,
}

wire_struct!(Restart { file, command, count, waited_ms });

impl Restart {
    /// Returns how long to wait until the container is started again that has
    /// ended with `code` after `uptime`; `None` if it stays ended.
    pub fn delay(&self, code: i32, uptime: Duration) -> Option<Duration> {
        let policy = fs::read_to_string(&self.file).ok()?;
        if !is_wanted(policy.trim_end(), code, self.count) {
            return None;
        }
        let waited = Duration::from_millis(self.waited_ms);
        Some(if uptime >= STEADY { FIRST } else { (waited * 2).clamp(FIRST, LONGEST) })
    }
}

fn is_wanted(policy: &str, code: i32, count: u32) -> bool {
    match policy.split_once(':').unwrap_or((policy, "0")) {
        ("always" | "unless-stopped", _) => true,
        ("on-failure", limit) => {
            code != 0 && limit.parse().is_ok_and(|limit: u32| limit == 0 || count < limit)
        }
        // A torn file, or one of another version.
        _ => false,
    }
}

/// Waits for `delay`; returns whether the container is still wanted then. Returns
/// at once when it is not any more.
///
/// # Errors
///
/// When the kernel has no more watches.
pub fn wait(file: &Path, delay: Duration) -> io::Result<bool> {
    let end = Instant::now() + delay;
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    loop {
        // Another policy is another file: it is watched anew.
        let events = inotify::WatchFlags::DELETE_SELF | inotify::WatchFlags::ATTRIB;
        match inotify::add_watch(&watch, file, events) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(true);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // What happened matters not: the file is looked for.
        let mut buffer = [0; 512];
        while rustix::io::read(&watch, &mut buffer).is_ok_and(|read| read > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restart(file: &Path) -> Restart {
        Restart { file: file.to_owned(), command: Vec::new(), count: 0, waited_ms: 0 }
    }

    #[test]
    fn a_policy_says_which_ends_are_followed_by_a_start() {
        for (policy, code, count, expected) in [
            ("always", 0, 1000, true),
            ("unless-stopped", 0, 0, true),
            ("on-failure", 0, 0, false),
            ("on-failure", 1, 1000, true),
            ("on-failure:2", 1, 1, true),
            ("on-failure:2", 1, 2, false),
            ("on-failure:2", 0, 0, false),
            ("on-failure:x", 1, 0, false),
            ("no", 1, 0, false),
            ("", 1, 0, false),
        ] {
            assert_eq!(is_wanted(policy, code, count), expected, "{policy} {code} {count}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute_and_begin_again_after_a_steady_run() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("restart");
        assert_eq!(restart(&file).delay(1, Duration::ZERO), None, "there is no file");
        fs::write(&file, "always\n").unwrap();
        let mut restart = restart(&file);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let delay = restart.delay(0, Duration::from_millis(9_999)).unwrap();
            restart.waited_ms = u64::try_from(delay.as_millis()).unwrap();
            waits.push(restart.waited_ms);
        }
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000];
        assert_eq!(waits, expected);
        assert_eq!(restart.delay(0, STEADY), Some(FIRST));
    }

    #[test]
    fn a_wait_ends_when_the_file_goes_and_not_when_it_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("restart");
        assert!(!wait(&file, Duration::from_secs(3600)).unwrap());
        fs::write(&file, "always").unwrap();
        assert!(wait(&file, Duration::from_millis(5)).unwrap());
        let waiter = std::thread::spawn({
            let file = file.clone();
            move || wait(&file, Duration::from_secs(3600)).unwrap()
        });
        let other = directory.path().join("other");
        fs::write(&other, "on-failure").unwrap();
        fs::rename(&other, &file).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiter.is_finished());
        fs::remove_file(&file).unwrap();
        assert!(!waiter.join().unwrap());
    }
}
