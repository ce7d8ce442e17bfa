//! Reading what a container has written.
//!
//! The file `log` holds one record per line, in the form of the Kubernetes
//! container runtime interface: `<time> <stdout|stderr> <F|P> <text>`. `F`
//! ends a line, `P` is a piece without its end: of a very long line, or of a
//! last line without a newline.

mod reader;
mod tail;

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::containers::Container;
use super::error::{IoContext as _, Result};
use super::state::Status;
use super::timestamp::Timestamp;
use reader::Reader;

/// How much is read at once. Longer than any record, which writers cut at
/// 16 KiB of text.
const BLOCK: usize = 64 << 10;

/// How long to wait for news before looking for oneself: a watch cannot tell
/// of a container whose watcher was killed.
const IDLE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Where a container wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, and everything on a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a piece of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written, RFC 3339 with nanoseconds.
    pub time: &'a str,
    /// Where to.
    pub stream: Stream,
    /// Whether the line ends here.
    pub ends_line: bool,
    /// The bytes, without a newline.
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses a line without its newline; `None` if it is not a record.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(4, |&byte| byte == b' ');
        let time = std::str::from_utf8(fields.next()?).ok()?;
        let stream = match fields.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let ends_line = match fields.next()? {
            b"F" => true,
            b"P" => false,
            _ => return None,
        };
        Some(Self { time, stream, ends_line, text: fields.next()? })
    }
}

/// What to read of a log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Selection {
    /// Only what was written at this moment or later.
    pub since: Option<Timestamp>,
    /// Only what was written at this moment or earlier.
    pub until: Option<Timestamp>,
    /// Only so many lines at the end; those of them are left out that were
    /// written at another time.
    pub tail: Option<usize>,
    /// Whether to go on as long as the container runs.
    pub follow: bool,
}

impl Selection {
    /// Returns the times as records have them: text of one length, so that its
    /// order is that of time.
    fn times(&self) -> (Option<String>, Option<String>) {
        (self.since.map(|moment| moment.to_string()), self.until.map(|moment| moment.to_string()))
    }
}

/// Passes a container's records to `each`, in the order they were written,
/// until there are no more or `each` fails. `clock` tells the time.
///
/// # Errors
///
/// When the log or the container's state cannot be read, and what `each`
/// returns.
pub fn read<E: From<super::Error>>(
    container: &Container,
    selection: Selection,
    clock: impl Fn() -> Timestamp,
    mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (since, until) = selection.times();
    let mut each = |record: &Record<'_>| {
        let is_within = since.as_deref().is_none_or(|since| record.time >= since)
            && until.as_deref().is_none_or(|until| record.time <= until);
        if is_within { each(record) } else { Ok(()) }
    };
    let path = container.log();
    let mut reader = Reader::open(&path, selection.tail)?;
    let watch = if selection.follow { Watch::new(container.dir())? } else { None };
    loop {
        // The state is asked first: what was written before the end is then
        // surely in the file.
        let ended = match &watch {
            Some(_) if selection.until.is_some_and(|until| until < clock()) => true,
            Some(_) => {
                let status = container.status()?;
                !(status.is_active() || matches!(status, Status::Created))
            }
            None => true,
        };
        reader.drain(&mut each)?;
        match &watch {
            Some(watch) if !ended => watch.wait()?,
            _ => return Ok(()),
        }
        // A container that was removed says no more.
        if !container.dir().exists() {
            return Ok(());
        }
    }
}

/// Tells when something in a container's directory changes.
struct Watch {
    fd: std::os::fd::OwnedFd,
}

impl Watch {
    /// Watches a container's directory; `None` if it is gone.
    fn new(dir: &Path) -> Result<Option<Self>> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .trying("watch files")?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF;
        match inotify::add_watch(&fd, dir, events) {
            Ok(_) => Ok(Some(Self { fd })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error).doing("watch", dir),
        }
    }

    fn wait(&self) -> Result<()> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&IDLE)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).trying("wait for output"),
        }
        // What happened matters not: whoever waits looks for oneself.
        let mut buffer = [0; 4096];
        while rustix::io::read(&self.fd, &mut buffer).is_ok_and(|read| read > 0) {}
        Ok(())
    }
}

/// Waits until a container has ended and its end is recorded, or it is removed,
/// or `patience` is over; `None` waits for ever.
///
/// # Errors
///
/// When its state cannot be read.
pub fn wait_ended(container: &Container, patience: Option<Duration>) -> Result<Status> {
    let begin = Instant::now();
    let watch = Watch::new(container.dir())?;
    loop {
        match (container.status()?, &watch) {
            (Status::Running(_) | Status::Created, Some(watch))
                if container.dir().exists()
                    && patience.is_none_or(|patience| begin.elapsed() < patience) =>
            {
                watch.wait()?;
            }
            (status, _) => return Ok(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "2026-01-02T03:04:05.000000006Z";

    #[test]
    fn records_have_four_fields_and_any_text() {
        let line = format!("{T} stderr P a b \u{fffd}");
        assert_eq!(
            Record::parse(line.as_bytes()),
            Some(Record {
                time: T,
                stream: Stream::Stderr,
                ends_line: false,
                text: "a b \u{fffd}".as_bytes()
            })
        );
        assert_eq!(Record::parse(format!("{T} stdout F ").as_bytes()).unwrap().text, b"");
        for bad in ["", "x", "t stdin F x", "t stdout X x", "t stdout F"] {
            assert_eq!(Record::parse(bad.as_bytes()), None, "accepted {bad:?}");
        }
    }
}
