//! Finding the end of a log without reading all of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::{BLOCK, Record};

/// Returns where the last `lines` lines of a file begin, and how many there
/// are from there on: fewer if the file has no more.
pub(super) fn find(file: &File, lines: usize) -> io::Result<(u64, usize)> {
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
            return Ok((start + (skipped + place) as u64, lines));
        }
        if start == 0 {
            return Ok((0, line_starts(&bytes).len()));
        }
        window *= 4;
    }
}

/// Returns where the last `lines` lines begin in whole records, or `None` if
/// there are fewer, so that the line before the first is not known to end.
fn last_lines(records: &[u8], lines: usize) -> Option<usize> {
    let starts = line_starts(records);
    match starts.len().checked_sub(lines) {
        // The very first line in view may be the end of a longer one.
        Some(0) | None => None,
        Some(_) if lines == 0 => Some(records.len()),
        Some(first) => Some(starts[first]),
    }
}

/// Returns where each line begins in whole records.
fn line_starts(records: &[u8]) -> Vec<usize> {
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
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const T: &str = "2026-01-02T03:04:05.000000006Z";

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
            let (at, count) = find(&file, lines).unwrap();
            let found = texts(&log[usize::try_from(at).unwrap()..]);
            assert_eq!(count, lines.min(40_000));
            assert_eq!(found.len(), lines.min(40_000));
            assert_eq!(found.last().map(String::as_str), (lines > 0).then_some("line 39999"));
        }
    }
}
