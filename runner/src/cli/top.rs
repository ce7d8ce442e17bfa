//! `rrun top`.

use std::io;

use crate::engine::top::ProcessInfo;

use super::Context;
use super::table::{printable, write};

/// List the processes of a running container
///
/// User and process ids are those of this machine. Options of ps(1) are not
/// taken: nothing is executed for it.
#[derive(Debug, clap::Args)]
pub(super) struct TopArgs {
    /// Container, by name or id
    container: String,
}

pub(super) fn run(args: &TopArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = context.engine()?;
    let processes = engine.top(&engine.containers().find(&args.container)?)?;
    let heading = ["UID", "PID", "PPID", "ELAPSED", "TTY", "TIME", "CMD"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(processes.iter().map(cells));
    write(&mut io::stdout().lock(), &rows)?;
    Ok(0)
}

fn cells(process: &ProcessInfo) -> Vec<String> {
    vec![
        process.uid.to_string(),
        process.pid.to_string(),
        process.ppid.to_string(),
        clock(process.elapsed_seconds),
        terminal(process.terminal),
        clock(process.cpu_seconds),
        printable(&process.command),
    ]
}

/// Writes a duration as ps(1) does: `[days-]hours:minutes:seconds`.
fn clock(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let time = format!("{hours:02}:{:02}:{:02}", seconds / 60 % 60, seconds % 60);
    if days == 0 { time } else { format!("{days}-{time}") }
}

/// Names a terminal by its device number: the pseudo terminals, which
/// containers have, are the majors 136 to 143.
fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
    match major {
        _ if device == 0 => "?".to_owned(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_ps_would_show() {
        let process = ProcessInfo {
            uid: 0,
            pid: 12,
            ppid: 1,
            elapsed_seconds: 90_061,
            cpu_seconds: 59,
            terminal: 34_817,
            command: "a\x1b[1m b".to_owned(),
        };
        assert_eq!(
            cells(&process),
            ["0", "12", "1", "1-01:01:01", "pts/1", "00:00:59", "a\\u{1b}[1m b"]
        );
        assert_eq!([0, 1025].map(terminal), ["?", "4:1"]);
    }
}
