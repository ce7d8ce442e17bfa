//! Targets and outlines as buildx prints them.

use std::fmt::Write as _;

use super::{Argument, Mounted, Outline, Targets};
use crate::dockerfile::lint::pretty;

impl Targets {
    /// Returns the stages as `--call=targets,format=json` prints them.
    #[must_use]
    pub fn to_json(&self) -> String {
        pretty(self) + "\n"
    }

    /// Returns the stages as a table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let rows = self.targets.iter().map(|target| {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            vec![name, target.description.clone()]
        });
        table(&["TARGET", "DESCRIPTION"], rows.collect(), 1)
    }
}

impl Outline {
    /// Returns the parameters as `--call=outline,format=json` prints them.
    #[must_use]
    pub fn to_json(&self) -> String {
        pretty(self) + "\n"
    }

    /// Returns the parameters as tables, each followed by an empty line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        if !self.name.is_empty() || !self.description.is_empty() {
            let name = if self.name.is_empty() { "(default)" } else { &self.name };
            let mut rows = Vec::new();
            if !self.description.is_empty() {
                rows.push(vec!["DESCRIPTION:".to_owned(), self.description.clone()]);
            }
            out += &(table(&["TARGET:", name], rows, 1) + "\n");
        }
        if !self.args.is_empty() {
            let row =
                |arg: &Argument| vec![arg.name.clone(), arg.value.clone(), arg.description.clone()];
            let rows = self.args.iter().map(row).collect();
            out += &(table(&["BUILD ARG", "VALUE", "DESCRIPTION"], rows, 3) + "\n");
        }
        for (title, list) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if !list.is_empty() {
                let word = |required: bool| if required { "true" } else { "" }.to_owned();
                let row = |mounted: &Mounted| vec![mounted.name.clone(), word(mounted.required)];
                out += &(table(&[title, "REQUIRED"], list.iter().map(row).collect(), 3) + "\n");
            }
        }
        out
    }
}

/// Writes columns, all but the last as wide as their widest cell and `gap` blanks.
fn table(head: &[&str], rows: Vec<Vec<String>>, gap: usize) -> String {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + gap
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let cell: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let width = if column == last { 0 } else { widths[column] };
            let _ = write!(out, "{cell:width$}");
        }
        out.push('\n');
    }
    out
}
