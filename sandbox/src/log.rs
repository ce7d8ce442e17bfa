//! The log of a container, in the form Kubernetes' runtimes write (CRI).
//!
//! ```text
//! 2026-01-02T03:04:05.123456789Z stdout F a whole line
//! 2026-01-02T03:04:05.123456789Z stderr P a piece of a line, more to come
//! ```
//!
//! A log does not grow without limit: past a size it is renamed to `….1`, the
//! one before to `….2` and so on, and the oldest is removed. Records are
//! appended whole, so a reader never sees half of one at a rotation.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The longest piece of a line in one record, as containerd cuts it.
const PIECE_BYTES_MAX: usize = 16 << 10;

const STREAMS: [&str; 2] = ["stdout", "stderr"];

/// How large a log becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The size at which a file is put aside; none lets it grow.
    pub max_bytes: Option<u64>,
    /// How many files there are at most, with the current one.
    pub files: u32,
}

impl Default for LogOptions {
    /// Returns four files of 16 MiB.
    fn default() -> Self {
        Self { max_bytes: Some(16 << 20), files: 4 }
    }
}

/// Turns output into records and appends them to a file.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    options: LogOptions,
    /// Opened when there is something to write.
    file: Option<File>,
    written: u64,
    /// Beginnings of lines, by stream.
    pending: [Vec<u8>; 2],
    /// When the last output came.
    latest: SystemTime,
}

impl LogWriter {
    /// Returns a writer that appends to the log at `path`, with the default
    /// options. The file is made by the first record.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self::with_options(path, LogOptions::default())
    }

    /// Returns a writer with options.
    #[must_use]
    pub fn with_options(path: &Path, options: LogOptions) -> Self {
        let pending = [Vec::new(), Vec::new()];
        Self { path: path.to_owned(), options, file: None, written: 0, pending, latest: UNIX_EPOCH }
    }

    /// Takes output of standard output or else of standard error. Complete lines are written at once, the
    /// beginning of a line is kept until its end arrives or it gets long.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, for instance because the disk is full;
    /// that output is lost then, later output is tried again.
    pub fn write(&mut self, stdout: bool, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        self.latest = now;
        let stream = usize::from(!stdout);
        let mut records = Vec::with_capacity(bytes.len() + 64);
        let head = format!("{} {}", rfc3339_nanos(now), STREAMS[stream]);
        let pending = &mut self.pending[stream];
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            pending.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            cut(&head, pending, &mut records);
            record(&head, 'F', pending, &mut records);
            pending.clear();
        }
        pending.extend_from_slice(rest);
        cut(&head, pending, &mut records);
        self.append(&records)
    }

    /// Writes what is left of lines without an end; dropping does it, too.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut records = Vec::new();
        for (stream, pending) in STREAMS.iter().zip(&mut self.pending) {
            if !pending.is_empty() {
                record(
                    &format!("{} {stream}", rfc3339_nanos(self.latest)),
                    'P',
                    pending,
                    &mut records,
                );
                pending.clear();
            }
        }
        self.append(&records)
    }

    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let length = records.len() as u64;
        if self.written > 0 && self.options.max_bytes.is_some_and(|max| self.written + length > max)
        {
            self.rotate()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            closed => {
                let file = open(&self.path)?;
                self.written = file.metadata()?.len();
                closed.insert(file)
            }
        };
        file.write_all(records)?;
        self.written += length;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let name = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (1..self.options.files).rev() {
            match fs::rename(name(number - 1), name(number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.options.files <= 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = Some(open(&self.path)?);
        self.written = 0;
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // Nobody is left to tell that the disk is full.
        self.finish().ok();
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Writes the pieces of a line that has become long.
fn cut(head: &str, pending: &mut Vec<u8>, records: &mut Vec<u8>) {
    let mut start = 0;
    while pending.len() - start > PIECE_BYTES_MAX {
        record(head, 'P', &pending[start..start + PIECE_BYTES_MAX], records);
        start += PIECE_BYTES_MAX;
    }
    pending.drain(..start);
}

fn record(head: &str, tag: char, text: &[u8], records: &mut Vec<u8>) {
    records.extend_from_slice(format!("{head} {tag} ").as_bytes());
    records.extend_from_slice(text);
    records.push(b'\n');
}

/// Returns a moment as RFC 3339 text in UTC, with nanoseconds.
#[must_use]
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Returns the date of a day after 1970-01-01. Years begin in March here, so
/// that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds, 123)
    }

    fn log(options: LogOptions) -> (tempfile::TempDir, PathBuf, LogWriter) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let writer = LogWriter::with_options(&path, options);
        (directory, path, writer)
    }

    #[test]
    fn moments_are_written_as_rfc3339() {
        let table = [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_767_323_045, "2026-01-02T03:04:05"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ];
        for (seconds, expected) in table {
            assert_eq!(rfc3339_nanos(at(seconds)), format!("{expected}.000000123Z"));
        }
    }

    #[test]
    fn lines_become_records_of_their_stream() {
        let (_directory, path, mut writer) = log(LogOptions::default());
        writer.write(true, b"one\ntw", at(0)).unwrap();
        writer.write(false, b"bad\n\n", at(1)).unwrap();
        writer.write(true, b"o\nrest", at(2)).unwrap();
        drop(writer);
        let text = fs::read_to_string(path).unwrap().replace(".000000123Z", "");
        insta::assert_snapshot!(text.trim_end(), @r"
        1970-01-01T00:00:00 stdout F one
        1970-01-01T00:00:01 stderr F bad
        1970-01-01T00:00:01 stderr F 
        1970-01-01T00:00:02 stdout F two
        1970-01-01T00:00:02 stdout P rest
        ");
    }

    #[test]
    fn long_lines_are_cut() {
        let (_directory, path, mut writer) = log(LogOptions::default());
        let line = vec![b'x'; PIECE_BYTES_MAX * 2 + 5];
        writer.write(true, &line[..100], at(0)).unwrap();
        writer.write(true, &line[100..], at(0)).unwrap();
        writer.write(true, b"\n", at(0)).unwrap();
        let text = fs::read_to_string(path).unwrap();
        let pieces: Vec<(&str, usize)> =
            text.lines().map(|line| (&line[38..39], line.len() - 40)).collect();
        assert_eq!(pieces, [("P", PIECE_BYTES_MAX), ("P", PIECE_BYTES_MAX), ("F", 5)]);
    }

    #[test]
    fn old_files_are_put_aside_and_the_oldest_goes() {
        let (directory, path, mut writer) = log(LogOptions { max_bytes: Some(100), files: 3 });
        for number in 0..20 {
            writer.write(true, format!("line {number}\n").as_bytes(), at(0)).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
        let names = ["log.2", "log.1", "log"]
            .map(|name| fs::read_to_string(directory.path().join(name)).unwrap());
        assert!(names.iter().all(|text| text.len() <= 100));
        assert!(names.concat().ends_with(&fs::read_to_string(path).unwrap()));
        assert!(names.concat().contains("line 15\n") && names[2].ends_with("line 19\n"));
    }
}
