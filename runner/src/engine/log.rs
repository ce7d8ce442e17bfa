//! Reading what a container has written.
//!
//! The file `log` holds one record per line, in the form of the Kubernetes
//! container runtime interface: `<time> <stdout|stderr> <F|P> <text>`. `F`
//! ends a line, `P` is a piece without its end: of a very long line, or of a
//! last line without a newline.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::containers::Container;
use super::error::{IoContext as _, Result};
use super::state::Status;

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
    /// Only so many lines at the end.
    pub tail: Option<usize>,
    /// Whether to go on as long as the container runs.
    pub follow: bool,
}

/// Passes a container's records to `each`, in the order they were written,
/// until there are no more or `each` fails.
///
/// # Errors
///
/// When the log or the container's state cannot be read, and what `each`
/// returns.
pub fn read<E: From<super::Error>>(
    container: &Container,
    selection: Selection,
    mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let path = container.log();
    let mut reader = Reader::default();
    let watch = if selection.follow { Watch::new(container.dir())? } else { None };
    loop {
        // The state is asked first: what was written before the end is then
        // surely in the file.
        let ended = match &watch {
            Some(_) => !matches!(container.status()?, Status::Running(_) | Status::Created),
            None => true,
        };
        if reader.file.is_none() {
            reader.open(&path, selection.tail)?;
        }
        reader.drain(&path, &mut each)?;
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

/// A position in a log.
#[derive(Default)]
struct Reader {
    file: Option<File>,
    offset: u64,
    /// The beginning of a record whose rest is still to come.
    pending: Vec<u8>,
}

impl Reader {
    fn open(&mut self, path: &Path, tail: Option<usize>) -> Result<()> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => {
                let file = file.doing("open", path)?;
                if let Some(lines) = tail {
                    self.offset = tail_offset(&file, lines).doing("read", path)?;
                }
                self.file = Some(file);
                Ok(())
            }
        }
    }

    fn drain<E: From<super::Error>>(
        &mut self,
        path: &Path,
        each: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut block = vec![0; BLOCK];
        loop {
            let read = file.read_at(&mut block, self.offset).doing("read", path)?;
            if read == 0 {
                return Ok(());
            }
            self.offset += read as u64;
            self.pending.extend_from_slice(&block[..read]);
            let Some(end) = self.pending.iter().rposition(|&byte| byte == b'\n') else {
                continue;
            };
            for line in self.pending[..end].split(|&byte| byte == b'\n') {
                match Record::parse(line) {
                    Some(record) => each(&record)?,
                    // A writer that was killed in the middle leaves such a line.
                    None => tracing::debug!(path = %path.display(), "skipped a damaged record"),
                }
            }
            self.pending.drain(..=end);
        }
    }
}

/// Returns where the last `lines` lines begin.
fn tail_offset(file: &File, lines: usize) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut window = BLOCK as u64;
    loop {
        let start = size.saturating_sub(window);
        let mut bytes = vec![0; usize::try_from(size - start).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, start)?;
        // The window may begin within a record: start with the next.
        let skipped = match start {
            0 => 0,
            _ => bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1),
        };
        if let Some(place) = last_lines(&bytes[skipped..], lines) {
            return Ok(start + (skipped + place) as u64);
        }
        if start == 0 {
            return Ok(0);
        }
        window *= 4;
    }
}

/// Returns where the last `lines` lines begin in whole records, or `None` if
/// there are fewer, so that the line before the first is not known to end.
fn last_lines(records: &[u8], lines: usize) -> Option<usize> {
    let mut starts = Vec::new();
    let (mut place, mut line_start, mut is_open) = (0, 0, false);
    for record in records.split_inclusive(|&byte| byte == b'\n') {
        if !is_open {
            line_start = place;
        }
        place += record.len();
        let text = record.strip_suffix(b"\n").unwrap_or(record);
        is_open = Record::parse(text).is_some_and(|record| !record.ends_line);
        if !is_open {
            starts.push(line_start);
        }
    }
    if is_open {
        starts.push(line_start);
    }
    match starts.len().checked_sub(lines) {
        // The very first line in view may be the end of a longer one.
        Some(0) | None => None,
        Some(_) if lines == 0 => Some(records.len()),
        Some(first) => Some(starts[first]),
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

/// Waits until a container has ended and its end is recorded, or it is removed.
///
/// # Errors
///
/// When its state cannot be read.
pub fn wait_ended(container: &Container) -> Result<Status> {
    let watch = Watch::new(container.dir())?;
    loop {
        match (container.status()?, &watch) {
            (Status::Running(_) | Status::Created, Some(watch)) if container.dir().exists() => {
                watch.wait()?;
            }
            (status, _) => return Ok(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

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

    fn texts(bytes: &[u8]) -> Vec<String> {
        bytes
            .split(|&byte| byte == b'\n')
            .filter_map(Record::parse)
            .map(|record| String::from_utf8(record.text.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_tail_counts_lines_not_records() {
        let log = format!("{T} stdout F one\n{T} stdout P tw\n{T} stdout F o\n{T} stderr P end\n");
        let tail = |lines| last_lines(log.as_bytes(), lines).map(|at| texts(&log.as_bytes()[at..]));
        assert_eq!(tail(0).unwrap(), [""; 0]);
        assert_eq!(tail(1).unwrap(), ["end"]);
        assert_eq!(tail(2).unwrap(), ["tw", "o", "end"]);
        assert_eq!(tail(3), None, "what comes before is not in view");
        assert_eq!(tail(4), None);
    }

    #[test]
    fn the_tail_of_a_large_log_is_found_from_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        let mut log = Vec::new();
        for line in 0..40_000 {
            writeln!(log, "{T} stdout F line {line}").unwrap();
        }
        file.write_all(&log).unwrap();
        for lines in [0, 1, 7, 5_000, 39_999, 40_000, 50_000] {
            let at = usize::try_from(tail_offset(&file, lines).unwrap()).unwrap();
            let found = texts(&log[at..]);
            assert_eq!(found.len(), lines.min(40_000));
            assert_eq!(found.last().map(String::as_str), (lines > 0).then_some("line 39999"));
        }
    }
}
