//! A live tree on a terminal: finished steps above, running ones with their last lines below.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{human_size, seconds, write_stderr};
use crate::event::{Event, Why};

/// How often the tree is drawn: fast enough to look alive, slow enough to cost nothing.
const FRAME: Duration = Duration::from_millis(100);
/// Lines of output shown below a running step.
const LOG_LINES: usize = 4;

/// The thread that draws, and the way to it.
pub(super) struct Live {
    sender: Mutex<Option<Sender<Event>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Live {
    /// Starts drawing.
    pub(super) fn start() -> Self {
        let (sender, receiver) = channel();
        let colour = super::super::colour_wanted();
        let thread = std::thread::spawn(move || draw_until_closed(&receiver, colour));
        Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) }
    }

    pub(super) fn event(&self, event: Event) {
        if let Ok(sender) = self.sender.lock()
            && let Some(sender) = sender.as_ref()
        {
            // The drawing thread ends only after this sender is dropped.
            sender.send(event).ok();
        }
    }

    /// Draws the last state and stops.
    pub(super) fn finish(&self) {
        if let Ok(mut sender) = self.sender.lock() {
            sender.take();
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // A panic there was printed already; the build's result does not depend on it.
            thread.join().ok();
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Cached,
    Done(Duration),
    Failed,
    Cancelled,
}

struct Step {
    name: String,
    state: State,
    since: Instant,
    why: Option<Why>,
    /// The most memory that its processes used.
    peak_memory: Option<u64>,
    log: VecDeque<String>,
    transfers: BTreeMap<String, (u64, Option<u64>)>,
    is_printed: bool,
}

struct Screen {
    steps: BTreeMap<usize, Step>,
    /// Lines of the live part, to be overwritten by the next frame.
    live_lines: usize,
    started: Instant,
    colour: bool,
}

fn draw_until_closed(events: &Receiver<Event>, colour: bool) {
    let mut screen =
        Screen { steps: BTreeMap::new(), live_lines: 0, started: Instant::now(), colour };
    let mut next_frame = Instant::now() + FRAME;
    loop {
        match events.recv_timeout(next_frame.saturating_duration_since(Instant::now())) {
            Ok(event) => screen.apply(event),
            Err(RecvTimeoutError::Timeout) => {
                write_stderr(&screen.frame(false));
                next_frame = Instant::now() + FRAME;
            }
            Err(RecvTimeoutError::Disconnected) => {
                write_stderr(&screen.frame(true));
                return;
            }
        }
    }
}

impl Screen {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Started { step, name } => {
                let fresh = Step {
                    name,
                    state: State::Waiting,
                    since: Instant::now(),
                    why: None,
                    peak_memory: None,
                    log: VecDeque::new(),
                    transfers: BTreeMap::new(),
                    is_printed: false,
                };
                self.steps.insert(step, fresh);
            }
            Event::Warning { step: None, message } => {
                let text = format!(
                    "{}{}\n",
                    self.erase(),
                    self.paint("33", &format!(" warning: {message}"))
                );
                write_stderr(&text);
            }
            Event::Cached { step } => self.set(step, State::Cached),
            Event::Done { step, took } => self.set(step, State::Done(took)),
            Event::MemoryPeak { step, bytes } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    step.peak_memory = Some(bytes);
                }
            }
            Event::Failed { step, .. } => self.set(step, State::Failed),
            Event::Cancelled { step } => self.set(step, State::Cancelled),
            Event::Running { step, why } => {
                self.set(step, State::Running);
                if let Some(step) = self.steps.get_mut(&step) {
                    step.since = Instant::now();
                    step.why = (why != Why::First).then_some(why);
                }
            }
            Event::Log { step, line, .. } | Event::Warning { step: Some(step), message: line } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    if step.log.len() == LOG_LINES {
                        step.log.pop_front();
                    }
                    step.log.push_back(line);
                }
            }
            Event::Transfer { step, what, current, total } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    step.transfers.insert(what, (current, total));
                }
            }
        }
    }

    fn set(&mut self, step: usize, state: State) {
        if let Some(step) = self.steps.get_mut(&step) {
            step.state = state;
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Returns what removes the live part from the terminal.
    fn erase(&mut self) -> String {
        let lines = std::mem::take(&mut self.live_lines);
        if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
    }

    /// Returns one frame: finished steps once and for all, running ones for now.
    fn frame(&mut self, is_last: bool) -> String {
        let size = rustix::termios::tcgetwinsize(std::io::stderr());
        let (width, height) = size.map_or((80, 24), |size| {
            (usize::from(size.ws_col).max(20), usize::from(size.ws_row).max(5))
        });
        let mut out = self.erase();
        let finished: Vec<usize> = self
            .steps
            .iter()
            .filter(|(_, step)| !step.is_printed && step.is_over())
            .map(|(number, _)| *number)
            .collect();
        for number in finished {
            let line = self.line(number, width);
            let _ = writeln!(out, "{line}");
            if let Some(step) = self.steps.get_mut(&number) {
                step.is_printed = true;
            }
        }
        if is_last {
            return out;
        }
        let mut live = Vec::new();
        let done = self.steps.values().filter(|step| step.is_over()).count();
        let head = format!(
            "[+] building {} ({done}/{} steps)",
            seconds(self.started.elapsed()),
            self.steps.len()
        );
        live.push(self.paint("1", &clip(&head, width)));
        for (number, step) in &self.steps {
            if step.state == State::Running {
                live.push(self.line(*number, width));
                for (what, (current, total)) in &step.transfers {
                    let total = total.map_or(String::new(), |t| format!(" / {}", human_size(t)));
                    let text = format!("    {what} {}{total}", human_size(*current));
                    live.push(self.paint("2", &clip(&text, width)));
                }
                for line in &step.log {
                    live.push(self.paint("2", &clip(&format!("    {line}"), width)));
                }
            }
        }
        // What does not fit would scroll away and could not be overwritten.
        live.truncate(height - 1);
        self.live_lines = live.len();
        for line in live {
            let _ = writeln!(out, "{line}");
        }
        out
    }

    fn line(&self, number: usize, width: usize) -> String {
        let Some(step) = self.steps.get(&number) else { return String::new() };
        let (mark, colour, time) = match &step.state {
            State::Waiting => (" ", "0", String::new()),
            State::Running => (">", "36", seconds(step.since.elapsed())),
            State::Cached => ("=", "2", "cached".to_owned()),
            State::Done(took) => {
                let memory = step.peak_memory.map(|bytes| format!("{}  ", human_size(bytes)));
                ("+", "32", format!("{}{}", memory.unwrap_or_default(), seconds(*took)))
            }
            State::Failed => ("x", "1;31", "failed".to_owned()),
            State::Cancelled => ("-", "33", "cancelled".to_owned()),
        };
        let why = step.why.as_ref().map_or(String::new(), |why| format!("  (because {why})"));
        let room = width.saturating_sub(time.len() + 4);
        let text = clip(&format!("{}{why}", step.name), room);
        let padding = " ".repeat(room.saturating_sub(text.chars().count()));
        self.paint(colour, &format!(" {mark} {text}{padding} {time}"))
    }
}

impl Step {
    fn is_over(&self) -> bool {
        match self.state {
            State::Waiting | State::Running => false,
            State::Cached | State::Done(_) | State::Failed | State::Cancelled => true,
        }
    }
}

/// Cuts a line to a width and drops what would move the cursor.
fn clip(text: &str, width: usize) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if clean.chars().count() <= width {
        return clean;
    }
    clean.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}
