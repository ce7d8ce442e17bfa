//! Asking now and then whether a container works, by executing a command.

use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::wire::wire_struct;

/// When a container is checked, and by which command on this side. That one judges
/// what it finds; it exits with 0 if the container works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// The command.
    pub command: Vec<String>,
    /// The time between two checks, in milliseconds.
    pub interval_ms: u64,
    /// The same until a check has succeeded, while the container begins.
    pub start_interval_ms: u64,
    /// How long that may take, in milliseconds.
    pub start_period_ms: u64,
}

wire_struct!(Checks { command, interval_ms, start_interval_ms, start_period_ms });

/// Checks that go on until this is dropped.
#[derive(Debug)]
pub struct Checking(#[expect(dead_code, reason = "dropping it is what it is for")] Sender<()>);

impl Checks {
    /// Begins to check with a command that was made of [`Checks::command`]. The first
    /// check comes after an interval, as with docker.
    pub fn begin(&self, mut command: Command) -> Checking {
        let (sender, end) = channel();
        let checks = self.clone();
        // It is not waited for: a check under way ends with the container.
        thread::spawn(move || {
            let begin = Instant::now();
            let mut works = false;
            loop {
                match end.recv_timeout(checks.interval(begin.elapsed(), works)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
                // One that cannot be executed now is tried again.
                works |= command.status().is_ok_and(|status| status.success());
            }
        });
        Checking(sender)
    }

    fn interval(&self, uptime: Duration, works: bool) -> Duration {
        let begins = !works && uptime < Duration::from_millis(self.start_period_ms);
        Duration::from_millis(if begins { self.start_interval_ms } else { self.interval_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn checks_are_more_frequent_until_the_container_works() {
        let checks = Checks {
            command: Vec::new(),
            interval_ms: 30_000,
            start_interval_ms: 5_000,
            start_period_ms: 60_000,
        };
        for (uptime, works, expected) in
            [(0, false, 5), (59, false, 5), (60, false, 30), (0, true, 30)]
        {
            let interval = checks.interval(Duration::from_secs(uptime), works);
            assert_eq!(interval, Duration::from_secs(expected), "{uptime} {works}");
        }
    }

    #[test]
    fn dropping_ends_the_checks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("checks");
        let checks = Checks {
            command: Vec::new(),
            interval_ms: 10,
            start_interval_ms: 10,
            start_period_ms: 0,
        };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo x >> {}", file.display())]);
        let checking = checks.begin(command);
        let length = || fs::metadata(&file).map_or(0, |metadata| metadata.len());
        let deadline = Instant::now() + Duration::from_secs(20);
        while length() < 6 {
            assert!(Instant::now() < deadline, "it does not check");
            thread::sleep(Duration::from_millis(5));
        }
        drop(checking);
        // One may be under way.
        thread::sleep(Duration::from_millis(300));
        let before = length();
        thread::sleep(Duration::from_millis(200));
        assert_eq!(length(), before);
    }
}
