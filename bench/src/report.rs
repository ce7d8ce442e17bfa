//! What was measured, as a table for people and JSON for programs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

/// How a figure is judged.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Ours divided by theirs is at most this.
    AtMost(f64),
    /// Ours divided by theirs is at least this.
    AtLeast(f64),
}

/// One comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) what: String,
    /// The peer's name.
    pub(crate) peer: String,
    /// The unit of both figures.
    pub(crate) unit: &'static str,
    /// The median of ours.
    pub(crate) ours: f64,
    /// The median of theirs, or the limit where there is no peer.
    pub(crate) theirs: f64,
    /// What the ratio should be.
    pub(crate) target: Target,
    /// Other programs that did the same, in the same unit, without a target.
    pub(crate) also: Vec<Also>,
}

/// What another program needed for the same.
#[derive(Debug, Serialize)]
pub(crate) struct Also {
    /// Its name.
    pub(crate) peer: &'static str,
    /// Its median.
    pub(crate) value: f64,
}

impl Row {
    /// A figure of ours that has a limit instead of a peer.
    pub(crate) fn limited(what: &str, unit: &'static str, ours: f64, limit: f64) -> Self {
        Self {
            what: what.to_owned(),
            peer: "limit".to_owned(),
            unit,
            ours,
            theirs: limit,
            target: Target::AtMost(1.0),
            also: Vec::new(),
        }
    }

    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    fn is_met(&self) -> bool {
        match self.target {
            Target::AtMost(limit) => self.ratio() <= limit,
            Target::AtLeast(limit) => self.ratio() >= limit,
        }
    }
}

/// All comparisons of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    machine: String,
    rows: Vec<Row>,
    /// Figures recorded beside the comparisons, without a target.
    notes: Vec<String>,
}

impl Report {
    /// Adds a comparison and prints it at once.
    pub(crate) fn add(&mut self, row: Row) {
        say(&line(&row));
        self.rows.push(row);
    }

    /// Adds a figure that has no target.
    pub(crate) fn note(&mut self, note: String) {
        say(&note);
        self.notes.push(note);
    }

    /// Prints the whole table and writes the files that were asked for.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(crate) fn finish(mut self, json: Option<&Path>, markdown: Option<&Path>) -> Result<()> {
        self.machine = machine();
        let table = self.table();
        say(&format!("\n{table}"));
        if let Some(path) = json {
            fs::write(path, serde_json::to_string_pretty(&self)?)?;
        }
        if let Some(path) = markdown {
            fs::write(path, table)?;
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        text.push_str("\n| what | unit | ours | peer | theirs | ratio | target | met | also |\n|---|---|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(limit) => format!("≤ {limit:.3}"),
                Target::AtLeast(limit) => format!("≥ {limit:.3}"),
            };
            let met = if row.is_met() { "yes" } else { "**no**" };
            let also: Vec<String> =
                row.also.iter().map(|also| format!("{} {:.1}", also.peer, also.value)).collect();
            let Row { what, unit, ours, peer, theirs, .. } = row;
            let _infallible = writeln!(
                text,
                "| {what} | {unit} | {ours:.1} | {peer} | {theirs:.1} | {:.3} | {target} | {met} | {} |",
                row.ratio(),
                also.join(", ")
            );
        }
        for note in &self.notes {
            let _infallible = writeln!(text, "\n- {note}");
        }
        text
    }
}

fn line(row: &Row) -> String {
    let Row { what, unit, ours, peer, theirs, .. } = row;
    format!("{what}: ours {ours:.1} {unit}, {peer} {theirs:.1} {unit}, ratio {:.3}", row.ratio())
}

/// The machine, by its cores, memory and kernel alone.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gib =
        memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default();
    format!("{cores} cores, {gib} GiB, Linux {kernel}")
}

#[expect(clippy::print_stdout, reason = "this program's results")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "this program's errors")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
