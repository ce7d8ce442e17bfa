//! Plain lines, in BuildKit's form: `#3 [build 2/3] RUN make`, `#3 CACHED`, `#3 DONE 1.2s`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use super::seconds;
use crate::event::{Event, Why};

/// What was printed so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    steps: BTreeMap<usize, (String, Instant)>,
    /// The step of the last line, to introduce a step again when the output switches.
    current: Option<usize>,
    /// The transfers that were reported as complete.
    complete: BTreeSet<(usize, String)>,
    /// The memory that steps used, until they are done.
    peaks: BTreeMap<usize, u64>,
}

impl Lines {
    /// Returns the lines that an event adds.
    pub(super) fn event(&mut self, event: &Event) -> String {
        let mut out = String::new();
        match event {
            Event::Started { step, name } => {
                self.steps.insert(*step, (name.clone(), Instant::now()));
            }
            Event::Cached { step } => {
                self.switch_to(*step, &mut out);
                let _ = writeln!(out, "#{step} CACHED");
                self.end(&mut out);
            }
            Event::Running { step, why } => {
                self.switch_to(*step, &mut out);
                if *why != Why::First {
                    let _ = writeln!(out, "#{step} because {why}");
                }
            }
            Event::Log { step, line, .. } => {
                self.switch_to(*step, &mut out);
                let time = self.steps.get(step).map_or(0.0, |(_, at)| at.elapsed().as_secs_f64());
                let _ = writeln!(out, "#{step} {time:.3} {line}");
            }
            Event::Transfer { step, what, current, total: Some(total) }
                if current == total && self.complete.insert((*step, what.clone())) =>
            {
                self.switch_to(*step, &mut out);
                let _ = writeln!(out, "#{step} {what} {} done", super::human_size(*current));
            }
            Event::Transfer { .. } => {}
            Event::Done { step, took } => {
                self.switch_to(*step, &mut out);
                let peak = self.peaks.remove(step);
                let peak = peak.map(|bytes| format!(", peak memory {}", super::human_size(bytes)));
                let _ =
                    writeln!(out, "#{step} DONE {}{}", seconds(*took), peak.unwrap_or_default());
                self.end(&mut out);
            }
            Event::MemoryPeak { step, bytes } => drop(self.peaks.insert(*step, *bytes)),
            Event::Failed { step, message } => {
                self.switch_to(*step, &mut out);
                let _ = writeln!(out, "#{step} ERROR: {message}");
                self.end(&mut out);
            }
            Event::Cancelled { step } => {
                self.switch_to(*step, &mut out);
                let _ = writeln!(out, "#{step} CANCELED");
                self.end(&mut out);
            }
            Event::Warning { step: Some(step), message } => {
                self.switch_to(*step, &mut out);
                let _ = writeln!(out, "#{step} WARN: {message}");
            }
            Event::Warning { step: None, message } => {
                let _ = writeln!(out, "warning: {message}");
            }
        }
        out
    }

    fn switch_to(&mut self, step: usize, out: &mut String) {
        if self.current == Some(step) {
            return;
        }
        if let Some(previous) = self.current.replace(step) {
            let _ = writeln!(out, "#{previous} ...\n");
        }
        if let Some((name, _)) = self.steps.get(&step) {
            let _ = writeln!(out, "#{step} {name}");
        }
    }

    fn end(&mut self, out: &mut String) {
        self.current = None;
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stream;
    use std::time::Duration;

    #[test]
    fn steps_that_take_turns_are_introduced_again() {
        let mut lines = Lines::default();
        let log = |step, line: &str| Event::Log { step, stream: Stream::Stdout, line: line.into() };
        let mut out = String::new();
        for event in [
            Event::Started { step: 1, name: "[a 1/1] RUN x".into() },
            Event::Started { step: 2, name: "[b 1/2] RUN y".into() },
            Event::Running { step: 1, why: Why::First },
            log(1, "one"),
            log(2, "two"),
            Event::Done { step: 2, took: Duration::from_millis(1250) },
            Event::Done { step: 1, took: Duration::from_millis(20) },
        ] {
            out.push_str(&lines.event(&event));
        }
        let out = out.replace("0.000", "T");
        assert_eq!(
            out,
            "#1 [a 1/1] RUN x\n#1 T one\n#1 ...\n\n#2 [b 1/2] RUN y\n#2 T two\n#2 DONE 1.2s\n\n\
             #1 [a 1/1] RUN x\n#1 DONE 0.0s\n\n"
        );
    }
}
