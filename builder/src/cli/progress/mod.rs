//! Shows the events of a build on stderr: a live tree, plain lines, JSON lines, or nothing.

mod plain;
mod tty;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::Event;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// A live tree on a terminal, plain lines elsewhere
    Auto,
    /// A live tree of the running steps
    Tty,
    /// One line after the other
    Plain,
    /// One JSON object per line
    Json,
    /// Nothing but errors
    Quiet,
}

/// Takes events from all threads and shows them.
pub(crate) struct Progress {
    view: View,
    /// Which steps ran; the others were reused. A step that is looked at twice counts once.
    ran: Mutex<BTreeMap<usize, bool>>,
    numbers: AtomicUsize,
}

enum View {
    Tty(tty::Live),
    Plain(Mutex<plain::Lines>),
    Json,
    Quiet,
}

impl Progress {
    /// Starts showing progress in this mode.
    pub(crate) fn start(mode: Mode) -> Self {
        let view = match mode {
            Mode::Auto if std::io::stderr().is_terminal() => View::Tty(tty::Live::start()),
            Mode::Tty => View::Tty(tty::Live::start()),
            Mode::Auto | Mode::Plain => View::Plain(Mutex::default()),
            Mode::Json => View::Json,
            Mode::Quiet => View::Quiet,
        };
        Self { view, ran: Mutex::default(), numbers: AtomicUsize::new(1) }
    }

    /// Shows one event.
    pub(crate) fn event(&self, event: Event) {
        match &event {
            Event::Cached { step } => {
                self.ran().entry(*step).or_insert(false);
            }
            Event::Running { step, .. } => {
                self.ran().insert(*step, true);
            }
            _ => {}
        }
        self.show(event);
    }

    /// Shows an event that is not a step of a build, and does not count as one.
    pub(crate) fn show(&self, event: Event) {
        match &self.view {
            View::Tty(live) => live.event(event),
            View::Plain(lines) => {
                let text = lines.lock().map(|mut lines| lines.event(&event)).unwrap_or_default();
                write_stderr(&text);
            }
            View::Json => {
                if let Ok(text) = serde_json::to_string(&event) {
                    write_stderr(&format!("{text}\n"));
                }
            }
            View::Quiet => {}
        }
    }

    /// Ends the display, leaving what was shown last.
    pub(crate) fn finish(&self) {
        if let View::Tty(live) = &self.view {
            live.finish();
        }
    }

    /// Returns whether a closing line for people may be printed.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.view, View::Tty(_) | View::Plain(_))
    }

    /// Returns whether events are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.view, View::Json)
    }

    /// Returns the number of the next step to appear.
    pub(crate) fn numbers(&self) -> &AtomicUsize {
        &self.numbers
    }

    /// Returns how many steps were reused and how many ran.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let ran = self.ran();
        let run = ran.values().filter(|ran| **ran).count();
        (ran.len() - run, run)
    }

    fn ran(&self) -> MutexGuard<'_, BTreeMap<usize, bool>> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes to stderr in one go. A closed stderr must not end a build.
pub(crate) fn write_stderr(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).ok();
}

/// Returns a duration as BuildKit prints it: seconds with one decimal.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Returns a size in docker's units: powers of ten, three significant digits.
pub(crate) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        unit += 1;
        scale *= 1000;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    // Tenths, hundredths or none, so that three digits are shown; integers keep it exact.
    let whole = bytes / scale;
    let decimals = if whole >= 100 {
        0
    } else if whole >= 10 {
        1
    } else {
        2
    };
    let factor = 10_u64.pow(decimals);
    let scaled = bytes / (scale / factor);
    let text = match decimals {
        0 => format!("{scaled}"),
        _ => format!("{}.{:0width$}", scaled / factor, scaled % factor, width = decimals as usize),
    };
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_in_docker_images() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_263_000, "4.26MB"),
            (117_000_000, "117MB"),
            (12_340_000, "12.3MB"),
            (2_000_000_000, "2GB"),
        ];
        for (bytes, expected) in table {
            assert_eq!(human_size(bytes), expected);
        }
    }
}
