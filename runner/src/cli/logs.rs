//! `rrun logs`.

use std::io::{self, Write};

use crate::engine::log::{self, Record, Selection, Stream};
use crate::engine::moment::parse_moment;

use super::{Context, now};

/// Print what a container has written
#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Go on as long as the container runs
    #[arg(short, long)]
    follow: bool,
    /// Print only so many lines from the end
    #[arg(short = 'n', long, value_name = "LINES|all", default_value = "all", value_parser = parse_tail)]
    tail: Tail,
    /// Print only what was written since: 2026-01-02T03:04:05Z, seconds since 1970, or 10m ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print only what was written until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Container, by name or id
    container: String,
}

/// How many lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tail(Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        // A negative number is docker's older way of saying all.
        "all" | "-1" => Ok(Tail(None)),
        _ => text
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| format!("\"{text}\" is not a number of lines, or all")),
    }
}

pub(super) fn run(args: &LogsArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let container = engine.containers().find(&args.container)?;
    let moment =
        |text: &Option<String>| text.as_ref().map(|text| parse_moment(text, now())).transpose();
    let selection = Selection {
        since: moment(&args.since)?,
        until: moment(&args.until)?,
        tail: args.tail.0,
        follow: args.follow,
    };
    let mut printer = Printer {
        stdout: io::stdout().lock(),
        stderr: io::stderr().lock(),
        timestamps: args.timestamps,
        at_line_start: [true, true],
    };
    log::read(&container, selection, now, |record| {
        printer.print(record).map_err(anyhow::Error::from)
    })?;
    Ok(0)
}

/// Prints records to the streams they were written to.
struct Printer<O, E> {
    stdout: O,
    stderr: E,
    timestamps: bool,
    at_line_start: [bool; 2],
}

impl<O: Write, E: Write> Printer<O, E> {
    fn print(&mut self, record: &Record<'_>) -> io::Result<()> {
        let (out, index): (&mut dyn Write, usize) = match record.stream {
            Stream::Stdout => (&mut self.stdout, 0),
            Stream::Stderr => (&mut self.stderr, 1),
        };
        if self.timestamps && self.at_line_start[index] {
            write!(out, "{} ", record.time)?;
        }
        out.write_all(record.text)?;
        if record.ends_line {
            out.write_all(b"\n")?;
        }
        self.at_line_start[index] = record.ends_line;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(timestamps: bool, log: &str) -> (String, String) {
        let mut printer = Printer {
            stdout: Vec::new(),
            stderr: Vec::new(),
            timestamps,
            at_line_start: [true, true],
        };
        for line in log.lines() {
            printer.print(&Record::parse(line.as_bytes()).unwrap()).unwrap();
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(printer.stdout), text(printer.stderr))
    }

    #[test]
    fn pieces_become_lines_again_on_their_own_stream() {
        let log = "1 stdout P a\n2 stderr F e\n3 stdout F b\n4 stdout P end";
        assert_eq!(print(false, log), ("ab\nend".to_owned(), "e\n".to_owned()));
        assert_eq!(print(true, log), ("1 ab\n4 end".to_owned(), "2 e\n".to_owned()));
    }

    #[test]
    fn the_tail_is_a_number_or_all() {
        assert_eq!(parse_tail("all"), Ok(Tail(None)));
        assert_eq!(parse_tail("10"), Ok(Tail(Some(10))));
        assert!(parse_tail("ten").is_err());
    }
}
