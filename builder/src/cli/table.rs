//! Tables for people: columns as wide as their widest cell.

use std::io::{self, Write};

/// The space between two columns, as docker has it.
const GAP: usize = 3;

/// Writes rows of cells, the first being the heading.
pub(super) fn write(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let width = |cell: &String| cell.chars().count();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, column) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', column + GAP - width(cell)));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Returns how long ago something was, in docker's words.
pub(super) fn ago(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let several = |count: u64, unit: &str| format!("{count} {unit} ago");
    match seconds {
        0 => "Less than a second ago".to_owned(),
        1 => "1 second ago".to_owned(),
        2..MINUTE => several(seconds, "seconds"),
        MINUTE..120 => "About a minute ago".to_owned(),
        120..HOUR => several(seconds / MINUTE, "minutes"),
        HOUR..7200 => "About an hour ago".to_owned(),
        _ if seconds < 2 * DAY => several(seconds / HOUR, "hours"),
        _ if seconds < 14 * DAY => several(seconds / DAY, "days"),
        _ if seconds < 60 * DAY => several(seconds / (7 * DAY), "weeks"),
        _ if seconds < 730 * DAY => several(seconds / (30 * DAY), "months"),
        _ => several(seconds / (365 * DAY), "years"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [vec!["NAME", "X", "Y"], vec!["a", "long", ""], vec!["é", "", "z"]]
            .map(|row| row.into_iter().map(str::to_owned).collect());
        let mut out = Vec::new();
        write(&mut out, &rows).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "NAME   X      Y\na      long\né             z\n"
        );
    }

    #[test]
    fn ages_read_as_in_docker() {
        let table = [
            (0, "Less than a second ago"),
            (59, "59 seconds ago"),
            (60, "About a minute ago"),
            (3599, "59 minutes ago"),
            (3600, "About an hour ago"),
            (86_400, "24 hours ago"),
            (172_800, "2 days ago"),
            (1_209_600, "2 weeks ago"),
        ];
        for (seconds, expected) in table {
            assert_eq!(ago(seconds), expected);
        }
    }
}
