//! Reading a log that is being written, and put aside when it gets large.
//!
//! The writer renames `log` to `log.1`, that to `log.2`, and so on, and begins
//! a new `log`. Files are told apart by their inode, never by their name, so
//! that a change of names while reading loses and repeats nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::super::error::{IoContext as _, Result};
use super::{BLOCK, Record, tail};

/// How many files are looked for: more than any writer keeps.
const MAX_FILES: u32 = 100;

/// A position in a log.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    /// What is left to be read, the oldest first. The last one may still grow.
    files: VecDeque<(u64, File)>,
    /// How far the first of them has been read.
    offset: u64,
    /// The beginning of a record whose rest is still to come.
    pending: Vec<u8>,
}

impl Reader {
    /// Begins at the beginning, or at the last `tail` lines.
    pub(super) fn open(path: &Path, tail: Option<usize>) -> Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            files: newer(path, None)?,
            offset: 0,
            pending: Vec::new(),
        };
        if let Some(lines) = tail {
            reader.skip_to(lines)?;
        }
        Ok(reader)
    }

    /// Forgets what comes before the last `lines` lines of all files together.
    fn skip_to(&mut self, mut lines: usize) -> Result<()> {
        for index in (0..self.files.len()).rev() {
            let (offset, found) =
                tail::find(&self.files[index].1, lines).doing("read", &self.path)?;
            lines -= found;
            if lines == 0 {
                self.files.drain(..index);
                self.offset = offset;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Passes on everything there is now.
    pub(super) fn drain<E: From<super::super::Error>>(
        &mut self,
        each: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            self.drain_first(each)?;
            if self.files.len() <= 1 {
                let last = self.files.front().map(|(inode, _)| *inode);
                let newer = newer(&self.path, last)?;
                if newer.is_empty() {
                    return Ok(());
                }
                self.files.extend(newer);
                // What came last was written before the names changed.
                self.drain_first(each)?;
                if last.is_none() {
                    continue;
                }
            }
            self.files.pop_front();
            self.offset = 0;
        }
    }

    fn drain_first<E: From<super::super::Error>>(
        &mut self,
        each: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some((_, file)) = self.files.front() else { return Ok(()) };
        let mut block = vec![0; BLOCK];
        loop {
            let read = file.read_at(&mut block, self.offset).doing("read", &self.path)?;
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
                    None => {
                        tracing::debug!(path = %self.path.display(), "skipped a damaged record");
                    }
                }
            }
            self.pending.drain(..=end);
        }
    }
}

/// Opens the files of a log that are newer than the one with inode `after`,
/// all if it is `None` or gone, the oldest first.
fn newer(path: &Path, after: Option<u64>) -> Result<VecDeque<(u64, File)>> {
    let mut files: VecDeque<(u64, File)> = VecDeque::new();
    for number in 0..MAX_FILES {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let name = PathBuf::from(name);
        let file = match File::open(&name) {
            // Just being renamed, or the oldest was reached.
            Err(error) if error.kind() == io::ErrorKind::NotFound && number == 0 => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            file => file.doing("open", &name)?,
        };
        let inode = file.metadata().doing("read", &name)?.ino();
        if Some(inode) == after {
            break;
        }
        // Renamed between two looks: it was seen under its former name.
        if files.front().is_none_or(|(known, _)| *known != inode) {
            files.push_front((inode, file));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    use sandbox::log::{LogOptions, LogWriter};

    fn texts(reader: &mut Reader) -> Vec<String> {
        let mut texts = Vec::new();
        reader
            .drain(&mut |record: &Record<'_>| {
                texts.push(String::from_utf8(record.text.to_vec()).unwrap());
                Ok::<(), crate::engine::Error>(())
            })
            .unwrap();
        texts
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| format!("line {number}")).collect()
    }

    /// Logs with rotation stopped being followed in docker (moby#37646).
    #[test]
    fn files_that_are_put_aside_are_read_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut follower = Reader::open(&path, None).unwrap();
        assert_eq!(texts(&mut follower), [""; 0], "there is no file yet");
        // Each file takes three lines; ten are kept, so nothing is lost here.
        let options = LogOptions { max_bytes: Some(160), files: 10 };
        let mut log = LogWriter::with_options(&path, options);
        let mut write = |range: std::ops::Range<u32>| {
            for line in numbers(range) {
                log.write(true, format!("{line}\n").as_bytes(), UNIX_EPOCH).unwrap();
            }
        };
        write(0..2);
        assert_eq!(texts(&mut follower), numbers(0..2));
        write(2..3);
        write(3..11);
        assert_eq!(texts(&mut follower), numbers(2..11));
        write(11..12);
        assert_eq!(texts(&mut follower), numbers(11..12));
        assert!(path.with_extension("3").exists(), "it was put aside more than once");
        assert_eq!(texts(&mut Reader::open(&path, None).unwrap()), numbers(0..12));
        for tail in [0, 1, 4, 11, 12, 50] {
            let first = 12_u32.saturating_sub(tail);
            let mut reader = Reader::open(&path, Some(tail as usize)).unwrap();
            assert_eq!(texts(&mut reader), numbers(first..12), "the last {tail}");
        }
    }
}
