//! The output of a step: all of it on disk, line by line to those who watch.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::secret::Mask;
use crate::error::{IoContext as _, Result};
use crate::event::{Event, Sink, Stream};

/// Lines of output that a failure shows; all of it is in the log file.
const TAIL_LINES: usize = 20;
/// A line is told in pieces of this size, so that a process that never ends one does not
/// fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The output of one process.
pub(super) struct Log {
    inner: Mutex<Inner>,
    mask: Mask,
}

struct Inner {
    file: File,
    tail: VecDeque<String>,
}

impl Log {
    pub(super) fn create(path: &Path, mask: Mask) -> Result<Self> {
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
        Ok(Self { inner: Mutex::new(Inner { file, tail: VecDeque::new() }), mask })
    }

    /// Returns the last lines.
    pub(super) fn into_tail(self) -> Vec<String> {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.tail.into_iter().collect()
    }

    /// Keeps a piece of output, with its end of line where it has one, and returns it as
    /// people see it.
    fn keep(&self, mut piece: Vec<u8>) -> String {
        self.mask.apply(&mut piece);
        let shown = piece.strip_suffix(b"\n").unwrap_or(&piece);
        let shown = shown.strip_suffix(b"\r").unwrap_or(shown);
        let line = String::from_utf8_lossy(shown).into_owned();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.file.write_all(&piece) {
            // A full disk ends the build where it matters, not because of a log.
            tracing::debug!(%error, "a line of the log is lost");
        }
        if inner.tail.len() == TAIL_LINES {
            inner.tail.pop_front();
        }
        inner.tail.push_back(line.clone());
        line
    }

    /// Reads a stream to its end.
    pub(super) fn read(&self, from: OwnedFd, stream: Stream, step: usize, events: Sink<'_>) {
        let mut from = File::from(from);
        let mut buffer = [0; 16 * 1024];
        let mut pending: Vec<u8> = Vec::new();
        let emit = |piece: Vec<u8>| {
            events(Event::Log { step, stream, line: self.keep(piece) });
        };
        loop {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            for piece in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
                pending.extend_from_slice(piece);
                if piece.ends_with(b"\n") || pending.len() >= MAX_LINE_BYTES {
                    emit(std::mem::take(&mut pending));
                }
            }
        }
        if !pending.is_empty() {
            emit(pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::SecretBytes;

    fn read(output: &[u8], mask: Mask) -> (Vec<String>, Vec<u8>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/step");
        let log = Log::create(&path, mask).unwrap();
        let (from, to) = rustix::pipe::pipe().unwrap();
        let lines = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(move || File::from(to).write_all(output).unwrap());
            log.read(from, Stream::Stdout, 1, &|event| {
                let Event::Log { line, .. } = event else { panic!("{event:?}") };
                lines.lock().unwrap().push(line);
            });
        });
        let tail = log.into_tail();
        (lines.into_inner().unwrap(), fs::read(path).unwrap(), tail)
    }

    #[test]
    fn the_file_is_the_output_byte_for_byte() {
        let mut output = b"one\r\ntwo \xff\n\n".to_vec();
        output.extend(std::iter::repeat_n(b'x', 200_000));
        let (lines, file, _) = read(&output, Mask::default());
        assert_eq!(file, output);
        assert_eq!(lines[..3], ["one", "two \u{fffd}", ""]);
        assert!(lines[3..].iter().all(|line| line.len() <= MAX_LINE_BYTES + 16 * 1024));
        assert_eq!(lines[3..].concat().len(), 200_000);
    }

    #[test]
    fn the_tail_is_bounded_and_secrets_are_nowhere() {
        let output: String = (0..100).map(|n| format!("line {n} hunter2\n")).collect();
        let mask = Mask::new(&[SecretBytes::new(b"hunter2\n".to_vec())]);
        let (lines, file, tail) = read(output.as_bytes(), mask);
        assert_eq!(lines.len(), 100);
        assert_eq!(tail.len(), TAIL_LINES);
        assert_eq!(tail.last().unwrap(), "line 99 ***");
        assert!(!String::from_utf8(file).unwrap().contains("hunter2"));
    }
}
